"""Start and stop the server of `farfeel serve`."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from farfeel.recognise.recognizer import DEFAULT, Recognizer
from farfeel.serve.app import create_app
from farfeel.serve.guard import guarded_protocol
from farfeel.serve.hosts import Hosts, is_loopback, split_netloc
from farfeel.serve.limits import Limits
from farfeel.serve.schema import CheckpointInfo
from farfeel.serve.stream import MESSAGE_BYTES
from farfeel.support.console import note
from farfeel.types import FarfeelError

SHUTDOWN_S = 5  # time for responses in progress when the server is stopped
CONNECTIONS = 1000  # Further ones are refused with 503.
NOISE = ("Invalid HTTP request received.", "ASGI callable returned without completing handshake.")  # from any client
OPEN_FILES = 8192  # enough for all connections, uploads and pipes


def require_access(host: str, key: str | None, is_open: bool) -> None:
    """Raise FarfeelError if other machines could use the server, without a key and without the operator's word."""
    if key is None and not is_open and not is_loopback(host):
        raise FarfeelError(
            f"with --host {host} other machines can use this server, but there is no key; set FARFEEL_API_KEY, or add "
            "--open to serve everybody, or choose another --host"
        )


def run(
    recognizer: Recognizer,
    checkpoint: Path | None,
    limits: Limits,
    host: str,
    port: int,
    key: str | None,
    page: bool,
    names: Sequence[str] = (),
    is_open: bool = False,
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
        names: Further names that clients use for this server.
        is_open: Whether other machines may use the server without a key.

    Returns:
        The exit code.

    Raises:
        FarfeelError: The system is not Linux, the address cannot be used, or other machines could use the server
            without a key.
    """
    if not sys.platform.startswith("linux"):
        raise FarfeelError(
            f"the system is {sys.platform}, but the server needs Linux; run it on Linux or in a container"
        )
    require_access(host, key, is_open)
    hosts = _hosts(host, names)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, _exit
        )  # While uvicorn runs it has its own handlers. It raises the signal again at its end.
    app = create_app(recognizer, checkpoint_info(checkpoint), limits, key, page, hosts)
    listener = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    if key is None and not is_loopback(host):
        note(
            f"warning: everybody who can reach {host} can send recordings to this server and see its page, because of "
            "--open. No key is required, and traffic is not encrypted."
        )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("farfeel.serve").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg not in NOISE)
    _allow_open_files()
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
    """Settings of uvicorn: no logs of its own, limited headers, and a limited size of WebSocket messages."""
    limits: Limits = app.state.pool.limits
    return uvicorn.Config(
        app,
        http=guarded_protocol(limits.header_s),
        limit_concurrency=CONNECTIONS,
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


def _hosts(host: str, names: Sequence[str]) -> Hosts:
    """The names that the server answers to: those of this machine, the address it listens on, and further names."""
    for name in names:
        if (split := split_netloc(f"[{name}]" if ":" in name else name)) is None or split[1]:
            raise FarfeelError(
                f"--allow-host is {name!r}, expected a name or an address without http:// and without a port, "
                "for example emotions.example.org; correct it"
            )
    return Hosts((host, *names), any_address=not is_loopback(host))


def _allow_open_files() -> None:
    """Raise the soft limit of open files, which is often 1024. Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _exit(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)
