"""Many recordings: decoded by worker processes, recognised in batches, in their order. One bad file stops nothing.

recordings -> processes: decode -> Recognizer.recognise, BATCH at a time -> a prediction or an error for each
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from farfeel.media.isolation import crashed
from farfeel.recipe import Recipe
from farfeel.recognise.decoding import ModelInput, decode
from farfeel.recognise.inputs import Source, name_of, sendable
from farfeel.recognise.options import Options
from farfeel.support.pool import run_in_order
from farfeel.types import FarfeelError, Prediction

T = TypeVar("T")
Recognise = Callable[[Sequence[ModelInput], Options], list[Prediction]]
BATCH = 16  # recordings in one pass through the network
AHEAD = 4  # recordings decoded ahead by each worker: what is kept in memory


def predict_each(
    recognise: Recognise, recipes: Sequence[Recipe], sources: Sequence[Source], options: Options, workers: int = 0
) -> Iterator[Prediction | FarfeelError]:
    """Each recording's prediction, or what is wrong with it, in the order of the recordings.

    recognise: predictions of decoded recordings. recipes: of the checkpoints that it uses. workers: processes that
    decode; 0: this one.
    """
    given = [_sendable(source) for source in sources] if workers else sources
    for batch in batched(_decoded(given, recipes, options, workers), BATCH):
        good = [decoded for decoded in batch if isinstance(decoded, ModelInput)]
        predictions = iter(recognise(good, options) if good else [])
        for decoded in batch:
            yield next(predictions) if isinstance(decoded, ModelInput) else decoded


def _sendable(source: Source) -> Source | FarfeelError:
    try:
        return sendable(source)
    except FarfeelError as error:  # the other recordings are still worth recognising
        return error


def _decoded(
    sources: Sequence[Source | FarfeelError], recipes: Sequence[Recipe], options: Options, workers: int
) -> Iterator[ModelInput | FarfeelError]:
    work = functools.partial(_decode, recipes=recipes, options=options)
    return run_in_order(work, sources, workers, AHEAD * workers, _crashed)


def _crashed(source: Source | FarfeelError) -> FarfeelError:
    assert not isinstance(source, FarfeelError)
    return crashed(name_of(source))


def _decode(source: Source | FarfeelError, recipes: Sequence[Recipe], options: Options) -> ModelInput | FarfeelError:
    if isinstance(source, FarfeelError):
        return source
    try:
        return decode(source, recipes, options)
    except FarfeelError as error:  # the other recordings are still worth recognising
        return error


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
