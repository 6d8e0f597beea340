"""The command prepare: a corpus, recorded in simulated or measured rooms, as tar shards."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import (
    Command,
    chosen_clips,
    corpus_arguments,
    engine_argument,
    open_banks,
    print_error,
    require_at_least,
    room_arguments,
    runner,
)
from farfeel.support.console import note, progress
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from farfeel.recipe import Recipe
    from farfeel.rooms.bank import Bank
    from farfeel.types import Clip


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compute every clip as the microphones of the rooms would record it, and write the result as tar shards with "
        "an\nindex. train, evaluate and other software read shards from a disk or from a bucket. If the command is "
        "stopped,\nrun it again: it resumes. The same seed gives the same bytes for any number of workers."
    )
    corpus_arguments(parser, required=False)
    room_arguments(parser, "RIR bank with the rooms of the clips (default: none, dry speech)")
    parser.add_argument("--out", type=Path, help="folder to write the shards into")
    parser.add_argument(
        "--recipe",
        default="default",
        help="recipe that sets the sample rate and, with modalities=both, how faces are cropped (default: default)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings of the recipe to change: modalities=both"
    )
    parser.add_argument(
        "--renderings",
        type=int,
        default=1,
        metavar="N",
        help="recordings of each clip, each with a different room response (default 1)",
    )
    parser.add_argument(
        "--split",
        help="how speakers are divided into train, val and test, for --part and --profile; example: folds-7:1 "
        "(default: the recipe's)",
    )
    parser.add_argument(
        "--part",
        default="all",
        choices=["train", "val", "test", "all"],
        help="part of the split to prepare (default all)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of all random choices (default 1)")
    parser.add_argument(
        "--per-shard", type=int, default=128, metavar="N", help="recordings in each shard (default 128)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that work in parallel (default: one for each core)",
    )
    engine_argument(parser)
    parser.add_argument(
        "--profile",
        choices=["paper"],
        help="paper: prepare the data of the paper: OUT/train and OUT/val with the rooms of --rirs, OUT/test with "
        "those of --test-rirs",
    )
    parser.add_argument(
        "--test-rirs",
        type=Path,
        metavar="BANK",
        help="with --profile paper: RIR bank of measured rooms for the test; in the paper these are of ACE",
    )
    parser.add_argument(
        "--verify",
        nargs="?",
        const="",
        metavar="SHARDS",
        help="only check shards and list the damaged ones; SHARDS is a folder or a URL (default: the folder of --out)",
    )


def _prepare(args: argparse.Namespace) -> int | None:
    if args.verify is not None:
        if not (args.verify or args.out):
            raise FarfeelError("--verify has no shards to check; add their folder or URL: --verify SHARDS")
        return _verify(args.verify or str(args.out))
    from farfeel.recipe import load_recipe
    from farfeel.support.files import require_writable_folder

    if args.out is None or args.corpus is None:
        raise FarfeelError("prepare needs --corpus and --out, or --verify SHARDS; add them")
    require_at_least(1, renderings=args.renderings, per_shard=args.per_shard, workers=args.workers)
    require_writable_folder(args.out)
    paper = args.profile == "paper"
    overrides = [*args.overrides, *([f"data.split={args.split}"] if args.split else [])]
    recipe = load_recipe("paper-sum-pe" if paper and args.recipe == "default" else args.recipe, overrides)
    parts: list[tuple[str, list[Path], Path]] = [(args.part, args.rirs, args.out)]
    if paper:
        if args.test_rirs is None or not args.rirs:
            raise FarfeelError("--profile paper needs --rirs (training rooms) and --test-rirs (test rooms); add both")
        rooms = {"train": args.rirs, "val": args.rirs, "test": [args.test_rirs]}
        parts = [(part, paths, args.out / part) for part, paths in rooms.items()]
    # All parts are checked before the first is prepared, which may take hours.
    checked = [(_clips(args, recipe, part), _bank(paths, recipe, args), out) for part, paths, out in parts]
    for clips, bank, out in checked:
        _prepare_part(args, recipe, clips, bank, out)
    return None


def _clips(args: argparse.Namespace, recipe: Recipe, part: str) -> list[Clip]:
    """The clips of a part of the split. Names of clips and speakers are those of the corpus, without its prefix."""
    (named,), absent = chosen_clips(args, recipe, part)
    recordings = f"{args.renderings} recording{'s' * (args.renderings > 1)} of each"
    note(f"{part}: {len(named)} clips, {recordings}{absent}")
    own = [{name: getattr(clip, name).removeprefix(f"{clip.corpus}/") for name in ("id", "speaker")} for clip in named]
    return [replace(clip, **names) for clip, names in zip(named, own, strict=True)]


def _bank(paths: list[Path], recipe: Recipe, args: argparse.Namespace) -> Bank | None:
    if not paths:
        return None
    if len(paths) > 1:
        raise FarfeelError(f"found {len(paths)} RIR banks, expected one; run prepare once for each")
    return open_banks(paths, recipe.audio.sample_rate, 1 + max(args.mics or [0]))[0]


def _prepare_part(args: argparse.Namespace, recipe: Recipe, clips: list[Clip], bank: Bank | None, out: Path) -> None:
    from farfeel.shards.prepare import prepare
    from farfeel.shards.store import MOST_CHANNELS

    mics = args.mics or list(range(min(bank.mics, MOST_CHANNELS) if bank else 1))
    numbers = args.renderings, args.seed, args.per_shard, args.workers
    with progress("preparing", "shards") as advance:
        shards = prepare(clips, recipe, bank, out, mics, *numbers, advance, runner(args.engine))
    files = shards.facts["shards"]
    size_mb = sum(file["bytes"] for file in files) / 1e6
    print(f"{out}: {len(shards)} recordings of {shards.mics} microphones in {len(files)} shards, {size_mb:.1f} MB")


def _verify(folder: str) -> int | None:
    from farfeel.shards.store import Shards

    shards = Shards.open(folder)
    with progress("verifying", "shards") as advance:
        faults = shards.verify(advance)
    for fault in faults:
        note(fault)
    if faults:
        total = len(shards.facts["shards"])
        return print_error(
            f"{len(faults)} of {total} shards of {folder} are damaged; delete these and run prepare again"
        )
    print(f"{folder}: {len(shards)} recordings in {len(shards.facts['shards'])} shards, none damaged")
    return None


COMMANDS = (
    Command("prepare", "Prepare a corpus in rooms as tar shards, for training and testing.", _arguments, _prepare),
)
