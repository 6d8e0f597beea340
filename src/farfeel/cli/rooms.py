"""Commands about rooms: rooms simulate, rooms import."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import Command, engine_argument, require_at_least, runner
from farfeel.support.console import note, progress
from farfeel.variants import ROOM_IMPORTERS

if TYPE_CHECKING:
    from farfeel.rooms.bank import Bank


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, required=True, help="responses to simulate, each in a room of its own")
    parser.add_argument("--mics", type=int, required=True, help="microphones of the array")
    parser.add_argument("--out", type=Path, required=True, help="folder of the RIR bank")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default 1)")
    parser.add_argument("--recipe", default="default", help="recipe whose simulation section gives the ranges")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    engine_argument(parser)
    parser.add_argument(
        "--backend",
        choices=["pyroomacoustics", "gpurir"],
        default="pyroomacoustics",
        help="gpurir: on a GPU, in one process; you install it yourself (default pyroomacoustics)",
    )
    parser.add_argument("overrides", nargs="*", metavar="simulation.key=value", help="e.g. simulation.t60_s=[0.5,0.85]")


def _simulate(args: argparse.Namespace) -> None:
    from farfeel.recipe import load_recipe
    from farfeel.rooms.simulate import simulate
    from farfeel.support.files import require_writable_folder

    require_at_least(1, count=args.count, mics=args.mics, workers=args.workers)
    require_at_least(0, seed=args.seed)
    out = require_writable_folder(args.out)
    ranges = load_recipe(args.recipe, args.overrides).simulation
    with progress("simulating rooms", "responses") as advance:
        workers = 1 if args.backend == "gpurir" else args.workers
        run = runner(args.engine)
        bank = simulate(args.count, args.mics, ranges, args.seed, out, workers, advance, run, args.backend)
    _describe_bank(bank, args.out)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    layouts = " ".join(f"{name}: {ROOM_IMPORTERS.summary(name)}" for name in ROOM_IMPORTERS)
    parser.add_argument("kind", choices=ROOM_IMPORTERS.names, help=layouts.replace("%", "%%"))
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the published files, or of WAV or FLAC files"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the RIR bank")
    parser.add_argument(
        "--array",
        help="ACE: Single, Mobile, Crucif, Chromebook, Lin8Ch or EM32 (default Mobile); others have one array",
    )
    parser.add_argument("--sample-rate", type=int, default=16000, help="Hz (default 16000)")


def _import(args: argparse.Namespace) -> None:
    from farfeel.rooms.bank import check_replaceable, write_bank

    require_at_least(8000, sample_rate=args.sample_rate)
    check_replaceable(args.out)
    note(f"reading measured responses under {args.root}")
    rirs = ROOM_IMPORTERS.get(args.kind)(args.root, args.sample_rate, args.array)
    _describe_bank(write_bank(args.out, rirs), args.out)


def _describe_bank(bank: Bank, path: Path) -> None:
    import numpy as np

    print(f"{path}: {len(bank)} responses, {bank.mics} microphones, {bank.sample_rate} Hz, {len(bank.rooms)} rooms")
    rooms = bank.rooms if len(bank.rooms) <= 20 else ()
    for room in rooms:
        responses = [bank[int(i)] for i in bank.indices(room)]
        t60_s, drr_db = (np.median(_known(getattr(r, what) for r in responses)) for what in ("t60_s", "drr_db"))
        print(f"  {room:<24} {len(responses):>4} positions   T60 {t60_s:.2f} s   DRR {drr_db:+.1f} dB (medians)")
    if not rooms:
        low, middle, high = np.percentile(_known(bank[i].t60_s for i in range(len(bank))), [5, 50, 95])
        print(f"  T60: 5 % below {low:.2f} s, half below {middle:.2f} s, 5 % above {high:.2f} s")


def _known(values: Iterable[float]) -> list[float]:
    """The values that could be measured; one NaN where none could."""
    return [value for value in values if value == value] or [float("nan")]


COMMANDS = (
    Command("rooms simulate", "Simulate room impulse responses into a bank.", _simulate_arguments, _simulate),
    Command("rooms import", "Read measured room impulse responses into a bank.", _import_arguments, _import),
)
