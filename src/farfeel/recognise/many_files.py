"""Many recordings: decoded by worker processes, recognised in batches, in their order; one bad file stops nothing.

paths -> processes: prepare -> Recognizer.answer, BATCH at a time -> (path, Prediction or its error)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from farfeel.recipe import Recipe
from farfeel.recognise.decoding import DEFAULTS, Options, Prepared, prepare
from farfeel.recognise.recognizer import Recognizer
from farfeel.support.pool import Runner, run_in_order
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
    work = functools.partial(_prepare, recipes=recipes, options=options)
    return run_in_order(work, paths, workers, AHEAD * workers, _crashed)


def _crashed(path: Path) -> FarfeelError:
    return FarfeelError(f"{path} crashed the decoder, expected a recording; convert the file")


def _prepare(path: Path, recipes: Sequence[Recipe], options: Options) -> Prepared | FarfeelError:
    try:
        return prepare(path, recipes, options)
    except FarfeelError as error:  # the other files are still worth recognising
        return error


def _batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
