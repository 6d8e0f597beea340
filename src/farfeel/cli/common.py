"""What the commands share: common arguments, and the functions that turn arguments into objects."""

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
from farfeel.variants import CORPORA

if TYPE_CHECKING:
    import pandas as pd

    from farfeel.recipe import Recipe
    from farfeel.rooms.bank import Bank
    from farfeel.shards.store import Shards
    from farfeel.support.pool import Runner
    from farfeel.types import Clip


Arguments = argparse._ActionsContainer  # a parser, or a group of its arguments


@dataclass(frozen=True)
class Command:
    """A command: its name (one or two words), one line of help, a function that adds its arguments to a parser, and a
    function that runs it. `run` returns the exit code; None means 0."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


@dataclass(frozen=True)
class Source:
    """One --corpus with its own --root and --weight."""

    corpus: str
    root: Path | None = None
    weight: float | None = None

    def __str__(self) -> str:
        return str(self.root or self.corpus)


def print_error(message: str) -> int:
    """Print one line to standard error. Returns the exit code 1."""
    print(f"farfeel: error: {one_line(message)}", file=sys.stderr)
    return 1


def mic_list(text: str) -> list[int]:
    """Type of --mics: "0,2" → [0, 2]."""
    try:
        mics = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of microphone numbers like 0,1,2") from None
    if min(mics) < 0 or len(set(mics)) < len(mics):
        raise argparse.ArgumentTypeError(f"{text!r}: microphones are numbered from 0, and each may be named once")
    return mics


class Once(argparse._StoreAction):
    """Stores the value of an option. A second value would silently replace the first, so that it is refused."""

    given: Any = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if option is not None:
            if self.given not in (None, values):
                raise FarfeelError(
                    f"{option} is given twice ({_text(self.given)} and {_text(values)}), expected one value; remove one"
                )
            self.given = values
        setattr(namespace, self.dest, values)


def _text(values: Any) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)


class _InOrder(argparse.Action):
    """Records options in their order in `sources`: a --root belongs to the --corpus before it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.sources = [*getattr(namespace, "sources", []), (self.dest, values)]


def corpus_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --corpus and --root, which may be repeated; see `sources_of`."""
    parser.add_argument(
        "--corpus",
        required=required,
        action=_InOrder,
        help=f"{', '.join(CORPORA)} (folder: your own clips), a manifest file, or a prepared corpus (a folder or "
        "a URL). Repeat it for several corpora, each followed by its --root",
    )
    parser.add_argument(
        "--root",
        type=Path,
        action=_InOrder,
        help="folder of the corpus; a manifest needs it only if the files have moved",
    )


def weight_argument(parser: argparse.ArgumentParser) -> None:
    """Add --weight, which may be repeated; see `sources_of`."""
    parser.add_argument(
        "--weight",
        type=_positive,
        action=_InOrder,
        help="how often clips of the --corpus before it are drawn, relative to the other corpora (default 1); "
        "example: 0.5 draws them half as often",
    )


def label_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --emotions and --labels. `default` names the labels that are used without them."""
    from farfeel.corpora.label_sets import LABEL_SETS

    sets = " ".join(f"{name}: {label_set.help}." for name, label_set in LABEL_SETS.items())
    parser.add_argument(
        "--emotions",
        metavar="SET",
        help=f"emotions to tell apart: a list such as happy,sad, or a set. {sets} (default: {default})",
    )
    parser.add_argument(
        "--labels",
        choices=["intended", "perceived"],
        help="intended: the emotion that was acted; perceived: the one that most raters chose, if the corpus has "
        f"ratings (default: {default})",
    )


def label_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a recipe's data section that --emotions and --labels change."""
    from farfeel.corpora.labels import label_set

    return (label_set(args.emotions) if args.emotions else {}) | ({"labels": args.labels} if args.labels else {})


def as_overrides(settings: dict[str, Any]) -> list[str]:
    """Settings of a recipe's data section → overrides `data.name=value`."""
    return [f"data.{name}={json.dumps(value)}" for name, value in settings.items()]


def room_arguments(parser: argparse.ArgumentParser, rirs_help: str) -> None:
    """Add --rirs with the help text `rirs_help`, and --mics."""
    parser.add_argument("--rirs", type=Path, nargs="+", action="extend", default=[], metavar="BANK", help=rirs_help)
    parser.add_argument(
        "--mics",
        type=mic_list,
        metavar="N,N",
        help="microphones of the rooms to use, numbered from 0; example: 0,1,2 (default: all that the model can use)",
    )


def engine_argument(parser: argparse.ArgumentParser) -> None:
    """Add --engine of commands that run independent tasks."""
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="where the work is done; local: processes on this machine (default); ray: the Ray cluster at RAY_ADDRESS, "
        "or a Ray on this machine if that is not set",
    )


def runner(engine: str) -> Runner:
    """The function that runs independent tasks in parallel on this engine."""
    from farfeel.support import pool, ray_pool

    return ray_pool.run_all if engine == "ray" else pool.run_all


def device_argument(parser: Arguments) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        type=_device_name,
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one (default auto)",
    )


def modalities_argument(parser: Arguments) -> None:
    """Add --modalities."""
    parser.add_argument(
        "--modalities",
        choices=["audio", "video", "both"],
        default="both",
        help="use only the audio, only the video, or both (default both, if the checkpoint can use both)",
    )


def front_end_argument(parser: Arguments) -> None:
    """Add --front-end."""
    parser.add_argument(
        "--front-end",
        choices=["none", "mvdr", "wpe"],
        help="processing before the model; mvdr: a blind beamformer that removes loud noise, needs two or more "
        "microphones; wpe: removes reverberation (no gain in accuracy was measured); none (default: the setting in the "
        "checkpoint's recipe)",
    )


def joined_predictions(folders: str) -> pd.DataFrame:
    """Prediction table of one evaluation folder, or of several (separated by commas) joined into one."""
    from farfeel.evaluate.table import concatenate, read_predictions

    tables = [read_predictions(Path(folder)) for folder in folders.split(",")]
    return concatenate(tables) if len(tables) > 1 else tables[0]


def share(text: str) -> float:
    """Type of an option from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
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
    """Raises FarfeelError for the first option whose value is below `least`. `per_shard` is the option --per-shard."""
    for name, value in values.items():
        if value < least:
            raise FarfeelError(f"--{name.replace('_', '-')} is {value}, expected {least} or more; correct it")


def device(name: str) -> str:
    """The PyTorch device of --device. Raises FarfeelError for a GPU that PyTorch does not find."""
    import torch

    gpus = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= gpus:
        number = f"{gpus} GPU{'s' * (gpus != 1)}" if gpus else "no GPU"
        raise FarfeelError(
            f"--device is {name}, but PyTorch finds {number}; remove --device to use the hardware that is available"
        )
    return name


def open_banks(paths: Sequence[Path], sample_rate: int, min_mics: int) -> list[Bank]:
    """RIR banks at this sample rate in Hz with at least this many microphones.

    Raises FarfeelError if a bank does not fit, or if two banks have a room of the same name.
    """
    from farfeel.rooms.bank import Bank

    banks = [Bank.open(path, sample_rate=sample_rate, min_mics=min_mics) for path in paths]
    bank_of_room: dict[str, Path] = {}
    for bank in banks:
        for room in bank.rooms:
            if room in bank_of_room:
                raise FarfeelError(
                    f"{bank_of_room[room]} and {bank.path} both have a room {room}, expected different names; "
                    "use one bank at a time"
                )
            bank_of_room[room] = bank.path
    return banks


def rooms_and_mics(
    args: argparse.Namespace, recipes: Sequence[Recipe], shards: Shards | None = None
) -> tuple[list[Bank], list[int]]:
    """The RIR banks of --rirs and the microphones of --mics. No bank means dry speech, or prepared shards."""
    from farfeel.recognise.decoding import default_mics, require_mics

    if shards:
        mics = args.mics or default_mics(recipes, shards.mics, shards.address)
        return [], require_mics(mics, shards.mics, shards.address)
    banks = open_banks(args.rirs, recipes[0].audio.sample_rate, 1 + max(args.mics or [0]))
    if not banks and args.mics not in (None, [0]):
        raise FarfeelError(
            f"dry speech has 1 channel, number 0, but --mics requests {max(args.mics)}; remove --mics, or name RIR "
            "banks with --rirs"
        )
    name = "the RIR bank" if banks else "dry speech"
    return banks, args.mics or default_mics(recipes, min((bank.mics for bank in banks), default=1), name)


def sources_of(args: argparse.Namespace) -> list[Source]:
    """The corpora of the command line, each with its --root and --weight.

    These follow their --corpus. If there is only one --corpus, they may also precede it.
    """
    options: list[tuple[str, Any]] = args.sources
    if [option for option, _ in options].count("corpus") == 1:
        return [Source(**dict(options))]
    sources: list[Source] = []
    for option, value in options:
        if option == "corpus":
            sources.append(Source(value))
        elif not sources:
            raise FarfeelError(
                f"--{option} {value} is before the first --corpus, expected after it; write it after its --corpus"
            )
        elif getattr(sources[-1], option) is not None:
            raise FarfeelError(
                f"--corpus {sources[-1].corpus} has two --{option}, expected one; write one --{option} after each "
                "--corpus"
            )
        else:
            sources[-1] = replace(sources[-1], **{option: value})
    return sources


def weights_of(args: argparse.Namespace) -> dict[str, float]:
    """Corpus → weight for all corpora, or nothing if no --weight was given."""
    from farfeel.corpora.scan import corpora_of

    sources = sources_of(args)
    if not any(source.weight for source in sources):
        return {}
    return {name: source.weight or 1.0 for source in sources for name in corpora_of(source.corpus, source.root)}


def shards_of(args: argparse.Namespace) -> Shards | None:
    """The prepared corpus that --corpus names, or None if it is not a prepared one."""
    from farfeel.shards.store import Shards, is_prepared

    sources = sources_of(args)
    if not any(is_prepared(source.corpus) for source in sources):
        return None
    if len(sources) > 1:
        raise FarfeelError(
            f"found {len(sources)} --corpus, one of them prepared, expected only one; prepare the corpora together"
        )
    if args.rirs:
        raise FarfeelError(f"{sources[0].corpus} already contains the rooms; remove --rirs")
    return Shards.open(sources[0].corpus)


def chosen_clips(
    args: argparse.Namespace, recipe: Recipe, *parts: str, shards: Shards | None = None, to_train: bool = True
) -> tuple[list[list[Clip]], str]:
    """Clips of each part of the split, and a note on speakers of the split that the corpus lacks ("": none).

    The part "all" means all clips, without a split. With several corpora, the names of clips and speakers begin with
    the corpus. `shards`: the result of `shards_of`. `to_train`: False accepts a corpus without video for a model of
    both modalities.
    """
    from farfeel.corpora.scan import load_corpora
    from farfeel.corpora.selection import selected_clips

    sources = sources_of(args)
    if shards:
        from farfeel.shards.reading import clips_of

        loaded = clips_of(shards)
    else:
        loaded = load_corpora([(source.corpus, source.root) for source in sources], note)
    return selected_clips(loaded, recipe, parts, ", ".join(map(str, sources)), to_train)
