"""A timeline as a drawing (SVG): probabilities stacked over time, the label of each moment, and where somebody speaks.

The HTML report and the server's page show the same drawing. Nothing in it comes from another host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import ceil
from pathlib import Path

import jinja2
import numpy as np

from farfeel.show.intervals import Interval, clock, intervals, label_seconds
from farfeel.types import Timeline

MAX_COLUMNS = 880  # as many as the drawing has points; a longer recording is averaged into these.
TICKS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
TICKS = 10  # at most, below 10 hours
COLOURS = {  # Okabe & Ito: fill, and the ink that is read on it
    "neutral": ("#999999", "#000"),
    "calm": ("#56b4e9", "#000"),
    "happy": ("#e69f00", "#000"),
    "sad": ("#0072b2", "#fff"),
    "angry": ("#d55e00", "#000"),
    "fearful": ("#cc79a7", "#000"),
    "disgust": ("#009e73", "#000"),
    "surprised": ("#f0e442", "#000"),
}


STYLE = (Path(__file__).parent / "drawing.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Column:
    """What is drawn side by side: mean probabilities (K,) or () in silence; label "" in silence, None where
    undecided."""

    start_s: float
    end_s: float
    label: str | None
    probabilities: tuple[float, ...]


def colours_of(emotions: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(fill, ink) of each: its own, else one that none of the others has, else grey."""
    free = [colour for emotion, colour in COLOURS.items() if emotion not in emotions]
    return {emotion: COLOURS.get(emotion) or (free.pop() if free else ("#bbbbbb", "#000")) for emotion in emotions}


def columns_of(timeline: Timeline) -> list[Column]:
    """The intervals of a timeline or, where there are more than MAX_COLUMNS, means over several of them."""
    parts, thinned = intervals(timeline), thinning(timeline)
    return [_column(parts[at : at + thinned]) for at in range(0, len(parts), thinned)]


def thinning(timeline: Timeline) -> int:
    """How many intervals one column shows."""
    return max(1, ceil(len(intervals(timeline)) / MAX_COLUMNS))


def draw(timeline: Timeline, emotions: Sequence[str]) -> str:
    """The drawing of a timeline as HTML: an SVG element and its legend, to be shown with STYLE."""
    columns, thinned = columns_of(timeline), thinning(timeline)
    tick_s = next((step for step in TICKS_S if timeline.seconds / step <= TICKS), 3600 * ceil(timeline.seconds / 36000))
    return _template().render(
        timeline=timeline,
        colours=colours_of(emotions),
        areas={emotion: _area(columns, at) for at, emotion in enumerate(emotions)},
        strip=_strip(columns),
        count=len(columns),
        thinned=thinned,
        ticks=[at * tick_s for at in range(int(timeline.seconds / tick_s + 1e-6) + 1)],
        spoken=_speech(timeline, columns, thinned),
        lengths=label_seconds(timeline),
        undecided=any(column.label is None for column in columns),
    )


def environment() -> jinja2.Environment:
    """Of the templates in this folder; what is put into them stays text."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["clock"] = clock
    return templates


@cache
def _template() -> jinja2.Template:
    return environment().get_template("drawing.html.j2")


def _column(parts: list[Interval]) -> Column:
    """One interval or several as one: silent where most of them are."""
    start_s, end_s = parts[0].start_s, parts[-1].end_s
    predictions = [part.prediction for part in parts if part.prediction]
    if 2 * len(predictions) < len(parts):
        return Column(start_s, end_s, "", ())
    label = Counter(prediction.label for prediction in predictions).most_common(1)[0][0]
    mean = np.mean([prediction.probabilities for prediction in predictions], axis=0)
    return Column(start_s, end_s, label, tuple(mean.tolist()))


def _area(columns: list[Column], emotion: int) -> str:
    """SVG path of one emotion's steps, stacked on those before it: x in seconds, y from 0 (top) to 100."""
    parts = []
    for classified, group in groupby(columns, key=lambda column: bool(column.probabilities)):
        if not classified:
            continue
        run = list(group)
        upper = [100 - 100 * sum(column.probabilities[: emotion + 1]) for column in run]
        lower = [100 - 100 * sum(column.probabilities[:emotion]) for column in run]
        there = [f"V{y:.1f}H{column.end_s:.6g}" for column, y in zip(run, upper, strict=True)]
        back = [f"V{y:.1f}H{column.start_s:.6g}" for column, y in zip(run[::-1], lower[::-1], strict=True)]
        parts.append(f"M{run[0].start_s:.6g} {lower[0]:.1f}" + "".join(there + back) + "z")
    return "".join(parts)


def _strip(columns: list[Column]) -> list[tuple[float, float, str | None]]:
    """(start_s, end_s, label) of neighbouring columns with the same label, without silence."""
    runs = [(label, list(group)) for label, group in groupby(columns, key=lambda column: column.label)]
    return [(run[0].start_s, run[-1].end_s, label) for label, run in runs if label != ""]


def _speech(timeline: Timeline, columns: list[Column], thinned: int) -> list[tuple[float, float, float]]:
    """(start_s, end_s, share of it in which somebody speaks): the spans themselves or, where they are too fine to
    draw, a share for each column."""
    if thinned == 1:
        return [(start_s, end_s, 1.0) for start_s, end_s in timeline.speech]
    starts, ends = np.array(timeline.speech, dtype=float).reshape(-1, 2).T
    edges = np.array([column.start_s for column in columns] + [timeline.seconds])
    until = np.array([np.clip(edge - starts, 0, ends - starts).sum() for edge in edges])
    shares = np.diff(until) / np.diff(edges)
    return [(c.start_s, c.end_s, float(share)) for c, share in zip(columns, shares, strict=True) if share > 0]
