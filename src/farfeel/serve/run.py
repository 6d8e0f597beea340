"""From `farfeel serve` to a listening server, and to its end."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from farfeel.recognise.recognizer import DEFAULT, Recognizer
from farfeel.serve.app import create_app
from farfeel.serve.limits import Limits
from farfeel.serve.schema import CheckpointInfo
from farfeel.serve.stream import MESSAGE_BYTES
from farfeel.support.console import note
from farfeel.types import FarfeelError

LAST_WORDS_S = 5  # for answers under way when the server is told to stop


def run(
    recognizer: Recognizer, checkpoint: Path | None, limits: Limits, host: str, port: int, key: str | None, page: bool
) -> int:
    """Serve until SIGINT or SIGTERM; the exit code."""
    if not sys.platform.startswith("linux"):
        raise FarfeelError(f"this is {sys.platform}, the server's workers need Linux; run it there or in a container")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)  # uvicorn has its own meanwhile, and raises the signal again when it is done
    app = create_app(recognizer, about(checkpoint), limits, key, page)
    listener = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    if key is None and not _is_loopback(host):
        note(f"warning: {host} can be reached by others, and no key is asked for; choose one with --api-key")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("farfeel.serve").setLevel(logging.INFO)
    note(f"farfeel serves {address}{'' if page else '/v1'}; stop it with Ctrl-C")
    try:
        uvicorn.Server(config(app)).run(sockets=[listener])
    finally:
        _end_helpers()
    return 0


def _end_helpers() -> None:
    """Wait for the processes that multiprocessing keeps beside us: they would end by themselves, but after us. It has
    no public way to do so."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn runs it: our own log, bounded WebSocket messages."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=MESSAGE_BYTES + 1024,
        ws_max_queue=4,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )


def about(checkpoint: Path | None) -> CheckpointInfo:
    """The checkpoint's name, and its card where it has one."""
    folder = (checkpoint or DEFAULT).resolve()
    card = (folder if folder.is_dir() else folder.parent) / "card.md"
    name = folder.parent.name if folder.name == "best" else folder.stem
    return CheckpointInfo(name, card.read_text(encoding="utf-8") if card.is_file() else "")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FarfeelError(f"{host}:{port} cannot be listened on ({reason}); choose another --host or --port") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _leave(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)
