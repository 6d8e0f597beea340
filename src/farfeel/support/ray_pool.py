"""Ray: the same independent pieces of work on a cluster, or on this machine where none is running.

`pip install 'farfeel[cluster]'`. Which cluster: RAY_ADDRESS, as for all of Ray. Each piece is a function of its item
alone. Where its process or machine fails, it is done again elsewhere: no result is lost or doubled. Paths must mean the
same on every machine: on a cluster, data and results are on a shared file system.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from farfeel.support.text import one_line
from farfeel.types import FarfeelError

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRIES = 3  # of a piece whose process died


def run_all(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """work(item) for every item, in their order, on a cluster; without one, on `workers` processes of this machine.

    Raises FarfeelError where a piece raises one, or where its processes fail repeatedly.
    """
    if not items:
        return
    with _cluster(workers):
        import ray.data
        from ray.exceptions import RayError

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        rows = [{"item": pickle.dumps(item)} for item in items]
        pieces = ray.data.from_items(rows, override_num_blocks=len(rows))
        try:
            done = pieces.map(functools.partial(_piece, work), num_cpus=1, max_retries=RETRIES)
            for row in done.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, FarfeelError):
                    raise result
                yield result
        except RayError as error:
            reason = one_line(error, 160)
            raise FarfeelError(f"Ray failed ({type(error).__name__}: {reason}); run the same command again") from None


def _piece(work: Callable[[Any], Any], row: dict[str, bytes]) -> dict[str, bytes]:
    """One piece, on a worker. Only our own processes exchange pickles."""
    try:
        result = work(pickle.loads(row["item"]))
    except FarfeelError as error:
        result = error
    return {"result": pickle.dumps(result)}


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    if importlib.util.find_spec("ray") is None:
        raise FarfeelError("--engine ray needs Ray, which is not installed; pip install 'farfeel[cluster]'")
    import ray

    ours = not ray.is_initialized()
    if ours:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if os.environ.get("RAY_ADDRESS"):
            try:
                ray.init(**quiet)
            except ConnectionError as error:
                address, reason = os.environ["RAY_ADDRESS"], one_line(error, 120)
                raise FarfeelError(
                    f"no Ray cluster answers at {address} ({reason}); correct RAY_ADDRESS, or unset it to work here"
                ) from None
        else:
            ray.init(num_cpus=max(1, workers), include_dashboard=False, **quiet)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
