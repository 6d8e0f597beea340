"""Commands that gather data: scan, stills, surrogate, rooms simulate, rooms import."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import Command, corpus_arguments, engine_argument, require_at_least, runner, sources_of
from farfeel.console import note, progress
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from farfeel.rooms.bank import Bank


def _scan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", help="ravdess, crema-d, iemocap, tess, emodb, urdu, stills, synthetic or folder")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the corpus, in its published layout or flat"
    )
    parser.add_argument("--out", type=Path, help="write the manifest (Parquet, one row per clip)")


def _scan(args: argparse.Namespace) -> None:
    from farfeel.corpora import get_corpus
    from farfeel.corpora.scan import scan, write_manifest
    from farfeel.files import require_file_place

    if args.out:
        require_file_place(args.out)
    corpus = get_corpus(args.corpus)
    with progress("reading headers", "files") as advance:
        report = scan(corpus, args.root, progress=advance)
    print(f"{corpus.title} ({corpus.licence})\n{corpus.source}\n\n{report.summary()}")
    if args.out:
        write_manifest(report.clips, args.out, args.root)
        note(f"manifest: {args.out}")


def _stills_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="FER2013's CSV, or Parquet with the columns jpeg, emotion and split")
    parser.add_argument("--out", type=Path, required=True, help="folder of the stills: split/emotion/row.jpg")


def _stills(args: argparse.Namespace) -> None:
    from farfeel.corpora.corpus import few
    from farfeel.corpora.stills import unpack
    from farfeel.files import require_folder_place

    require_folder_place(args.out)
    with progress("unpacking", "stills") as advance:
        unpacked = unpack(args.table, args.out, advance)
    for split, emotions in unpacked.stills.items():
        counts = ", ".join(f"{count} {emotion}" for emotion, count in emotions.items())
        print(f"{split:<10}  {sum(emotions.values()):>6} stills: {counts}")
    for split, count in unpacked.copies.items():
        note(f"{count} of the {split} stills are byte for byte also in train: the published split leaks that much")
    if unpacked.bad:
        note(f"left out: {few(unpacked.bad)}")


def _surrogate_arguments(parser: argparse.ArgumentParser) -> None:
    corpus_arguments(parser)
    parser.add_argument("--stills", type=Path, required=True, help="folder of face stills (see farfeel stills)")
    parser.add_argument("--split", required=True, help="split that no still may cross, e.g. folds-6:1")
    parser.add_argument("--out", type=Path, required=True, help="folder of the films, their manifest and the pairs")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: all cores)")


def _surrogate(args: argparse.Namespace) -> None:
    from collections import Counter

    from farfeel.corpora.scan import load_clips
    from farfeel.corpora.splits import PARTS
    from farfeel.corpora.surrogate import MANIFEST, make_surrogate
    from farfeel.files import require_folder_place

    require_at_least(1, workers=args.workers)
    require_at_least(0, seed=args.seed)
    require_folder_place(args.out)
    source, *others = sources_of(args)
    if others:
        raise FarfeelError(f"surrogate films are made for one corpus, found {1 + len(others)} --corpus; name one")
    clips = load_clips(source.corpus, source.root, note)
    stills = load_clips("stills", args.stills, note)
    with progress("filming", "films") as advance:
        pairs = make_surrogate(clips, stills, args.split, args.out, args.seed, args.workers, advance)
    for part in PARTS:
        films = Counter(one.still.id for one in pairs if one.part == part)
        print(f"{part:<5}  {films.total():>5} films of {len(films)} stills")
    print("Surrogate films: stills of other people. A result on them is no result on people filmed while they speak.")
    note(f"use --corpus {args.out / MANIFEST} with data.split={args.split}: on another split stills would cross")


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
        help="gpurir: on a GPU, in one process, where you have installed it (default pyroomacoustics)",
    )
    parser.add_argument("overrides", nargs="*", metavar="simulation.key=value", help="e.g. simulation.t60_s=[0.5,0.85]")


def _simulate(args: argparse.Namespace) -> None:
    from farfeel.files import require_folder_place
    from farfeel.recipe import load_recipe
    from farfeel.rooms.simulate import simulate

    require_at_least(1, count=args.count, mics=args.mics, workers=args.workers)
    require_at_least(0, seed=args.seed)
    out = require_folder_place(args.out)
    ranges = load_recipe(args.recipe, args.overrides).simulation
    with progress("simulating rooms", "responses") as advance:
        workers = 1 if args.backend == "gpurir" else args.workers
        run = runner(args.engine)
        bank = simulate(args.count, args.mics, ranges, args.seed, out, workers, advance, run, args.backend)
    _describe_bank(bank, args.out)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=["ace", "r3vival", "folder"], help="whose layout and names the files have")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the published files, or of WAV or FLAC files"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the RIR bank")
    parser.add_argument("--array", default="Mobile", help="ACE: Single, Mobile, Crucif, Chromebook, Lin8Ch or EM32")
    parser.add_argument("--sample-rate", type=int, default=16000, help="Hz (default 16000)")


def _import(args: argparse.Namespace) -> None:
    from farfeel.files import require_folder_place
    from farfeel.rooms import measured
    from farfeel.rooms.bank import check_replaceable, write_bank

    require_at_least(8000, sample_rate=args.sample_rate)
    check_replaceable(require_folder_place(args.out))
    note(f"reading measured responses under {args.root}")
    if args.kind == "ace":
        rirs = measured.import_ace(args.root, array=args.array, sample_rate=args.sample_rate)
    elif args.kind == "r3vival":
        rirs = measured.import_r3vival(args.root, sample_rate=args.sample_rate)
    else:
        rirs = measured.import_folder(args.root, sample_rate=args.sample_rate)
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
    """Those that could be measured; one NaN where none could."""
    return [value for value in values if value == value] or [float("nan")]


COMMANDS = (
    Command("scan", "What a folder holds of a corpus; writes its manifest.", _scan_arguments, _scan),
    Command("stills", "Unpack a table of face stills (FER2013) into a folder.", _stills_arguments, _stills),
    Command("surrogate", "Films of stills for a speech corpus without films.", _surrogate_arguments, _surrogate),
    Command("rooms simulate", "Simulate room impulse responses into a bank.", _simulate_arguments, _simulate),
    Command("rooms import", "Read measured room impulse responses into a bank.", _import_arguments, _import),
)
