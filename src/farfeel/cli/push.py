"""The command push: publish a checkpoint on the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from farfeel.cli.common import Command
from farfeel.support.console import note
from farfeel.types import FarfeelError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint to publish: a folder, or hf://owner/name")
    parser.add_argument(
        "target",
        metavar="hf://owner/name|DIR",
        help="repository on the Hugging Face hub, or a folder to check the files first",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make a new repository private: only you and your organisation can read it",
    )
    parser.add_argument(
        "--revision", metavar="BRANCH", help="branch to push to; it is created if needed (default main)"
    )
    parser.add_argument(
        "--message", metavar="TEXT", help="commit message (default: the name of the recipe and the version of farfeel)"
    )
    parser.epilog = (
        "files uploaded in one commit:\n"
        "  model.safetensors, recipe.yaml, card.md, and model.onnx if the folder has it\n"
        "  README.md: the card, with the metadata for the hub\n"
        "Log in first with `hf auth login`, or set HF_TOKEN."
    )


def _push(args: argparse.Namespace) -> None:
    from farfeel import __version__
    from farfeel.models.checkpoint import WEIGHTS, load_checkpoint
    from farfeel.recognise import hub

    if not hub.is_address(args.target) and (args.private or args.revision or args.message):
        raise FarfeelError(
            f"{args.target} is a folder, but --private, --revision and --message are for the hub; remove them"
        )
    folder = hub.local(args.checkpoint)
    folder = folder.parent if folder.name == WEIGHTS else folder
    recipe = load_checkpoint(folder).recipe  # a checkpoint that cannot be loaded is not published
    if (folder / hub.ONNX).is_file():
        from farfeel.recognise.engines.onnx import OnnxEngine

        if OnnxEngine(folder / hub.ONNX).recipe != recipe:
            raise FarfeelError(
                f"{folder / hub.ONNX} is of another model than {WEIGHTS}, expected the same; export it again or "
                "delete it"
            )
    if not hub.is_address(args.target):
        hub.write(folder, Path(args.target), recipe.modalities)
        print(args.target)
        return
    address = f"{args.target}@{args.revision}" if args.revision else args.target
    message = args.message or f"{recipe.name}, farfeel {__version__}"
    print(hub.push(folder, address, recipe.modalities, message, args.private))
    note(f"use it with: farfeel predict CLIP --checkpoint {args.target}")


COMMANDS = (Command("push", "Upload a checkpoint to the Hugging Face hub.", _arguments, _push),)
