"""The command that stays: serve."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from farfeel.cli.common import Command, device, device_argument, require_at_least
from farfeel.types import FarfeelError


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder, or ONNX file (default: the package's own)")
    parser.add_argument("--engine", choices=["torch", "onnx"], default="torch", help="what runs the network")
    device_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=7860, help="0: any free one (default 7860)")
    parser.add_argument("--api-key", help="ask everyone for this key (default: FARFEEL_API_KEY, else no key)")
    parser.add_argument("--max-mb", type=float, default=100, help="of an upload (default 100)")
    parser.add_argument("--max-seconds", type=float, default=600, help="of a recording (default 600)")
    parser.add_argument("--max-channels", type=int, default=16, help="of a recording (default 16)")
    parser.add_argument("--workers", type=int, default=2, help="recordings worked on at a time (default 2)")
    parser.add_argument("--queue", type=int, default=8, help="recordings that may wait meanwhile (default 8)")
    parser.add_argument("--no-page", action="store_true", help="only the REST interface, no web page")


def _serve(args: argparse.Namespace) -> int:
    require_at_least(0, port=args.port, queue=args.queue)
    require_at_least(1, workers=args.workers, max_channels=args.max_channels)
    for name in ("max_mb", "max_seconds"):
        if not 0 < getattr(args, name) < 1e6:
            option = f"--{name.replace('_', '-')}"
            raise FarfeelError(f"{option} is {getattr(args, name):g}, expected more than 0 and below 1e6; correct it")
    try:
        from farfeel.serve.run import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "farfeel":
            raise
        raise FarfeelError(f"the server needs {error.name}; pip install 'farfeel[serve]'") from None
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.serve.limits import Limits

    where = device(args.device) if args.engine == "torch" else "cpu"
    recognizer = Recognizer.load(args.checkpoint, where, engine=args.engine)
    limits = Limits(
        megabytes=args.max_mb,
        seconds=args.max_seconds,
        channels=args.max_channels,
        workers=args.workers,
        queue=args.queue,
    )
    key = args.api_key or os.environ.get("FARFEEL_API_KEY") or None
    return run(recognizer, args.checkpoint, limits, args.host, args.port, key, not args.no_page)


COMMANDS = (Command("serve", "REST interface and web page, for others to recognise with.", _serve_arguments, _serve),)
