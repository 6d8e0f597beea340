"""The command that takes a checkpoint elsewhere: export."""

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
    parser.add_argument(
        "--quantise", action="store_true", help="linear layers in 8 bits; compare on recordings what that costs"
    )


def _export(args: argparse.Namespace) -> None:
    from farfeel.files import require_file_place

    if args.out.suffix.lower() != ".onnx":
        raise FarfeelError(f"--out {args.out} has no suffix .onnx, expected a name like model.onnx; add it")
    require_file_place(args.out)
    from farfeel.export import export
    from farfeel.infer import DEFAULT

    report = export(args.checkpoint or DEFAULT, args.out, args.quantise, args.recordings)
    places = "noise" + (f" and {len(args.recordings)} recordings" if args.recordings else "")
    print(f"{args.out}: {report.bytes / 1e6:.1f} MB, from {', '.join(report.inputs)} to probabilities")
    print(f"largest difference to PyTorch: {report.difference:.1e} (of a probability, in {places})")
    if report.agreement is not None:
        print(f"same emotion: {report.agreement:.1%} of {len(args.recordings)} recordings")


COMMANDS = (
    Command("export", "Write a checkpoint as one ONNX file, compared with PyTorch.", _export_arguments, _export),
)
