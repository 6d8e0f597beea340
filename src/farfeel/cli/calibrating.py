"""The command that makes a checkpoint's probabilities mean what they say: calibrate."""

from __future__ import annotations

import argparse
from pathlib import Path

from farfeel.cli.common import (
    Command,
    chosen_clips,
    corpus_arguments,
    device,
    device_argument,
    room_arguments,
    rooms_and_mics,
)
from farfeel.console import note, progress


def _calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint folder")
    corpus_arguments(parser)
    room_arguments(
        parser, "RIR banks, best of rooms it was not trained in; each clip is heard in one room; without, dry speech"
    )
    parser.add_argument(
        "--split",
        default="val",
        choices=["val", "all"],
        help="speakers that the checkpoint's recipe puts there, or all of a corpus it was not trained on (default val)",
    )
    parser.add_argument("--out", type=Path, help="folder of the new checkpoint (default: replaces --checkpoint)")
    device_argument(parser)


def _calibrate(args: argparse.Namespace) -> None:
    from farfeel.calibrate import calibrate, card_with
    from farfeel.corpora.corpus import few
    from farfeel.models.checkpoint import WEIGHTS, load_checkpoint, read_card, require_checkpoint_place, save_checkpoint
    from farfeel.takes import Recordings

    source = args.checkpoint.parent if args.checkpoint.name == WEIGHTS else args.checkpoint
    out = args.out or source
    model = load_checkpoint(source)
    require_checkpoint_place(out)
    recipe, where = model.recipe, device(args.device)
    (clips,), absent = chosen_clips(args, recipe, args.split, to_train=False)
    speakers = sorted({clip.speaker for clip in clips})
    note(f"{len(clips)} clips of {len(speakers)} speakers ({', '.join(speakers)}), split {recipe.data.split}{absent}")
    banks, mics = rooms_and_mics(args, [recipe])
    recordings = Recordings(clips, recipe, banks, mics, one_room_each=True)
    with progress("calibrating", "recordings") as advance:
        fitted = calibrate(model, recordings, where, advance)
    for each in fitted:
        print(each.line())
    rooms = f"rooms of {', '.join(map(str, args.rirs))}" if banks else "dry speech"
    corpora = ", ".join(sorted({clip.corpus for clip in clips}))
    about = f"{len(clips)} clips of {corpora} ({args.split}), speakers {few(speakers, 40)}, {rooms}"
    save_checkpoint(out, model.state_dict(), recipe, card_with(read_card(source), fitted, about))
    note(f"checkpoint: {out}")


COMMANDS = (
    Command("calibrate", "Make a checkpoint's probabilities mean what they say.", _calibrate_arguments, _calibrate),
)
