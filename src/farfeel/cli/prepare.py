"""The command prepare: a corpus in rooms, once, as shards."""

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
    fail,
    open_banks,
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
        "Every clip as the microphones of some rooms recorded it, in tar shards with an index: train, evaluate and "
        "other software read them, from a disk or from a bucket. A killed command goes on where it was; the same seed "
        "gives the same bytes, whatever the number of workers."
    )
    corpus_arguments(parser, required=False)
    room_arguments(parser, "RIR bank that the clips sound in; without, dry speech")
    parser.add_argument("--out", type=Path, help="folder of the shards")
    parser.add_argument(
        "--recipe",
        default="default",
        help="what hears and sees: sample rate and, with modalities=both, how faces are cropped (default: default)",
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="knobs of the recipe to change")
    parser.add_argument(
        "--renderings", type=int, default=1, help="each clip in this many responses, all different (default 1)"
    )
    parser.add_argument("--split", help="split of the recipe to use instead, with --part or --profile: folds-7:1")
    parser.add_argument("--part", default="all", choices=["train", "val", "test", "all"], help="default all")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default 1)")
    parser.add_argument("--per-shard", type=int, default=128, help="examples in a shard (default 128)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    engine_argument(parser)
    parser.add_argument(
        "--profile",
        choices=["paper"],
        help="paper: OUT/train and OUT/val in --rirs, OUT/test in --test-rirs (ACE), split and sound as in the paper",
    )
    parser.add_argument("--test-rirs", type=Path, help="with --profile paper: measured rooms of the test")
    parser.add_argument(
        "--verify",
        nargs="?",
        const="",
        metavar="SHARDS",
        help="only read prepared shards (without a name: those of --out), and name those that are damaged",
    )


def _prepare(args: argparse.Namespace) -> int | None:
    if args.verify is not None:
        if not (args.verify or args.out):
            raise FarfeelError("--verify needs the shards to read; name their folder or URL")
        return _verify(args.verify or str(args.out))
    from farfeel.recipe import load_recipe
    from farfeel.support.files import require_folder_place

    if args.out is None or args.corpus is None:
        raise FarfeelError("prepare needs --corpus and --out (or --verify SHARDS); name them")
    require_at_least(1, renderings=args.renderings, per_shard=args.per_shard, workers=args.workers)
    require_folder_place(args.out)
    paper = args.profile == "paper"
    overrides = [*args.overrides, *([f"data.split={args.split}"] if args.split else [])]
    recipe = load_recipe("paper-sum-pe" if paper and args.recipe == "default" else args.recipe, overrides)
    parts: list[tuple[str, list[Path], Path]] = [(args.part, args.rirs, args.out)]
    if paper:
        if args.test_rirs is None or not args.rirs:
            raise FarfeelError("--profile paper needs --rirs (training rooms) and --test-rirs (measured rooms)")
        rooms = {"train": args.rirs, "val": args.rirs, "test": [args.test_rirs]}
        parts = [(part, paths, args.out / part) for part, paths in rooms.items()]
    # All parts are looked at before the first is prepared, which may take hours.
    chosen = [(_clips(args, recipe, part), _bank(paths, recipe, args), out) for part, paths, out in parts]
    for clips, bank, out in chosen:
        _one(args, recipe, clips, bank, out)
    return None


def _clips(args: argparse.Namespace, recipe: Recipe, part: str) -> list[Clip]:
    """The clips of a part of the split, under the names that their corpus gives them."""
    (named,), absent = chosen_clips(args, recipe, part)
    note(f"{part}: {len(named)} clips, {args.renderings} rendering{'s' * (args.renderings > 1)} of each{absent}")
    own = [{name: getattr(clip, name).removeprefix(f"{clip.corpus}/") for name in ("id", "speaker")} for clip in named]
    return [replace(clip, **names) for clip, names in zip(named, own, strict=True)]


def _bank(paths: list[Path], recipe: Recipe, args: argparse.Namespace) -> Bank | None:
    if not paths:
        return None
    if len(paths) > 1:
        raise FarfeelError(f"{len(paths)} RIR banks, expected one; prepare each by itself")
    return open_banks(paths, recipe.audio.sample_rate, 1 + max(args.mics or [0]))[0]


def _one(args: argparse.Namespace, recipe: Recipe, clips: list[Clip], bank: Bank | None, out: Path) -> None:
    from farfeel.shards.prepare import prepare
    from farfeel.shards.store import MOST_CHANNELS

    mics = args.mics or list(range(min(bank.mics, MOST_CHANNELS) if bank else 1))
    numbers = args.renderings, args.seed, args.per_shard, args.workers
    with progress("preparing", "shards") as advance:
        shards = prepare(clips, recipe, bank, out, mics, *numbers, advance, runner(args.engine))
    held = shards.facts["shards"]
    size = sum(shard["bytes"] for shard in held) / 1e6
    print(f"{out}: {len(shards)} examples of {shards.mics} microphones in {len(held)} shards, {size:.1f} MB")


def _verify(place: str) -> int | None:
    from farfeel.shards.store import Shards

    shards = Shards.open(place)
    with progress("verifying", "shards") as advance:
        faults = shards.verify(advance)
    for fault in faults:
        note(fault)
    if faults:
        return fail(f"{len(faults)} of {len(shards.facts['shards'])} shards of {place} are damaged")
    print(f"{place}: {len(shards)} examples in {len(shards.facts['shards'])} shards, all as they were written")
    return None


COMMANDS = (Command("prepare", "A corpus in rooms, once: tar shards to train and test from.", _arguments, _prepare),)
