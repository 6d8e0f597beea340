"""A timeline in intervals that do not overlap, and in episodes of the same label."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil

import numpy as np

from farfeel.types import Prediction, Timeline


@dataclass(frozen=True)
class Interval:
    """A span of a timeline and the prediction for it; None where nothing was classified."""

    start_s: float
    end_s: float
    prediction: Prediction | None


@dataclass(frozen=True)
class Episode:
    """Neighbouring intervals with the same label, "" for none. `confidence` is the mean of theirs."""

    start_s: float
    end_s: float
    label: str
    confidence: float


def intervals(timeline: Timeline) -> list[Interval]:
    """Intervals of one step that tile 0 to `seconds`; the last may be shorter."""
    count = max(1, ceil(timeline.seconds / timeline.step_s - 1e-6)) if timeline.seconds > 0 else 0
    edges = [index * timeline.step_s for index in range(count)] + [timeline.seconds]
    centres = [(window.start_s + window.end_s) / 2 for window in timeline.predictions]
    tiles = []
    for start_s, end_s in pairwise(edges):
        prediction = None
        if centres:
            middle_s = (start_s + end_s) / 2
            right = bisect_left(centres, middle_s)
            near = [index for index in (right - 1, right) if 0 <= index < len(centres)]
            nearest = timeline.predictions[min(near, key=lambda index: abs(centres[index] - middle_s))]
            prediction = nearest if nearest.probabilities else None
        tiles.append(Interval(start_s, end_s, prediction))
    return tiles


def episodes(timeline: Timeline) -> list[Episode]:
    """Episodes that tile 0 to `seconds`, labelled or not."""
    joined = []
    for label, group in groupby(intervals(timeline), key=lambda interval: _label(interval.prediction)):
        parts = list(group)
        sure = [interval.prediction.confidence for interval in parts if interval.prediction and label]
        joined.append(Episode(parts[0].start_s, parts[-1].end_s, label, float(np.mean(sure)) if sure else 0.0))
    return joined


def label_seconds(timeline: Timeline) -> dict[str, float]:
    """The total seconds of each label, in the order of their first episodes."""
    lengths: dict[str, float] = {}
    for episode in episodes(timeline):
        if episode.label:
            lengths[episode.label] = lengths.get(episode.label, 0.0) + episode.end_s - episode.start_s
    return lengths


def clock(time_s: float, decimals: int = 0) -> str:
    """Seconds → m:ss, h:mm:ss from an hour on."""
    units = round(time_s * 10**decimals)
    minutes, rest = divmod(units, 60 * 10**decimals)
    seconds = f"{rest / 10**decimals:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{minutes // 60}:{minutes % 60:02}:{seconds}" if minutes >= 60 else f"{minutes}:{seconds}"


def _label(prediction: Prediction | None) -> str:
    return (prediction.label or "") if prediction else ""
