"""Commands that convert checkpoints: export to ONNX, and merge several into one."""

from __future__ import annotations

import argparse
from pathlib import Path

from farfeel.cli.common import Command
from farfeel.types import FarfeelError


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="recordings to compare ONNX and PyTorch on (default: only noise)",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="checkpoint to export (default: the one in the package)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write; example: model.onnx")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--half", action="store_true", help="store weights in 16 bits: half the size, the same speed")
    size.add_argument(
        "--quantise",
        action="store_true",
        help="store linear layers in 8 bits; this changes results, so name recordings to compare on",
    )


def _export(args: argparse.Namespace) -> None:
    from farfeel.support.files import require_writable_file

    if args.out.suffix.lower() != ".onnx":
        raise FarfeelError(f"--out {args.out} does not end in .onnx, expected a name like model.onnx; add the suffix")
    require_writable_file(args.out)
    from farfeel.recognise.export import export
    from farfeel.recognise.recognizer import DEFAULT

    weights = "float16" if args.half else "int8" if args.quantise else "float32"
    report = export(args.checkpoint or DEFAULT, args.out, weights, args.recordings)
    compared_on = "noise" + (f" and {len(args.recordings)} recordings" if args.recordings else "")
    print(f"{args.out}: {report.bytes / 1e6:.1f} MB; inputs {', '.join(report.inputs)}; output probabilities")
    print(f"largest difference of a probability to PyTorch: {report.difference:.1e}, on {compared_on}")
    if report.agreement is not None:
        print(f"same emotion as PyTorch: {report.agreement:.1%} of {len(args.recordings)} recordings")


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="audio models of one recipe (from different folds or seeds), and at most one video model",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the new checkpoint")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        help="change a setting of the merged recipe; example: data.split=paper, the split that evaluate then uses",
    )
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits: half the size")


def _merge(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import (
        in_half_precision,
        merge_checkpoints,
        require_writable_checkpoint,
        save_checkpoint,
    )

    require_writable_checkpoint(args.out)
    model, card = merge_checkpoints(args.checkpoints, args.set)
    state = in_half_precision(model.state_dict()) if args.half else model.state_dict()
    save_checkpoint(args.out, state, model.recipe, card)
    print(f"{args.out}: {model.recipe.model.members} audio networks, modalities {model.recipe.modalities}")


COMMANDS = (
    Command("export", "Write a checkpoint as an ONNX file and compare it with PyTorch.", _export_arguments, _export),
    Command(
        "merge", "Merge checkpoints into one: an ensemble, or an audio and a video model.", _merge_arguments, _merge
    ),
)
