"""Many recordings: decoded by worker processes, recognised in batches, in their order. One bad file stops nothing.

recordings -> processes: decode -> Recognizer.recognise, BATCH at a time -> a prediction or an error for each
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from farfeel.recipe import Recipe
from farfeel.recognise.decoding import ModelInput, decode
from farfeel.recognise.inputs import Source, name_of, sendable
from farfeel.recognise.options import DEFAULTS, Options
from farfeel.types import FarfeelError, Prediction

if TYPE_CHECKING:
    from farfeel.recognise.recognizer import Recognizer

T = TypeVar("T")
BATCH = 16  # recordings in one pass through the network
AHEAD = 4  # recordings decoded ahead by each worker: what is kept in memory


def predict_each(
    recognizer: Recognizer, sources: Sequence[Source], options: Options = DEFAULTS, workers: int = 0
) -> Iterator[Prediction | FarfeelError]:
    """Each recording's prediction, or what is wrong with it. `workers`: processes that decode; 0: this one."""
    given = [_sendable(source) for source in sources] if workers else sources
    for batch in batched(_decoded(given, recognizer.recipes, options, workers), BATCH):
        good = [each for each in batch if isinstance(each, ModelInput)]
        predictions = iter(recognizer.recognise(good, options) if good else [])
        for each in batch:
            yield next(predictions) if isinstance(each, ModelInput) else each


def _sendable(source: Source) -> Source | FarfeelError:
    try:
        return sendable(source)
    except FarfeelError as error:  # the other recordings are still worth recognising
        return error


def _decoded(
    sources: Sequence[Source | FarfeelError], recipes: Sequence[Recipe], options: Options, workers: int
) -> Iterator[ModelInput | FarfeelError]:
    if not workers:
        yield from (_decode(source, recipes, options) for source in sources)
        return
    rest = list(sources)
    while rest:
        done = 0
        try:
            with _pool(workers) as pool:
                for result in _in_order(pool, rest, recipes, options, AHEAD * workers):
                    done += 1
                    yield result
        except BrokenProcessPool:  # A decoder crashed and ended the pool. Which file it was is not known.
            yield _alone(rest[done], recipes, options)
            done += 1
        rest = rest[done:]


def _in_order(
    pool: ProcessPoolExecutor,
    sources: Sequence[Source | FarfeelError],
    recipes: Sequence[Recipe],
    options: Options,
    ahead: int,
) -> Iterator[ModelInput | FarfeelError]:
    waiting: list[Future[ModelInput | FarfeelError]] = []
    for source in sources:
        waiting.append(pool.submit(_decode, source, recipes, options))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _alone(source: Source | FarfeelError, recipes: Sequence[Recipe], options: Options) -> ModelInput | FarfeelError:
    """In a process of its own: when that one dies, it was this recording."""
    try:
        with _pool(1) as pool:
            return pool.submit(_decode, source, recipes, options).result()
    except BrokenProcessPool:
        return FarfeelError(f"{name_of(source)} crashed the decoder, expected a recording; convert the file")


def _decode(source: Source | FarfeelError, recipes: Sequence[Recipe], options: Options) -> ModelInput | FarfeelError:
    if isinstance(source, FarfeelError):
        return source
    try:
        return decode(source, recipes, options)
    except FarfeelError as error:  # the other recordings are still worth recognising
        return error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: the threads of a network that is loaded already would not be copied, and their locks would.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
