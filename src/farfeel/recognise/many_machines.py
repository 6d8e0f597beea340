"""Many recordings on the workers of a cluster, each of which loads the checkpoint once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from farfeel.recognise.many_files import BATCH, batched
from farfeel.recognise.options import DEFAULTS, Options
from farfeel.recognise.recognizer import Recognizer
from farfeel.support.pool import Runner
from farfeel.types import FarfeelError, Prediction


@dataclass(frozen=True)
class LoadOptions:
    """The arguments of `Recognizer.load`."""

    checkpoints: tuple[Path, ...] | None = None
    device: str = "cpu"
    precision: str = "32"
    engine: str = "torch"
    front_end: str | None = None


def predict_on(
    run: Runner, loading: LoadOptions, paths: Sequence[Path], options: Options = DEFAULTS, workers: int = 1
) -> Iterator[Prediction | FarfeelError]:
    """As `predict_many`, to the same bit. `run` (for Ray: `ray_pool.run_all`) gives a worker BATCH files at a time."""
    work = functools.partial(_predict_batch, loading, options)
    batches = list(batched([path.resolve() for path in paths], BATCH))
    yield from itertools.chain.from_iterable(run(work, batches, workers))


def _predict_batch(loading: LoadOptions, options: Options, paths: tuple[Path, ...]) -> list[Prediction | FarfeelError]:
    return list(_loaded(loading).predict_many(paths, options))


@functools.lru_cache(maxsize=1)
def _loaded(loading: LoadOptions) -> Recognizer:
    return Recognizer.load(loading.checkpoints, loading.device, loading.precision, loading.engine, loading.front_end)
