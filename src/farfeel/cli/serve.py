"""The command serve: a REST interface and a web page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from farfeel.cli.common import Command, device, device_argument, require_at_least
from farfeel.types import FarfeelError


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="checkpoint folder; with --engine onnx a file of farfeel export (default: the one in the package)",
    )
    parser.add_argument(
        "--engine", choices=["torch", "onnx"], default="torch", help="library that runs the model (default torch)"
    )
    device_argument(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="network address to listen on (default 127.0.0.1: only this machine)"
    )
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="network port; 0 chooses a free one (default 7860)"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="key that every request must send (default: FARFEEL_API_KEY, else no key is needed)",
    )
    parser.add_argument(
        "--open",
        action="store_true",
        help="allow --host with an address that other machines can reach, without a key: everybody there can use the "
        "server",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further name under which clients reach this server, for example behind a proxy; may be given several "
        "times. Requests for other names are refused, because a foreign web page could have sent them (default: "
        "127.0.0.1, localhost and [::1]; with another --host that address, and all IP addresses)",
    )
    parser.add_argument("--max-mb", type=float, default=100, metavar="MB", help="largest upload in MB (default 100)")
    parser.add_argument(
        "--max-seconds", type=float, default=600, metavar="S", help="longest recording in seconds (default 600)"
    )
    parser.add_argument(
        "--max-channels", type=int, default=16, metavar="N", help="most channels of a recording (default 16)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="recordings processed at the same time (default 2)"
    )
    parser.add_argument(
        "--queue", type=int, default=8, metavar="N", help="recordings that may wait; more are refused (default 8)"
    )
    parser.add_argument("--no-page", action="store_true", help="serve only the REST interface, not the web page")


def _serve(args: argparse.Namespace) -> int:
    require_at_least(0, port=args.port, queue=args.queue)
    require_at_least(1, workers=args.workers, max_channels=args.max_channels)
    for name in ("max_mb", "max_seconds"):
        if not 0 < getattr(args, name) < 1e6:
            option = f"--{name.replace('_', '-')}"
            raise FarfeelError(f"{option} is {getattr(args, name):g}, expected more than 0 and below 1e6; correct it")
    try:
        from farfeel.serve.run import require_access, run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "farfeel":
            raise
        raise FarfeelError(f"serve needs {error.name}, which is not installed; pip install 'farfeel[serve]'") from None
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.serve.limits import Limits

    key = args.api_key or os.environ.get("FARFEEL_API_KEY") or None
    require_access(args.host, key, args.open)  # before the model is loaded, because that takes seconds
    device_name = device(args.device) if args.engine == "torch" else "cpu"
    recognizer = Recognizer.load(args.checkpoint, device_name, engine=args.engine)
    limits = Limits(
        megabytes=args.max_mb,
        seconds=args.max_seconds,
        channels=args.max_channels,
        workers=args.workers,
        queue=args.queue,
    )
    return run(
        recognizer,
        args.checkpoint,
        limits,
        args.host,
        args.port,
        key,
        not args.no_page,
        args.allow_host,
        args.open,
    )


COMMANDS = (Command("serve", "Start a server with a REST interface and a web page.", _serve_arguments, _serve),)
