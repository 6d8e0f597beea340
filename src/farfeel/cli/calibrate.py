"""The command that makes a checkpoint's probabilities mean what they say: calibrate."""

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
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder")
    corpus_arguments(parser, required=False)
    room_arguments(
        parser, "RIR banks, best of rooms it was not trained in; each clip is heard in one room; without, dry speech"
    )
    parser.add_argument(
        "--split",
        default="val",
        choices=["val", "all"],
        help="speakers that the checkpoint's recipe puts there, or all of a corpus it was not trained on (default val)",
    )
    parser.add_argument(
        "--evaluations",
        metavar="DIR[,DIR…]",
        help="instead of a corpus, for a checkpoint that learned every speaker: evaluations of models trained as it "
        "was, on speakers that they did not learn (the folds of a cross-validation, of sound alone)",
    )
    parser.add_argument("--out", type=Path, help="folder of the new checkpoint (default: replaces --checkpoint)")
    device_argument(parser)


def _calibrate(args: argparse.Namespace) -> None:
    from farfeel.evaluate.calibrate import calibrate_by, card_with
    from farfeel.models.checkpoint import (
        TEMPERATURE,
        WEIGHTS,
        load_checkpoint,
        read_card,
        read_weights,
        require_checkpoint_place,
        save_checkpoint,
    )

    if bool(args.evaluations) == bool(args.corpus):
        found = "both" if args.corpus else "neither"
        raise FarfeelError(f"found {found} of --corpus and --evaluations, expected one of them; choose")
    source = args.checkpoint.parent if args.checkpoint.name == WEIGHTS else args.checkpoint
    out = args.out or source
    model = load_checkpoint(source)
    require_checkpoint_place(out)
    if args.evaluations:
        table = joined_predictions(args.evaluations)
        fitted = [calibrate_by(model, table)]
        speakers = table["speaker"].nunique()
        about = f"{len(table)} recordings of {speakers} speakers, by models of a cross-validation that never met them"
    else:
        fitted, about = _on_recordings(args, model)
    for each in fitted:
        print(each.line())
    state = read_weights(source) | {TEMPERATURE: model.temperature}  # the rest stays as it is stored
    save_checkpoint(out, state, model.recipe, card_with(read_card(source), fitted, about))
    note(f"checkpoint: {out}")


def _on_recordings(args: argparse.Namespace, model: EmotionModel) -> tuple[list[Fitted], str]:
    """What was fitted on a corpus, and on what of it."""
    from farfeel.corpora.corpus import few
    from farfeel.evaluate.calibrate import calibrate
    from farfeel.evaluate.test_set import EvaluationSet

    recipe, where = model.recipe, device(args.device)
    (clips,), absent = chosen_clips(args, recipe, args.split, to_train=False)
    speakers = sorted({clip.speaker for clip in clips})
    note(f"{len(clips)} clips of {len(speakers)} speakers ({', '.join(speakers)}), split {recipe.data.split}{absent}")
    banks, mics = rooms_and_mics(args, [recipe])
    recordings = EvaluationSet(clips, recipe, banks, mics, one_room_each=True)
    with progress("calibrating", "recordings") as advance:
        fitted = calibrate(model, recordings, where, advance)
    rooms = f"rooms of {', '.join(map(str, args.rirs))}" if banks else "dry speech"
    corpora = ", ".join(sorted({clip.corpus for clip in clips}))
    return fitted, f"{len(clips)} clips of {corpora} ({args.split}), speakers {few(speakers, 40)}, {rooms}"


COMMANDS = (
    Command("calibrate", "Make a checkpoint's probabilities mean what they say.", _calibrate_arguments, _calibrate),
)
