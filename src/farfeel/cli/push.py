"""The command that gives a checkpoint to others: push."""

from __future__ import annotations

import argparse
from pathlib import Path

from farfeel.cli.common import Command
from farfeel.support.console import note
from farfeel.types import FarfeelError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint folder, or hf://owner/name")
    parser.add_argument(
        "target", metavar="hf://owner/name|DIR", help="where on the Hugging Face hub; or a folder, to look at it first"
    )
    parser.add_argument("--private", action="store_true", help="for you and your organisation alone")
    parser.add_argument("--revision", help="branch to push to, made where there is none (default: main)")
    parser.add_argument("--message", help="of the commit (default: the name of the recipe, and farfeel's version)")
    parser.epilog = (
        "uploads, in one commit: model.safetensors, recipe.yaml, model.onnx where there is one, card.md, and the card\n"
        "as README.md with what the hub reads; log in before, with `hf auth login` or HF_TOKEN"
    )


def _push(args: argparse.Namespace) -> None:
    from farfeel import __version__
    from farfeel.models.checkpoint import WEIGHTS, load_checkpoint
    from farfeel.recognise import hub

    if not hub.is_address(args.target) and (args.private or args.revision or args.message):
        raise FarfeelError(
            f"{args.target} is a folder; --private, --revision and --message are for the hub; leave them out"
        )
    folder = hub.local(args.checkpoint)
    folder = folder.parent if folder.name == WEIGHTS else folder
    recipe = load_checkpoint(folder).recipe  # what would not load here is given to nobody
    if (folder / hub.ONNX).is_file():
        from farfeel.recognise.engines.onnx import OnnxEngine

        if OnnxEngine(folder / hub.ONNX).recipe != recipe:
            raise FarfeelError(f"{folder / hub.ONNX} is of another model than {WEIGHTS}; export it again, or remove it")
    if not hub.is_address(args.target):
        hub.write(folder, Path(args.target), recipe.modalities)
        print(args.target)
        return
    address = f"{args.target}@{args.revision}" if args.revision else args.target
    message = args.message or f"{recipe.name}, farfeel {__version__}"
    print(hub.push(folder, address, recipe.modalities, message, args.private))
    note(f"to use it: farfeel predict --checkpoint {args.target} CLIP")


COMMANDS = (Command("push", "Upload a checkpoint to the Hugging Face hub.", _arguments, _push),)
