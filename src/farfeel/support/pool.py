"""Independent pieces of work on several processes of this machine.

All processes are started here, so that none outlives the command: where it is killed, they end with it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from farfeel.types import FarfeelError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Runner(Protocol):
    """A function that does independent pieces of work: `run_all` here, or `ray_pool.run_all` on Ray."""

    def __call__(self, work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]: ...


def run_all(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """work(item) for every item, in the order in which they finish. One worker: in this process.

    `work` must be picklable. After a failure no further item is begun. Raises FarfeelError where a process was killed.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    try:
        with _pool(min(workers, len(items))) as pool:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
    except BrokenProcessPool:
        raise FarfeelError(
            "a worker process was killed, expected it to finish (is the memory full?); run the same command again with "
            "fewer --workers: it resumes"
        ) from None


def run_in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    ahead: int,
    crashed: Callable[[Item], Result],
) -> Iterator[Result]:
    """work(item) for every item, in their order. No worker: in this process, each when it is requested.

    ahead: how many further items are worked on before the first result is taken. An item that crashes its process
    costs that item alone: its result is crashed(item).
    """
    if not workers:
        yield from map(work, items)
        return
    rest = list(items)
    while rest:
        done = 0
        try:
            with _pool(workers) as pool:
                for result in _in_order(pool, work, rest, ahead):
                    done += 1
                    yield result
        except BrokenProcessPool:  # One item ended all processes. Which item it was is not known yet.
            yield _alone(work, rest[done], crashed)
            done += 1
        rest = rest[done:]


def end_with_parent() -> None:
    """Call this in a child process: it then ends when its parent ends, even where the parent is killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Item], Result], items: Sequence[Item], ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _alone(work: Callable[[Item], Result], item: Item, crashed: Callable[[Item], Result]) -> Result:
    """In a process of its own: if this one ends too, the item is the cause."""
    try:
        with _pool(1) as pool:
            return pool.submit(work, item).result()
    except BrokenProcessPool:
        return crashed(item)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one; work that has not begun when the block ends is not begun."""
    # Spawned, not forked: the caller may hold threads (torch, a progress bar), and a fork of them can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
