"""Commands that test checkpoints and compare the results: evaluate, compare, report."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import (
    Command,
    chosen_clips,
    corpus_arguments,
    device,
    device_argument,
    front_end_argument,
    joined_predictions,
    label_arguments,
    label_settings,
    modalities_argument,
    require_at_least,
    room_arguments,
    rooms_and_mics,
    shards_of,
    share,
    sources_of,
)
from farfeel.support.console import note
from farfeel.types import FarfeelError
from farfeel.variants import NOISES

if TYPE_CHECKING:
    from farfeel.recipe import Recipe
    from farfeel.types import Clip


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        action="extend",
        metavar="CHECKPOINT",
        help="checkpoint folder; with several, their probabilities are averaged (default: the checkpoint in the "
        "package)",
    )
    corpus_arguments(parser)
    label_arguments(parser, "the checkpoint's")
    room_arguments(parser, "RIR banks with the test rooms (default: none, dry speech, shown as the room clean)")
    modalities_argument(parser)
    front_end_argument(parser)
    parser.add_argument(
        "--camera-off",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="remove the video of this share of the clips, from 0 to 1; example: 0.33 removes it from a third; the "
        "same clips in each run (default 0)",
    )
    parser.add_argument(
        "--snr", type=float, metavar="DB", help="add noise at this signal-to-noise ratio in dB (default: no noise)"
    )
    parser.add_argument(
        "--noise",
        choices=NOISES.names,
        help="kind of noise for --snr (default white). "
        + " ".join(f"{name}: {NOISES.summary(name)}" for name in NOISES).replace("%", "%%"),
    )
    parser.add_argument(
        "--dead-mics",
        type=int,
        default=0,
        metavar="N",
        help="replace the signal of N microphones of each recording by silence; the same ones in each run (default 0)",
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=["test", "val", "train", "all"],
        help="speakers to test on: a part of the split in the checkpoint's recipe, or all (default test)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder for predictions, metrics and report"
    )
    device_argument(parser)


def _evaluate(args: argparse.Namespace) -> None:
    from farfeel.corpora.labels import require_classes
    from farfeel.evaluate.report import require_report_folder
    from farfeel.evaluate.run import protocol, run_evaluation
    from farfeel.evaluate.test_set import Conditions
    from farfeel.evaluate.text import systems_table
    from farfeel.recipe import recipe_from_tree
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.support.files import require_writable_folder
    from farfeel.support.text import few

    require_report_folder(require_writable_folder(args.out))
    require_at_least(0, dead_mics=args.dead_mics)
    if args.snr is not None and not abs(args.snr) <= 200:
        raise FarfeelError(f"--snr is {args.snr}, expected decibels from -200 to 200; correct it")
    recognizer = Recognizer.load(args.checkpoint, device(args.device), front_end=args.front_end)
    tree = recognizer.recipe.model_dump(mode="json")
    tree["data"] |= label_settings(args)
    if tree["modalities"] == "both":  # a model of both can be tested without video
        tree["modalities"] = args.modalities
    recipe = recipe_from_tree(tree, source="the checkpoint's recipe")
    require_classes(recipe.data, recognizer.emotions)
    shards = shards_of(args)
    (clips,), absent = chosen_clips(args, recipe, args.split, shards=shards, to_train=False)
    if recipe.modalities == "both" and not any(clip.video for clip in clips):
        note("no clip has video: the test uses audio only")
    clips = without_modality(clips, recipe, args.modalities, args.camera_off)
    speakers = sorted({clip.speaker for clip in clips})
    note(f"{len(clips)} clips of {len(speakers)} speakers ({few(speakers, 40)}), split {recipe.data.split}{absent}")
    banks, mics = rooms_and_mics(args, recognizer.recipes, shards)
    if args.noise and args.snr is None:
        note(f"no {args.noise} noise is added: --noise needs a level; add --snr 10")
    conditions = Conditions(args.snr, args.noise or "white", args.dead_mics, args.camera_off)
    source = ", ".join(map(str, sources_of(args)))
    results = run_evaluation(
        recognizer,
        clips,
        banks,
        args.out,
        mics,
        {
            "command": shlex.join(["farfeel", *sys.argv[1:]]),
            "checkpoints": ", ".join(map(str, args.checkpoint or ["default"])),
            **protocol(recipe, clips, source, args.split, args.rirs, shards, conditions, args.modalities),
        },
        conditions,
        recipe.data,
        shards,
    )
    print(systems_table({recipe.name: results}))
    note(f"report: {args.out / 'report.html'}")


def without_modality(clips: list[Clip], recipe: Recipe, modalities: str, camera_off: float) -> list[Clip]:
    """The clips without the modality that --modalities excludes, and only those that still have audio or video.

    Raises FarfeelError if the checkpoint cannot use what is left, or if nothing is left.
    """
    if {recipe.modalities, modalities} == {"audio", "video"}:
        raise FarfeelError(
            f"the checkpoint uses only {recipe.modalities}, but --modalities is {modalities}; remove --modalities"
        )
    if camera_off and "video" in (recipe.modalities, modalities):
        raise FarfeelError(
            "--camera-off needs a test with audio and video, but this one uses only video; remove --camera-off or test "
            "a checkpoint of both"
        )
    if modalities == "audio":
        clips = [replace(clip, video=None) for clip in clips]
    elif modalities == "video":
        clips = [replace(clip, audio=None) for clip in clips]
    usable = [clip for clip in clips if clip.audio or clip.video]
    if len(usable) < len(clips):
        note(f"left out: {len(clips) - len(usable)} clips without {modalities}")
    if not usable:
        raise FarfeelError(f"no clip has {modalities}; choose other data or remove --modalities")
    return usable


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "a",
        help="first evaluation: its folder or its predictions.parquet; several, separated by commas, are joined as the "
        "folds of a cross-validation",
    )
    parser.add_argument("b", help="second evaluation, on the same clips and rooms")
    parser.add_argument(
        "--metric",
        default="accuracy",
        help="what to compare: accuracy, uar, macro_f1, ece, nll or brier (default accuracy)",
    )
    parser.add_argument(
        "--intersection",
        action="store_true",
        help="compare only the clips and rooms that both have (default: they must have the same ones)",
    )
    parser.add_argument("--format", choices=["table", "json"], default="table", help="output format (default table)")


def _compare(args: argparse.Namespace) -> None:
    import json

    from farfeel.evaluate.compare import compare

    comparison = compare(
        joined_predictions(args.a), joined_predictions(args.b), metric=args.metric, intersection=args.intersection
    )
    print(json.dumps(comparison.as_dict(), indent=2) if args.format == "json" else comparison.as_text())


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "evaluations",
        nargs="+",
        metavar="[NAME=]DIR[,DIR…]",
        help="evaluations to show side by side, each with its name in the report (default: the name of its folder); "
        "folders separated by commas are joined as the folds of a cross-validation",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the report")
    parser.add_argument(
        "--title", default="Systems side by side", help="title of the report (default: Systems side by side)"
    )


def _report(args: argparse.Namespace) -> None:
    from farfeel.evaluate.report import require_report_folder, write_side_by_side
    from farfeel.evaluate.text import systems_table
    from farfeel.support.files import require_writable_folder

    require_report_folder(require_writable_folder(args.out))
    systems = {}
    for evaluation in args.evaluations:
        name, _, folders = evaluation.rpartition("=")
        name = name or Path(folders).name
        if name in systems:
            raise FarfeelError(
                f"two systems have the name {name}, expected different names; name them: A={folders} B=…"
            )
        systems[name] = joined_predictions(folders)
    details = {"command": shlex.join(["farfeel", *sys.argv[1:]])}
    print(systems_table(write_side_by_side(systems, args.out, args.title, details)))
    note(f"report: {args.out / 'report.html'}")


COMMANDS = (
    Command("evaluate", "Test a checkpoint in each room, with confidence intervals.", _evaluate_arguments, _evaluate),
    Command("compare", "Test whether two evaluations differ by more than chance.", _compare_arguments, _compare),
    Command("report", "Write a report with several evaluations side by side.", _report_arguments, _report),
)
