"""Independent pieces of work on several processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from farfeel.types import FarfeelError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Runner(Protocol):
    """What does independent pieces of work: `run_all` here, `cluster.run_all` on Ray."""

    def __call__(self, work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]: ...


def run_all(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """work(item) for every item, as they are done; in this process where one suffices. `work` must be picklable.

    Where one fails, those not yet begun are not begun. Raises FarfeelError where a process was killed.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    # Spawned, not forked: the caller may hold threads (torch, a progress bar), and a fork of them can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=end_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        except BrokenProcessPool:
            raise FarfeelError(
                "a worker process was killed, expected it to finish (is the memory full?); run the same command again, "
                "it goes on from here; with fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """A pool's processes outlive a parent that is killed, waiting for work for ever; this one ends with it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
