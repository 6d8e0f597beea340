"""Decoding in a process of its own: a file that crashes the decoder costs one error, and not the program.

`isolated` and `isolated_blocks` mark functions that decode a file. They run as usual until `isolated_decoding` is
entered. Then they run in a child process, which is started when it is first needed. Many files do not need this: their
worker processes decode already. The child ends when this process ends.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from farfeel.types import FarfeelError

P = ParamSpec("P")
T = TypeVar("T")
ITEMS = 32  # of a generator in one message
PARENT_CHECK_S = 1.0
_START = (
    "import sys; sys.path[:] = sys.argv[2:]; from farfeel.media import isolation; isolation.serve(int(sys.argv[1]))"
)
_state: _Child | None = None


@contextmanager
def isolated_decoding(early: bool = False) -> Iterator[None]:
    """Context manager: marked functions decode in a child process. early: Start it now, not when it is needed."""
    global _state
    if _state is not None or os.name != "posix":
        yield
        return
    _state = _Child()
    try:
        if early:
            _state.start()
        yield
    finally:
        _state.stop()
        _state = None


def isolated(function: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """Mark a function that decodes a file: its first argument. Other arguments and results must be picklable."""

    @functools.wraps(function)
    def call(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if _state is None:
            return function(path, *args, **kwargs)
        return _state.ask(path, "call", _name(function), path, args, kwargs)

    return call


def isolated_blocks(
    function: Callable[Concatenate[Path, P], Generator[T]],
) -> Callable[Concatenate[Path, P], Generator[T]]:
    """Mark a generator that decodes a file: its first argument."""

    @functools.wraps(function)
    def call(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        child = _state
        if child is None:
            yield from function(path, *args, **kwargs)
            return
        handle = child.ask(path, "open", _name(function), path, args, kwargs)
        process = child.process
        try:
            while items := child.ask(path, "next", handle):
                yield from items
                if child.process is not process:  # Another file crashed it.
                    raise crashed(path)
        finally:
            if child.process is process and process is not None:
                child.ask(path, "close", handle)

    return call


class _Child:
    """The process that decodes, seen from this one. It is started again after a crash."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def start(self) -> Connection:
        if self._pipe is None:
            ours, theirs = Pipe()
            # The child prints nothing. What libraries print about a damaged file helps nobody.
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            self._pipe = ours
        return self._pipe

    def stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._pipe = self.process = None

    def ask(self, path: Path, *request: Any) -> Any:
        """What the child answers. Raises FarfeelError: its error, or that it crashed."""
        with self._lock:
            try:
                pipe = self.start()
                pipe.send(request)
                kind, answer = pipe.recv()
            except (EOFError, OSError):
                self.stop()
                raise crashed(path) from None
            except BaseException:  # As of Ctrl-C: the answer that is still to come would be taken for the next one.
                self.stop()
                raise
        if kind == "error" and isinstance(answer, MemoryError):
            raise FarfeelError(f"{path} needs more memory than there is to decode it; cut it into clips")
        if kind == "error":
            raise answer
        return answer


def crashed(name: object) -> FarfeelError:
    """The error of a recording that ended the process which decoded it."""
    return FarfeelError(f"{name} crashed the decoder, expected a recording; convert the file")


def serve(descriptor: int) -> None:
    """The whole life of the child process: it answers requests until the pipe closes."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    pipe = Connection(descriptor)
    opened: dict[int, Generator[Any]] = {}
    while True:
        try:
            kind, *rest = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer = _answer(kind, rest, opened)
        except Exception as error:  # Every error belongs to the process that asked, and it is raised there.
            pipe.send(("error", error))
        else:
            pipe.send(("answer", answer))


def _answer(kind: str, rest: list[Any], opened: dict[int, Generator[Any]]) -> Any:
    if kind in ("call", "open"):
        (module, name), path, args, kwargs = rest
        made = getattr(importlib.import_module(module), name)(path, *args, **kwargs)
        if kind == "call":
            return made
        handle = max(opened, default=-1) + 1
        opened[handle] = made
        return handle
    if kind == "close":
        opened.pop(rest[0]).close()
        return None
    return list(itertools.islice(opened[rest[0]], ITEMS))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def _name(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__
