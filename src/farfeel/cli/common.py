"""What the commands share: arguments, and the steps between an argument and a call."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.console import note
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from farfeel.recipe import Recipe
    from farfeel.rooms.bank import Bank
    from farfeel.types import Clip


@dataclass(frozen=True)
class Command:
    """A command: its name (of one or two words), one line of help, its arguments, and what it does."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def fail(message: str) -> int:
    print(f"farfeel: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def mic_list(text: str) -> list[int]:
    try:
        mics = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of microphone numbers like 0,1,2") from None
    if min(mics) < 0 or len(set(mics)) < len(mics):
        raise argparse.ArgumentTypeError(f"{text!r}: microphones count from 0, each once")
    return mics


def corpus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus",
        required=True,
        help="ravdess, crema-d, iemocap, tess, emodb, urdu, stills, synthetic, folder (clips of your own), "
        "or a manifest file",
    )
    parser.add_argument("--root", type=Path, help="folder of the corpus (with a manifest: only where it has moved)")


def room_arguments(parser: argparse.ArgumentParser, rirs: str) -> None:
    """--rirs, of which `rirs` tells what they are for, and --mics."""
    parser.add_argument("--rirs", type=Path, nargs="+", action="extend", default=[], help=rirs)
    parser.add_argument(
        "--mics",
        type=mic_list,
        help="microphones of the responses to use, from 0: 0,1,2 (default: all that the checkpoint takes)",
    )


def device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=_device_name,
        default="auto",
        help="auto, cpu, cuda or cuda:N (default: a GPU where there is one)",
    )


def modalities_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modalities",
        choices=["audio", "video", "both"],
        default="both",
        help="use only the sound, or only the film (default both, as far as the checkpoint takes them)",
    )


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def _device_name(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda or cuda:N")
    return text


def require_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise FarfeelError(f"--{name.replace('_', '-')} is {value}, expected {least} or more; correct it")


def device(name: str) -> str:
    import torch

    gpus = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= gpus:
        found = f"PyTorch finds {gpus or 'none'}"
        raise FarfeelError(f"--device {name} asks for a GPU, and {found}; leave it out to use what is there")
    return name


def open_banks(paths: Sequence[Path], sample_rate: int, min_mics: int) -> list[Bank]:
    from farfeel.rooms.bank import Bank

    banks = [Bank.open(path, sample_rate=sample_rate, min_mics=min_mics) for path in paths]
    place_of: dict[str, Path] = {}
    for bank in banks:
        for room in bank.rooms:
            if room in place_of:
                raise FarfeelError(
                    f"{place_of[room]} and {bank.path} both have a room {room}, expected a name of its own for each "
                    "room; test in them one after the other"
                )
            place_of[room] = bank.path
    return banks


def rooms_and_mics(args: argparse.Namespace, recipes: Sequence[Recipe]) -> tuple[list[Bank], list[int]]:
    """What --rirs and --mics ask for: banks (none: dry speech), and the microphones to hear."""
    from farfeel.opening import default_mics

    banks = open_banks(args.rirs, recipes[0].audio.sample_rate, 1 + max(args.mics or [0]))
    if not banks and args.mics not in (None, [0]):
        raise FarfeelError(f"dry speech has 1 channel, --mics asks for {max(args.mics)}; name RIR banks with --rirs")
    heard = "the RIR bank" if banks else "dry speech"
    return banks, args.mics or default_mics(recipes, min((bank.mics for bank in banks), default=1), heard)


def chosen_clips(args: argparse.Namespace, recipe: Recipe, *parts: str) -> tuple[list[list[Clip]], str]:
    """Clips of each part of the split ("all": undivided), and a note on who is absent."""
    from farfeel.corpora.scan import load_clips
    from farfeel.corpora.splits import split_clips
    from farfeel.data import usable_clips

    found = load_clips(args.corpus, args.root, note)
    clips = usable_clips(found, recipe, str(args.root or args.corpus))
    if others := [clip.emotion for clip in found if clip.emotion not in recipe.data.emotions]:
        note(f"left out: {len(others)} clips of other emotions ({', '.join(sorted(set(others)))})")
    if lacking := len(found) - len(others) - len(clips):
        note(f"left out: {lacking} clips without {'sound' if recipe.modalities == 'audio' else 'film'}")
    if parts == ("all",):
        return [clips], ""
    divided = split_clips(clips, recipe.data.split)
    absent = f"; absent from the corpus: {', '.join(divided.absent)}" if divided.absent else ""
    return [list(divided.part(part)) for part in parts], absent
