"""Notes and progress bars, on standard error only."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Print nothing: another process prints for this one."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


_native = threading.Lock()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """What native libraries print on standard error is dropped, such as libpng's complaints about damage.

    It holds for all threads of the process, so the block must be short.
    """
    with _native, open(os.devnull, "wb") as nowhere:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def progress(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with label, share, count, rate and time left. It disappears where an error ends the work.

    Yields `advance(done, total)`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        try:
            yield advance
        except BaseException:
            bar.live.transient, bar.console.quiet = True, not bar.console.is_terminal
            raise
