"""The command calibrate: fit a checkpoint's probabilities to how often it is right."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import (
    Command,
    chosen_clips,
    corpus_arguments,
    device,
    device_argument,
    joined_predictions,
    room_arguments,
    rooms_and_mics,
)
from farfeel.support.console import note, progress
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from farfeel.evaluate.calibrate import Fitted
    from farfeel.models.emotion import EmotionModel


def _calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER", help="checkpoint to calibrate")
    corpus_arguments(parser, required=False)
    room_arguments(
        parser,
        "RIR banks, if possible with rooms that the model was not trained in; each clip is used in one room (default: "
        "none, dry speech)",
    )
    parser.add_argument(
        "--split",
        default="val",
        choices=["val", "all"],
        help="clips to use; val: those of the validation speakers in the checkpoint's recipe; all: the whole corpus, "
        "if the model was not trained on it (default val)",
    )
    parser.add_argument(
        "--evaluations",
        metavar="DIR[,DIR…]",
        help="instead of --corpus, for a checkpoint trained on all speakers: the evaluations of the folds of a "
        "cross-validation with the same recipe, each tested on speakers that its model was not trained on; audio only",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the new checkpoint (default: replace --checkpoint)"
    )
    device_argument(parser)


def _calibrate(args: argparse.Namespace) -> None:
    from farfeel.evaluate.calibrate import calibrate_by, card_with
    from farfeel.models.checkpoint import (
        TEMPERATURE,
        WEIGHTS,
        load_checkpoint,
        read_card,
        read_weights,
        require_writable_checkpoint,
        save_checkpoint,
    )

    if bool(args.evaluations) == bool(args.corpus):
        number = "both" if args.corpus else "neither"
        raise FarfeelError(f"found {number} of --corpus and --evaluations, expected exactly one; choose one of them")
    source = args.checkpoint.parent if args.checkpoint.name == WEIGHTS else args.checkpoint
    out = args.out or source
    model = load_checkpoint(source)
    require_writable_checkpoint(out)
    if args.evaluations:
        table = joined_predictions(args.evaluations)
        fitted = [calibrate_by(model, table)]
        speakers = table["speaker"].nunique()
        fitted_on = f"{len(table)} recordings of {speakers} speakers, by cross-validation models not trained on them"
    else:
        fitted, fitted_on = _calibrate_on_corpus(args, model)
    for result in fitted:
        print(result.line())
    state = read_weights(source) | {TEMPERATURE: model.temperature}  # all other weights stay as they are stored
    save_checkpoint(out, state, model.recipe, card_with(read_card(source), fitted, fitted_on))
    note(f"checkpoint: {out}")


def _calibrate_on_corpus(args: argparse.Namespace, model: EmotionModel) -> tuple[list[Fitted], str]:
    """Calibrate on the clips of --corpus. Returns the results, and a description of the clips for the card."""
    from farfeel.evaluate.calibrate import calibrate
    from farfeel.evaluate.test_set import EvaluationSet
    from farfeel.support.text import few

    recipe, device_name = model.recipe, device(args.device)
    (clips,), absent = chosen_clips(args, recipe, args.split, to_train=False)
    speakers = sorted({clip.speaker for clip in clips})
    note(f"{len(clips)} clips of {len(speakers)} speakers ({', '.join(speakers)}), split {recipe.data.split}{absent}")
    banks, mics = rooms_and_mics(args, [recipe])
    recordings = EvaluationSet(clips, recipe, banks, mics, one_room_each=True)
    with progress("calibrating", "recordings") as advance:
        fitted = calibrate(model, recordings, device_name, advance)
    rooms = f"rooms of {', '.join(map(str, args.rirs))}" if banks else "dry speech"
    corpora = ", ".join(sorted({clip.corpus for clip in clips}))
    return fitted, f"{len(clips)} clips of {corpora} ({args.split}), speakers {few(speakers, 40)}, {rooms}"


COMMANDS = (
    Command(
        "calibrate", "Fit a checkpoint's probabilities to how often it is right.", _calibrate_arguments, _calibrate
    ),
)
