"""The command line: arguments in, one call, a table out. Heavy imports are inside each command.

Exit code 0: done; 1: the input or the data is at fault, said in one line; 2: wrong usage. Results go to standard
output; progress and notes to standard error.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel import __version__
from farfeel.console import note, progress
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from farfeel.recipe import Recipe
    from farfeel.rooms.bank import Bank
    from farfeel.types import Clip

OVERVIEW = """\
farfeel recognises a person's emotion in a real, reverberant room, from several distant microphones.

  farfeel demo                                        everything once, on an embedded corpus, in minutes
  farfeel predict CLIP.wav --checkpoint CKPT          the emotion of a recording

From a corpus to a per-room table:
  farfeel scan ravdess --root RAVDESS                 what is there
  farfeel rooms simulate --count 300 --mics 3 --out rooms/train
  farfeel rooms import r3vival --root R3VIVAL --out rooms/test
  farfeel train --recipe default --corpus ravdess --root RAVDESS --rirs rooms/train --out runs/mine
  farfeel evaluate --checkpoint runs/mine/best --corpus ravdess --root RAVDESS --rirs rooms/test --out runs/mine/test
"""


@dataclass(frozen=True)
class Command:
    """A command: its name (of one or two words), one line of help, its arguments, and what it does."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        if sys.stdout:
            sys.stdout.flush()  # here, not at the interpreter's end, where a full disk or a closed pipe is a traceback
        return code
    except FarfeelError as error:
        return _fail(str(error))
    except BrokenPipeError:  # `farfeel … | head`
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        note("interrupted; the same command resumes where it can")
        return 130
    except OSError as error:
        from farfeel.files import FULL

        if error.errno in FULL and not error.filename:
            _discard_stdout()
        what = error.filename or "the output"
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = (
            "free some space or choose another place" if error.errno in FULL else "check the path and its permissions"
        )
        return _fail(f"{what} cannot be read or written ({reason}); {remedy}")


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        print(f"farfeel {__version__}")
        return 0
    groups = {command.name.split()[0] for command in COMMANDS if " " in command.name}
    name = " ".join(words[:2]) if words and words[0] in groups else " ".join(words[:1])
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        return _help(words, groups)
    parser = argparse.ArgumentParser(
        prog=f"farfeel {command.name}", description=command.help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.arguments(parser)
    # Intermixed: overrides and files may stand before, between and after options.
    args = parser.parse_intermixed_args(words[len(command.name.split()) :])
    return command.run(args) or 0


def _help(words: list[str], groups: set[str]) -> int:
    """The overview, or the commands of a group; exit code 2 for a word that is no command."""
    asked = not words or words[0] in ("-h", "--help", "help")
    group = words[0] if words and words[0] in groups else None
    listed = [command for command in COMMANDS if group is None or command.name.split()[0] == group]
    known = asked or (group is not None and words[1:2] in ([], ["-h"], ["--help"]))
    stream = sys.stdout if known else sys.stderr
    if not known:
        print(f"farfeel: no command {' '.join(words[: 2 if group else 1])!r}\n", file=stream)
    elif group is None:
        print(OVERVIEW, file=stream)
    print("Commands (farfeel COMMAND --help tells more):", file=stream)
    for command in listed:
        print(f"  {command.name:<16} {command.help.splitlines()[0]}", file=stream)
    return 0 if known else 2


def _fail(message: str) -> int:
    print(f"farfeel: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _discard_stdout() -> None:
    """What waits to be printed goes nowhere, or the interpreter would fail on it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- shared arguments and steps ------------------------------------------------------------------------------------


def _mic_list(text: str) -> list[int]:
    try:
        mics = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of microphone numbers like 0,1,2") from None
    if min(mics) < 0 or len(set(mics)) < len(mics):
        raise argparse.ArgumentTypeError(f"{text!r}: microphones count from 0, each once")
    return mics


def _corpus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", required=True, help="ravdess, tess, emodb, urdu, synthetic, or a manifest file")
    parser.add_argument("--root", type=Path, help="folder of the corpus (with a manifest: only where it has moved)")


def _device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=_device_name,
        default="auto",
        help="auto, cpu, cuda or cuda:N (default: a GPU where there is one)",
    )


def _device_name(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda or cuda:N")
    return text


def _require_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise FarfeelError(f"--{name.replace('_', '-')} is {value}, expected {least} or more; correct it")


def _device(name: str) -> str:
    import torch

    gpus = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= gpus:
        found = f"PyTorch finds {gpus or 'none'}"
        raise FarfeelError(f"--device {name} asks for a GPU, and {found}; leave it out to use what is there")
    return name


def _open_banks(paths: Sequence[Path], sample_rate: int, min_mics: int) -> list[Bank]:
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


def _clips(args: argparse.Namespace, recipe: Recipe, *parts: str) -> tuple[list[list[Clip]], str]:
    """Clips of each part of the split ("all": undivided), and a note on who is absent."""
    from farfeel.corpora.scan import load_clips
    from farfeel.corpora.splits import split_clips
    from farfeel.data import check_emotions

    clips = check_emotions(load_clips(args.corpus, args.root, note), recipe, str(args.root or args.corpus))
    if parts == ("all",):
        return [clips], ""
    divided = split_clips(clips, recipe.data.split)
    absent = f"; absent from the corpus: {', '.join(divided.absent)}" if divided.absent else ""
    return [list(divided.part(part)) for part in parts], absent


# --- scan, rooms ---------------------------------------------------------------------------------------------------


def _scan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", help="ravdess, tess, emodb, urdu or synthetic")
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


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, required=True, help="responses to simulate, each in a room of its own")
    parser.add_argument("--mics", type=int, required=True, help="microphones of the array")
    parser.add_argument("--out", type=Path, required=True, help="folder of the RIR bank")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default 1)")
    parser.add_argument("--recipe", default="default", help="recipe whose simulation section gives the ranges")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("overrides", nargs="*", metavar="simulation.key=value", help="e.g. simulation.t60_s=[0.5,0.85]")


def _simulate(args: argparse.Namespace) -> None:
    from farfeel.files import require_folder_place
    from farfeel.recipe import load_recipe
    from farfeel.rooms.simulate import simulate

    _require_at_least(1, count=args.count, mics=args.mics, workers=args.workers)
    _require_at_least(0, seed=args.seed)
    out = require_folder_place(args.out)
    ranges = load_recipe(args.recipe, args.overrides).simulation
    with progress("simulating rooms", "responses") as advance:
        bank = simulate(args.count, args.mics, ranges, args.seed, out, workers=args.workers, on_progress=advance)
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

    _require_at_least(8000, sample_rate=args.sample_rate)
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


# --- train ---------------------------------------------------------------------------------------------------------


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    from farfeel.recipe import recipe_names

    parser.add_argument("--recipe", default="default", help=f"one of {', '.join(recipe_names())}, or a YAML file")
    _corpus_arguments(parser)
    parser.add_argument("--rirs", type=Path, help="RIR bank to train in; without it, training is on dry speech")
    parser.add_argument("--epochs", type=int, help="same as train.epochs=N")
    parser.add_argument("--batch-size", type=int, help="same as train.batch_size=N")
    parser.add_argument("--split", help="same as data.split=NAME: paper, folds-6:1 …")
    parser.add_argument(
        "--init", type=Path, help="start from these weights: a checkpoint, or a reference's .ckpt or .pth"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--track", action="append", default=[], choices=["wandb", "mlflow"], help="log there too")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="any knob; farfeel recipe lists them")
    parser.epilog = (
        "writes: recipe.yaml, metrics.csv, TensorBoard events, top/, best/ (the result), last.ckpt (to resume)\n"
        "example: farfeel train --recipe tiny --corpus synthetic --root demo/corpus --rirs demo/rooms train.epochs=5"
    )


def _train(args: argparse.Namespace) -> None:
    from farfeel.recipe import load_recipe
    from farfeel.workflow import run_training

    overrides = list(args.overrides)
    overrides += [f"train.epochs={args.epochs}"] if args.epochs is not None else []
    overrides += [f"train.batch_size={args.batch_size}"] if args.batch_size is not None else []
    overrides += [f'data.split="{args.split}"'] if args.split else []
    recipe = load_recipe(args.recipe, overrides)
    out = args.out or Path("runs") / recipe.name
    _require_run_folder(out, args.resume)
    (train, val), absent = _clips(args, recipe, "train", "val")
    note(f"{len(train)} training clips, {len(val)} validation clips, split {recipe.data.split}{absent}")
    banks = _open_banks([args.rirs], recipe.audio.sample_rate, recipe.microphones.count) if args.rirs else []
    best = run_training(recipe, train, val, banks[0] if banks else None, out, args.resume, args.init, args.track)
    print(best)


def _require_run_folder(out: Path, resume: bool) -> None:
    """A new or empty folder, or one of a run: a fresh start removes top/ and best/, which must not be the user's."""
    from farfeel.files import require_folder_place, require_only

    require_folder_place(out / "best")
    if (out / "last.ckpt").exists():
        if not resume:
            raise FarfeelError(f"{out} holds a run already; go on with --resume, choose another --out, or delete it")
        return
    require_only(out, ("recipe.yaml", "metrics.csv", "events.out.*", "top", "best", ".*.partial", ".*.old"), "a run")
    require_only(out / "top", ("epoch_*", ".*.partial", ".*.old"), "a run")
    require_only(out / "best", ("model.safetensors", "recipe.yaml", "card.md"), "a run")


# --- evaluate, compare, report -------------------------------------------------------------------------------------


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="checkpoint folder; several are an ensemble (mean of their probabilities)",
    )
    _corpus_arguments(parser)
    parser.add_argument(
        "--rirs",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="RIR banks to test in; without, dry speech (a room called clean)",
    )
    parser.add_argument(
        "--mics",
        type=_mic_list,
        help="microphones of the responses to use, from 0: 0,1,2 (default: all that the checkpoint takes)",
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=["test", "val", "train", "all"],
        help="speakers that the checkpoint's recipe puts there (default test)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for predictions, metrics and report")
    _device_argument(parser)


def _evaluate(args: argparse.Namespace) -> None:
    from farfeel.evaluate.report import require_report_folder
    from farfeel.files import require_folder_place
    from farfeel.infer import Recognizer
    from farfeel.show import systems_table
    from farfeel.workflow import run_evaluation

    require_report_folder(require_folder_place(args.out))
    recognizer = Recognizer.load(args.checkpoint, _device(args.device))
    recipe = recognizer.models[0].recipe
    (clips,), absent = _clips(args, recipe, args.split)
    speakers = sorted({clip.speaker for clip in clips})
    note(f"{len(clips)} clips of {len(speakers)} speakers ({', '.join(speakers)}), split {recipe.data.split}{absent}")
    banks = _open_banks(args.rirs, recipe.audio.sample_rate, 1 + max(args.mics or [0]))
    if not banks and args.mics not in (None, [0]):
        raise FarfeelError(f"dry speech has 1 channel, --mics asks for {max(args.mics)}; name RIR banks with --rirs")
    heard = "the RIR bank" if banks else "dry speech"
    mics = args.mics or recognizer.default_mics(min((bank.mics for bank in banks), default=1), heard)
    found = run_evaluation(
        recognizer,
        clips,
        banks,
        args.out,
        mics,
        {
            "command": "farfeel " + " ".join(sys.argv[1:]),
            "checkpoints": ", ".join(map(str, args.checkpoint)),
            "corpus": args.corpus,
            "split": f"{recipe.data.split}, {args.split} part",
            "rooms": ", ".join(map(str, args.rirs)) or "none: dry speech",
        },
    )
    print(systems_table({recipe.name: found}))
    note(f"report: {args.out / 'report.html'}")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="an evaluation's folder or predictions.parquet")
    parser.add_argument("b", type=Path, help="another, of the same clips in the same rooms")
    parser.add_argument("--metric", default="accuracy", help="accuracy, uar or macro_f1 (default accuracy)")
    parser.add_argument("--intersection", action="store_true", help="compare on the rows that both have")
    parser.add_argument("--format", choices=["table", "json"], default="table")


def _compare(args: argparse.Namespace) -> None:
    import json

    from farfeel.evaluate.compare import compare
    from farfeel.evaluate.table import read_predictions

    comparison = compare(
        read_predictions(args.a), read_predictions(args.b), metric=args.metric, intersection=args.intersection
    )
    print(json.dumps(comparison.as_dict(), indent=2) if args.format == "json" else comparison.as_text())


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "evaluations",
        nargs="+",
        metavar="[NAME=]DIR[,DIR…]",
        help="one system each; several folders with commas are folds of a cross-validation, joined",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--title", default="Systems side by side")


def _report(args: argparse.Namespace) -> None:
    from farfeel.evaluate.report import require_report_folder, write_side_by_side
    from farfeel.evaluate.table import concatenate, read_predictions
    from farfeel.files import require_folder_place
    from farfeel.show import systems_table

    require_report_folder(require_folder_place(args.out))
    systems = {}
    for evaluation in args.evaluations:
        name, _, folders = evaluation.rpartition("=")
        name = name or Path(folders).name
        if name in systems:
            raise FarfeelError(f"two systems are called {name}; name them: A={folders} B=…")
        tables = [read_predictions(Path(folder)) for folder in folders.split(",")]
        systems[name] = concatenate(tables) if len(tables) > 1 else tables[0]
    details = {"command": "farfeel " + " ".join(sys.argv[1:])}
    print(systems_table(write_side_by_side(systems, args.out, args.title, details)))
    note(f"report: {args.out / 'report.html'}")


# --- predict -------------------------------------------------------------------------------------------------------


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE|FOLDER", help="audio files of any channel count")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs=1,
        action="extend",
        required=True,
        help="checkpoint folder, e.g. runs/default/best; repeat it for an ensemble",
    )
    parser.add_argument("--mics", type=_mic_list, help="channels to use, from 0: 0,1,2 (default: all)")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32", help="of the network (default 32)")
    parser.add_argument("--format", choices=["table", "json", "csv"], default="table")
    parser.add_argument("--out", type=Path, help="write there instead of standard output")
    _device_argument(parser)


def _predict(args: argparse.Namespace) -> int:
    from farfeel.files import replacing_file, require_file_place
    from farfeel.infer import Recognizer
    from farfeel.media.audio import AUDIO_SUFFIXES
    from farfeel.show import render
    from farfeel.types import Prediction

    if args.out and args.out.suffix.lower() in AUDIO_SUFFIXES:
        raise FarfeelError(f"--out {args.out} is an audio file, expected a place for a table; name another")
    if args.out:
        require_file_place(args.out)
    files = _audio_files(args.files)
    recognizer = Recognizer.load(args.checkpoint, _device(args.device), args.precision)
    predictions: list[tuple[Path, Prediction]] = []
    failures = []
    for path in files:
        try:
            predictions.append((path, recognizer.predict(path, args.mics)))
        except FarfeelError as error:  # the other files are still worth recognising
            failures.append(str(error))
    text = render(predictions, ", ".join(map(str, args.checkpoint)), args.format)
    if args.out and predictions:
        with replacing_file(args.out) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        note(f"written: {args.out}")
    elif predictions or (args.format == "json" and not args.out):
        print(text)
    for failure in failures:
        _fail(failure)
    return 1 if failures else 0


def _audio_files(paths: Sequence[Path]) -> list[Path]:
    from farfeel.media.audio import AUDIO_SUFFIXES

    files = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
            if not inside:
                raise FarfeelError(f"{path} has no audio file ({', '.join(AUDIO_SUFFIXES)}); name another folder")
            files += inside
        else:
            files.append(path)
    return files


# --- checkpoints and recipes ---------------------------------------------------------------------------------------


def _average_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CKPT", help="checkpoints of one recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")


def _average(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import average_states, load_checkpoint, save_checkpoint

    _require_checkpoint_place(args.out)
    models = [load_checkpoint(path) for path in args.checkpoints]
    first = models[0].recipe
    for path, model in zip(args.checkpoints, models, strict=True):
        for what in ("model", "audio", "microphones.strategy", "data.emotions"):
            if attrgetter(what)(model.recipe) != attrgetter(what)(first):
                raise FarfeelError(f"{path} has another {what} than {args.checkpoints[0]}; average like with like")
    names = ", ".join(map(str, args.checkpoints))
    save_checkpoint(args.out, average_states([m.state_dict() for m in models]), first, f"# Mean of {names}\n")
    print(args.out)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a reference's .ckpt, .pth or .pt of tensors")
    parser.add_argument("--recipe", default="paper-sum-pe", help="recipe whose model the weights are for")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")


def _convert(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import save_checkpoint
    from farfeel.models.emotion import EmotionModel
    from farfeel.models.reference import load_reference
    from farfeel.recipe import load_recipe

    _require_checkpoint_place(args.out)
    recipe = load_recipe(args.recipe, args.overrides)
    model = EmotionModel(recipe)
    note("\n".join(load_reference(model, args.file).lines()))
    save_checkpoint(args.out, model.state_dict(), recipe, f"# Converted from {args.file.name}\n")
    print(args.out)


def _require_checkpoint_place(out: Path) -> None:
    from farfeel.files import require_folder_place, require_only
    from farfeel.models.checkpoint import CARD, RECIPE, WEIGHTS

    require_only(require_folder_place(out), (WEIGHTS, RECIPE, CARD), "a checkpoint")


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this recipe whole, as YAML; without it, list every knob")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")


def _recipe(args: argparse.Namespace) -> None:
    import yaml

    from farfeel.recipe import describe, load_recipe, recipe_names

    if args.name:
        tree = load_recipe(args.name, args.overrides).model_dump(mode="json")
        print(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100), end="")
        return
    print(f"recipes: {', '.join(recipe_names())}\n\nknobs, with their defaults:")
    for key, default, meaning in describe():
        print(f"  {key} = {default}" + (f"\n      {meaning}" if meaning else ""))


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything it makes (default demo)")
    parser.add_argument("--seed", type=int, default=1)


def _demo(args: argparse.Namespace) -> None:
    from farfeel.demo import demo
    from farfeel.files import require_folder

    _require_at_least(0, seed=args.seed)
    if args.out.exists():
        require_folder(args.out, "a place for the demo's folder", "choose another --out")
    demo(args.out, args.seed)


COMMANDS = (
    Command("demo", "Everything once, on the embedded corpus: rooms, training, table, report.", _demo_arguments, _demo),
    Command("scan", "What a folder holds of a corpus; writes its manifest.", _scan_arguments, _scan),
    Command("rooms simulate", "Simulate room impulse responses into a bank.", _simulate_arguments, _simulate),
    Command("rooms import", "Read measured room impulse responses into a bank.", _import_arguments, _import),
    Command("train", "Train a model, in rooms that are drawn anew each epoch.", _train_arguments, _train),
    Command("evaluate", "Test a checkpoint, per room, with intervals over speakers.", _evaluate_arguments, _evaluate),
    Command("compare", "Paired test of two evaluations.", _compare_arguments, _compare),
    Command("report", "Several evaluations side by side.", _report_arguments, _report),
    Command("predict", "Recognise the emotion in audio files.", _predict_arguments, _predict),
    Command("recipe", "Print a recipe, or list every knob.", _recipe_arguments, _recipe),
    Command("average", "Average the weights of checkpoints.", _average_arguments, _average),
    Command("convert", "Turn a reference's weights into a checkpoint.", _convert_arguments, _convert),
)


def run() -> None:
    """Entry point of the `farfeel` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without bars and accents still shows the numbers
    sys.exit(main())


if __name__ == "__main__":
    run()
