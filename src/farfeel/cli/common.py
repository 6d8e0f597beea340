"""What the commands share: arguments, and the steps between an argument and a call."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farfeel.support.console import note
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    import pandas as pd

    from farfeel.recipe import Recipe
    from farfeel.rooms.bank import Bank
    from farfeel.shards.store import Shards
    from farfeel.support.pool import Runner
    from farfeel.types import Clip


@dataclass(frozen=True)
class Command:
    """A command: its name (of one or two words), one line of help, its arguments, and what it does."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


@dataclass(frozen=True)
class Source:
    """A --corpus, with the --root and the --weight that belong to it."""

    corpus: str
    root: Path | None = None
    weight: float | None = None

    def __str__(self) -> str:
        return str(self.root or self.corpus)


def fail(message: str) -> int:
    print(f"farfeel: error: {one_line(message)}", file=sys.stderr)
    return 1


def mic_list(text: str) -> list[int]:
    try:
        mics = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of microphone numbers like 0,1,2") from None
    if min(mics) < 0 or len(set(mics)) < len(mics):
        raise argparse.ArgumentTypeError(f"{text!r}: microphones count from 0, each once")
    return mics


class _InOrder(argparse.Action):
    """Keeps the order of options in `sources`, as a --root belongs to the --corpus before it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.sources = [*getattr(namespace, "sources", []), (self.dest, values)]


def corpus_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--corpus and --root, any number of them; see `sources_of`."""
    parser.add_argument(
        "--corpus",
        required=required,
        action=_InOrder,
        help="ravdess, crema-d, iemocap, tess, emodb, urdu, stills, synthetic, folder (clips of your own), "
        "a manifest file, or shards of farfeel prepare (a folder or a URL); several: each with its --root after it",
    )
    parser.add_argument(
        "--root", type=Path, action=_InOrder, help="folder of the corpus (with a manifest: only where it has moved)"
    )


def weight_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weight",
        type=_positive,
        action=_InOrder,
        help="after a --corpus: how often its clips are drawn, relative to those of the others (default 1)",
    )


def label_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """--emotions and --labels, of which `default` tells what counts without them."""
    parser.add_argument(
        "--emotions",
        metavar="SET",
        help="classes: ravdess-8, ravdess-7 (calm counts as neutral), common-6 (and no surprised), iemocap-4, "
        f"iemocap-4-happy (without excited), or a list like happy,sad (default: {default})",
    )
    parser.add_argument(
        "--labels",
        choices=["intended", "perceived"],
        help=f"what was acted, or what most people perceived, where the corpus tells (default: {default})",
    )


def asked_labels(args: argparse.Namespace) -> dict[str, Any]:
    """What --emotions and --labels set in a recipe's data section."""
    from farfeel.corpora.labels import label_set

    return (label_set(args.emotions) if args.emotions else {}) | ({"labels": args.labels} if args.labels else {})


def as_overrides(knobs: dict[str, Any]) -> list[str]:
    """Knobs of a recipe's data section, as overrides."""
    return [f"data.{name}={json.dumps(value)}" for name, value in knobs.items()]


def room_arguments(parser: argparse.ArgumentParser, rirs: str) -> None:
    """--rirs, of which `rirs` tells what they are for, and --mics."""
    parser.add_argument("--rirs", type=Path, nargs="+", action="extend", default=[], help=rirs)
    parser.add_argument(
        "--mics",
        type=mic_list,
        help="microphones of the responses to use, from 0: 0,1,2 (default: all that the checkpoint takes)",
    )


def engine_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: on the Ray cluster of RAY_ADDRESS, or a local one (default: processes of this machine)",
    )


def runner(engine: str) -> Runner:
    """What does independent pieces of work."""
    from farfeel.support import pool, ray_pool

    return ray_pool.run_all if engine == "ray" else pool.run_all


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


def front_end_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--front-end",
        choices=["none", "mvdr", "wpe"],
        help="what the microphones pass first: mvdr, a blind beamformer against a loud noise; wpe, dereverberation (no "
        "gain shown); or none (default: what the checkpoint's recipe says)",
    )


def joined_predictions(folders: str) -> pd.DataFrame:
    """The predictions of an evaluation, or of several with commas between them."""
    from farfeel.evaluate.table import concatenate, read_predictions

    tables = [read_predictions(Path(folder)) for folder in folders.split(",")]
    return concatenate(tables) if len(tables) > 1 else tables[0]


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
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


def rooms_and_mics(
    args: argparse.Namespace, recipes: Sequence[Recipe], shards: Shards | None = None
) -> tuple[list[Bank], list[int]]:
    """What --rirs and --mics ask for: banks (none: dry speech, or prepared shards), and the microphones to hear."""
    from farfeel.recognise.decoding import default_mics, require_mics

    if shards:
        mics = args.mics or default_mics(recipes, shards.mics, shards.place)
        return [], require_mics(mics, shards.mics, shards.place)
    banks = open_banks(args.rirs, recipes[0].audio.sample_rate, 1 + max(args.mics or [0]))
    if not banks and args.mics not in (None, [0]):
        raise FarfeelError(f"dry speech has 1 channel, --mics asks for {max(args.mics)}; name RIR banks with --rirs")
    heard = "the RIR bank" if banks else "dry speech"
    return banks, args.mics or default_mics(recipes, min((bank.mics for bank in banks), default=1), heard)


def sources_of(args: argparse.Namespace) -> list[Source]:
    """The corpora that were asked for. One may have its options before it, as there is no doubt."""
    given: list[tuple[str, Any]] = args.sources
    if [option for option, _ in given].count("corpus") == 1:
        return [Source(**dict(given))]
    sources: list[Source] = []
    for option, value in given:
        if option == "corpus":
            sources.append(Source(value))
        elif not sources:
            raise FarfeelError(f"--{option} {value} is before the first --corpus, expected after it; exchange them")
        elif getattr(sources[-1], option) is not None:
            raise FarfeelError(
                f"--corpus {sources[-1].corpus} has two --{option}, expected one; give each --corpus its --{option} "
                "right after it"
            )
        else:
            sources[-1] = replace(sources[-1], **{option: value})
    return sources


def weights_of(args: argparse.Namespace) -> dict[str, float]:
    """Corpus → weight, of all that are there, if any --weight was given."""
    from farfeel.corpora.scan import corpora_of

    sources = sources_of(args)
    if not any(source.weight for source in sources):
        return {}
    return {name: source.weight or 1.0 for source in sources for name in corpora_of(source.corpus, source.root)}


def shards_of(args: argparse.Namespace) -> Shards | None:
    """The prepared corpus that --corpus names; None where it is of another kind."""
    from farfeel.shards.store import Shards, is_prepared

    sources = sources_of(args)
    if not any(is_prepared(source.corpus) for source in sources):
        return None
    if len(sources) > 1:
        raise FarfeelError(f"{len(sources)} --corpus, expected a prepared one alone; prepare several corpora together")
    if args.rirs:
        raise FarfeelError(f"{sources[0].corpus} was prepared in rooms already; leave --rirs out")
    return Shards.open(sources[0].corpus)


def chosen_clips(
    args: argparse.Namespace, recipe: Recipe, *parts: str, shards: Shards | None = None, to_train: bool = True
) -> tuple[list[list[Clip]], str]:
    """Clips of each part of the split ("all": undivided), and a note on who is absent. Of several corpora, ids and
    speakers name theirs. `shards`: what `shards_of` gave. Not `to_train`: a corpus without films will do for both."""
    from farfeel.corpora.decoded import usable_clips
    from farfeel.corpora.labels import relabelled
    from farfeel.corpora.scan import load_corpora, named_with_corpus
    from farfeel.corpora.splits import split_clips

    sources = sources_of(args)
    if shards:
        from farfeel.shards.reading import clips_of

        loaded = clips_of(shards)
    else:
        loaded = load_corpora([(source.corpus, source.root) for source in sources], note)
    found, changes = relabelled(loaded, recipe.data, recipe.modalities)
    for line in changes:
        note(line)
    clips = usable_clips(found, recipe, ", ".join(map(str, sources)), to_train)
    if others := [clip.emotion for clip in found if clip.emotion not in recipe.data.emotions]:
        note(f"left out: {len(others)} clips of other emotions ({', '.join(sorted(set(others)))})")
    if lacking := len(found) - len(others) - len(clips):
        note(f"left out: {lacking} clips without {'sound' if recipe.modalities == 'audio' else 'film'}")
    chosen, absent = [clips], ""
    if parts != ("all",):
        divided = split_clips(clips, recipe.data.split)
        absent = f"; absent from the corpus: {', '.join(divided.absent)}" if divided.absent else ""
        chosen = [list(divided.part(part)) for part in parts]
    corpora = sorted({clip.corpus for clip in loaded})
    if len(corpora) > 1:
        for part, clips in zip(parts, chosen, strict=True):
            counts = [f"{sum(clip.corpus == corpus for clip in clips)} of {corpus}" for corpus in corpora]
            note(f"{part}: {', '.join(counts)}")
        chosen = [named_with_corpus(clips) for clips in chosen]
    return chosen, absent
