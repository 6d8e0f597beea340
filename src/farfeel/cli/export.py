"""The commands that make something else of checkpoints: export and merge."""

from __future__ import annotations

import argparse
from pathlib import Path

from farfeel.cli.common import Command
from farfeel.types import FarfeelError


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", nargs="*", type=Path, metavar="FILE", help="recordings to compare with PyTorch on, beside noise"
    )
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder (default: the one in the package)")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, e.g. model.onnx")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--half", action="store_true", help="weights in 16 bits: half the size, as fast")
    size.add_argument(
        "--quantise", action="store_true", help="linear layers in 8 bits; compare on recordings what that costs"
    )


def _export(args: argparse.Namespace) -> None:
    from farfeel.support.files import require_file_place

    if args.out.suffix.lower() != ".onnx":
        raise FarfeelError(f"--out {args.out} has no suffix .onnx, expected a name like model.onnx; add it")
    require_file_place(args.out)
    from farfeel.recognise.export import export
    from farfeel.recognise.recognizer import DEFAULT

    weights = "float16" if args.half else "int8" if args.quantise else "float32"
    report = export(args.checkpoint or DEFAULT, args.out, weights, args.recordings)
    places = "noise" + (f" and {len(args.recordings)} recordings" if args.recordings else "")
    print(f"{args.out}: {report.bytes / 1e6:.1f} MB, from {', '.join(report.inputs)} to probabilities")
    print(f"largest difference to PyTorch: {report.difference:.1e} (of a probability, in {places})")
    if report.agreement is not None:
        print(f"same emotion: {report.agreement:.1%} of {len(args.recordings)} recordings")


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="models of sound that were trained alike (other folds, other seeds), and one of film if wanted",
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        help="change the merged recipe, e.g. data.split=paper: whom evaluate takes for the test",
    )
    parser.add_argument("--half", action="store_true", help="weights in 16 bits: half the size")


def _merge(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import (
        in_half_precision,
        merge_checkpoints,
        require_checkpoint_place,
        save_checkpoint,
    )

    require_checkpoint_place(args.out)
    model, card = merge_checkpoints(args.checkpoints, args.set)
    state = in_half_precision(model.state_dict()) if args.half else model.state_dict()
    save_checkpoint(args.out, state, model.recipe, card)
    print(f"{args.out}: {model.recipe.model.members} networks that hear, modalities {model.recipe.modalities}")


COMMANDS = (
    Command("export", "Write a checkpoint as one ONNX file, compared with PyTorch.", _export_arguments, _export),
    Command(
        "merge", "Make one checkpoint of several: an ensemble, or sound and film together.", _merge_arguments, _merge
    ),
)
