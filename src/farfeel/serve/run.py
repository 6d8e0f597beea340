"""Start and stop the server of `farfeel serve`."""

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

SHUTDOWN_S = 5  # time for responses in progress when the server is stopped


def run(
    recognizer: Recognizer, checkpoint: Path | None, limits: Limits, host: str, port: int, key: str | None, page: bool
) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        recognizer: Recognises the recordings.
        checkpoint: Its checkpoint. None: the checkpoint in the package.
        limits: The limits of the server.
        host: Address to listen on.
        port: Port to listen on. 0: any free port.
        key: The key that clients must send. None: no key is required.
        page: Whether to serve the web page.

    Returns:
        The exit code.

    Raises:
        FarfeelError: The system is not Linux, or the address cannot be used.
    """
    if not sys.platform.startswith("linux"):
        raise FarfeelError(
            f"the system is {sys.platform}, but the server needs Linux; run it on Linux or in a container"
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, _exit
        )  # While uvicorn runs it has its own handlers. It raises the signal again at its end.
    app = create_app(recognizer, checkpoint_info(checkpoint), limits, key, page)
    listener = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    if key is None and not _is_loopback(host):
        note(f"warning: other machines can reach {host}, and no key is required; set one with --api-key")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("farfeel.serve").setLevel(logging.INFO)
    note(f"farfeel serves {address}{'' if page else '/v1'}; stop it with Ctrl-C")
    try:
        uvicorn.Server(config(app)).run(sockets=[listener])
    finally:
        _stop_helper_processes()
    return 0


def _stop_helper_processes() -> None:
    """Stop the helper processes of multiprocessing and wait for them. Otherwise they would end after the server.

    multiprocessing has no public function for this.
    """
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def config(app: FastAPI) -> uvicorn.Config:
    """Settings of uvicorn: no logs of its own, and a limited size of WebSocket messages."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=MESSAGE_BYTES + 1024,
        ws_max_queue=4,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def checkpoint_info(checkpoint: Path | None) -> CheckpointInfo:
    """Name and model card of a checkpoint. None: the checkpoint in the package."""
    folder = (checkpoint or DEFAULT).resolve()
    card = (folder if folder.is_dir() else folder.parent) / "card.md"
    name = folder.parent.name if folder.name == "best" else folder.stem
    return CheckpointInfo(name, card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FarfeelError(
            f"{host}:{port} cannot be used as the address of the server ({reason}); choose another --host or --port"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _exit(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)
