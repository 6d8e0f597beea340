"""Many recordings: decoded by worker processes, recognised in batches, in their order; one bad file stops nothing.

paths -> processes: prepare -> Recognizer.answer, BATCH at a time -> (path, Prediction or its error)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from farfeel.recipe import Recipe
from farfeel.recognise.decoding import DEFAULTS, Options, Prepared, prepare
from farfeel.recognise.recognizer import Recognizer
from farfeel.support.pool import Runner
from farfeel.types import FarfeelError, Prediction

T = TypeVar("T")
BATCH = 16  # recordings in one pass through the network
AHEAD = 4  # recordings decoded ahead by each worker: what is kept in memory


def predict_each(
    recognizer: Recognizer,
    paths: Sequence[Path],
    options: Options = DEFAULTS,
    workers: int = 0,
    abstain_below: float = 0.0,
) -> Iterator[tuple[Path, Prediction | FarfeelError]]:
    """Each file's prediction, or what is wrong with it. `workers`: processes that decode; 0: this one."""
    prepared = zip(paths, _prepared(paths, recognizer.recipes, options, workers), strict=True)
    for batch in _batched(prepared, BATCH):
        good = [each for _, each in batch if isinstance(each, Prepared)]
        answers = iter(recognizer.answer(good, abstain_below) if good else [])
        for path, each in batch:
            yield path, next(answers) if isinstance(each, Prepared) else each


@dataclass(frozen=True)
class LoadOptions:
    """What Recognizer.load takes."""

    checkpoints: tuple[Path, ...] | None = None
    device: str = "cpu"
    precision: str = "32"
    engine: str = "torch"
    front_end: str | None = None


def predict_on(
    run: Runner,
    loading: LoadOptions,
    paths: Sequence[Path],
    options: Options = DEFAULTS,
    workers: int = 1,
    abstain_below: float = 0.0,
) -> Iterator[tuple[Path, Prediction | FarfeelError]]:
    """As predict_each, to the same bit: `run` (of Ray: `cluster.run_all`) gives BATCH files at a time to workers, who
    load the checkpoint once."""
    work = functools.partial(_predict_batch, loading, options, abstain_below)
    batches = list(_batched([path.resolve() for path in paths], BATCH))
    results = itertools.chain.from_iterable(run(work, batches, workers))
    yield from zip(paths, results, strict=True)


def _predict_batch(
    loading: LoadOptions, options: Options, abstain_below: float, paths: tuple[Path, ...]
) -> list[Prediction | FarfeelError]:
    return [result for _, result in predict_each(_loaded(loading), paths, options, 0, abstain_below)]


@functools.lru_cache(maxsize=1)
def _loaded(loading: LoadOptions) -> Recognizer:
    return Recognizer.load(loading.checkpoints, loading.device, loading.precision, loading.engine, loading.front_end)


def _prepared(
    paths: Sequence[Path], recipes: Sequence[Recipe], options: Options, workers: int
) -> Iterator[Prepared | FarfeelError]:
    if not workers:
        yield from (_prepare(path, recipes, options) for path in paths)
        return
    rest = list(paths)
    while rest:
        done = 0
        try:
            with _pool(workers) as pool:
                for result in _in_order(pool, rest, recipes, options, AHEAD * workers):
                    done += 1
                    yield result
        except BrokenProcessPool:  # A decoder crashed, and took all others with it: which file it was is not told.
            yield _alone(rest[done], recipes, options)
            done += 1
        rest = rest[done:]


def _in_order(
    pool: ProcessPoolExecutor, paths: Sequence[Path], recipes: Sequence[Recipe], options: Options, ahead: int
) -> Iterator[Prepared | FarfeelError]:
    waiting: list[Future[Prepared | FarfeelError]] = []
    for path in paths:
        waiting.append(pool.submit(_prepare, path, recipes, options))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _alone(path: Path, recipes: Sequence[Recipe], options: Options) -> Prepared | FarfeelError:
    """In a process of its own, whose death says that it was this file."""
    try:
        with _pool(1) as pool:
            return pool.submit(_prepare, path, recipes, options).result()
    except BrokenProcessPool:
        return FarfeelError(f"{path} crashed the decoder, expected a recording; convert the file")


def _prepare(path: Path, recipes: Sequence[Recipe], options: Options) -> Prepared | FarfeelError:
    try:
        return prepare(path, recipes, options)
    except FarfeelError as error:  # the other files are still worth recognising
        return error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: the threads of a network that is loaded already would not be copied, and their locks would.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
