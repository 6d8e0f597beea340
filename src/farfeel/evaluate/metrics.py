"""Accuracy, unweighted average recall, macro-F1, recalls, calibration; with intervals over speakers.

Definitions, for N rows (clip and room), K emotions, p the probabilities and the decision their argmax:
  accuracy   share of right decisions
  UAR        recall averaged over the emotions that occur as targets (balanced accuracy)
  macro-F1   F1 averaged over the same emotions
  ECE        expected calibration error, 15 bins of equal width of the largest probability (Guo et al., 2017). A bin
             with few rows is off by chance, and its distance counts whatever its sign: of perfect probabilities the
             ECE is above 0, the more so the fewer the rows. `ece_by_chance` tells how much.
  NLL        mean of -ln p(target), p no smaller than 1e-12
  Brier      mean over rows of the sum over emotions of (p - 1[target])^2, from 0 to 2 (Brier, 1950)

Where the table has probabilities from before calibration (`q_<emotion>`), the last three are told of them too, as
`ece_uncalibrated` and so on. Abstention: how many decisions are left (coverage), and how many of them right, where
those whose largest probability is below a threshold are not made.

Overall, each clip has weight one, shared among its rooms. `mean_over_rooms` gives each room weight one instead.

The interval. Clips of one speaker are not independent, so the unit that is resampled is the speaker, with all its
clips in all rooms. The percentile bootstrap is too narrow with few units (Hesterberg, 2015, The American Statistician
69(4)): of three speakers it can never reach beyond the best and the worst. Hence a t interval with n - 1 degrees of
freedom around the value, whose standard error is the bootstrap's, times sqrt(n / (n - 1)) for the bias of its
variance; for shares on the logit scale, which keeps it within 0 and 1. Coverage in per cent at a nominal 95 %, by
speakers and true accuracy (speakers differ by a standard deviation of 0.6 on the logit scale, 48 clips each in two
rooms; 400 tables, so give or take 1 at 95 % and 2.5 at 60 %):

                       this interval      of macro-F1    percentile, speakers   percentile, clips
  3 speakers, 53 %         94.5              95.3               73.3                  56.0
  7 speakers, 53 %         95.8              95.5               87.5                  53.3
  21 speakers, 53 %        94.3              94.3               92.3                  54.0
  3 speakers, 86 %         94.8              95.0               73.0                  63.5
  7 speakers, 86 %         95.0              94.8               84.0                  62.8
  21 speakers, 86 %        95.3              95.5               91.3                  59.8

`PYTHONPATH=src python tests/evaluate/test_coverage.py` measures it again. Of single recalls and of the calibration
measures it was not measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import special  # not scipy.stats: it takes longer to import than a table to evaluate

from farfeel.evaluate.table import checked, emotions_of, probabilities_of, targets_of, uncalibrated

BINS = 15
RESAMPLES = 4000  # The standard error of a standard error is then 1.1 % (1/sqrt(2 R)).
LEVEL = 0.95
SEED = 1
SHARES = ("accuracy", "uar", "macro_f1")  # 0 to 1, higher is better; recall too
LOSSES = ("ece", "nll", "brier")  # lower is better
SCORES = ("accuracy", "uar", "macro_f1", "ece", "nll", "brier")
SMALLEST = 1e-12
ABSTAIN_BELOW = (0.3, 0.4, 0.5, 0.6, 0.7)
CHANCE_DRAWS = 200  # The mean of the ECE by chance is then known to a few per cent of itself.


@dataclass(frozen=True)
class Interval:
    """A value and its interval. NaN bounds: it cannot be estimated (one speaker). NaN value: the class is absent."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def as_dict(self) -> dict[str, float | None]:
        return {name: number(getattr(self, name)) for name in ("value", "low", "high")}


@dataclass(frozen=True)
class Protocol:
    """What the intervals are, and of what."""

    level: float
    unit: str
    interval: str
    speakers: int
    clips: int
    rows: int
    rooms: tuple[str, ...]
    resamples: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "rooms": list(self.rooms)}


@dataclass(frozen=True)
class Abstention:
    """Decisions with a largest probability below `below` are not made. accuracy: of those that are."""

    below: float
    coverage: Interval
    accuracy: Interval

    def as_dict(self) -> dict[str, Any]:
        return {"below": self.below, "coverage": self.coverage.as_dict(), "accuracy": self.accuracy.as_dict()}


@dataclass(frozen=True)
class Scores:
    """All metrics of one room, or of all. `uncalibrated`: LOSSES before calibration; empty where not known."""

    speakers: int
    clips: int
    accuracy: Interval
    uar: Interval
    macro_f1: Interval
    ece: Interval
    nll: Interval
    brier: Interval
    recall: dict[str, Interval]
    uncalibrated: dict[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        scores = {name: getattr(self, name).as_dict() for name in SCORES}
        scores |= {f"{name}_uncalibrated": one.as_dict() for name, one in self.uncalibrated.items()}
        recall = {emotion: interval.as_dict() for emotion, interval in self.recall.items()}
        return {"speakers": self.speakers, "clips": self.clips, **scores, "recall": recall}


@dataclass(frozen=True)
class Metrics:
    """`rooms` in natural order; `overall` weighs clips alike, `mean_over_rooms` weighs rooms alike. `ece_by_chance`:
    the overall ECE that perfectly calibrated probabilities, as sure as these, would have on average."""

    emotions: tuple[str, ...]
    protocol: Protocol
    overall: Scores
    rooms: dict[str, Scores]
    mean_over_rooms: Scores
    abstention: tuple[Abstention, ...]
    ece_by_chance: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol.as_dict(),
            "emotions": list(self.emotions),
            "overall": self.overall.as_dict(),
            "rooms": {room: scores.as_dict() for room, scores in self.rooms.items()},
            "mean_over_rooms": self.mean_over_rooms.as_dict(),
            "abstention": [each.as_dict() for each in self.abstention],
            "ece_by_chance": self.ece_by_chance,
        }


def metrics(table: pd.DataFrame, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED) -> Metrics:
    """Prediction table → every metric with its interval, per room and overall. The seed only draws the resamples."""
    table = checked(table, source="the prediction table")
    sums = SpeakerSums(table)
    weights = sums.draw(np.random.default_rng(seed), resamples)
    emotions = emotions_of(table)
    overall, rooms, mean = _all_scores(table, sums, weights, level)
    if (raw := uncalibrated(table)) is not None:
        overall_raw, rooms_raw, mean_raw = _all_scores(raw, SpeakerSums(raw), weights, level)
        overall, mean = _with_raw(overall, overall_raw), _with_raw(mean, mean_raw)
        rooms = {room: _with_raw(scores, rooms_raw[room]) for room, scores in rooms.items()}
    protocol = Protocol(
        level=level,
        unit="speaker",
        interval="t interval with the bootstrap's standard error over speakers, shares on the logit scale",
        speakers=len(sums.speakers),
        clips=table["clip"].nunique(),
        rows=len(table),
        rooms=tuple(sums.rooms),
        resamples=resamples,
        seed=seed,
    )
    abstention = tuple(_abstention(sums, weights, below, protocol.clips, level) for below in ABSTAIN_BELOW)
    by_chance = ece_by_chance(probabilities_of(table).max(axis=1), np.random.default_rng(seed))
    return Metrics(emotions, protocol, overall, rooms, mean, abstention, by_chance)


class SpeakerSums:
    """Sums over each speaker's rows, of which every metric is a function; a bootstrap is then a matrix product.

    Each is (S, D): the confusion matrix (K·K, target by decision), the sums of -ln p(target) and of the Brier terms
    (2), and for each calibration bin its count, confidence and number right (3·BINS). The order of the table's rows
    does not matter.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.speakers = natural_order(table["speaker"])
        self.rooms = natural_order(table["room"])
        self._table = table
        self._share = (1 / table.groupby("clip")["room"].transform("size")).to_numpy()

    @cached_property
    def overall(self) -> np.ndarray:
        return self._sums(np.ones(len(self._table), dtype=bool), self._share)

    @cached_property
    def of_room(self) -> dict[str, np.ndarray]:
        room, ones = self._table["room"].to_numpy(), np.ones(len(self._table))
        return {name: self._sums(room == name, ones) for name in self.rooms}

    def decided(self, below: float) -> np.ndarray:
        """(S, 3) sums of the weights of all rows, of those decided with at least this confidence, of the right ones."""
        p = probabilities_of(self._table)
        made = p.max(axis=1) >= below
        right = made & (p.argmax(axis=1) == targets_of(self._table))
        sums = np.zeros((len(self.speakers), 3))
        speaker = pd.Index(self.speakers).get_indexer(self._table["speaker"])
        np.add.at(sums, speaker, self._share[:, None] * np.stack([np.ones(len(p)), made, right], axis=1))
        return sums

    def draw(self, rng: np.random.Generator, resamples: int) -> np.ndarray:
        """(R, S): how often each speaker is drawn in each resample."""
        count = len(self.speakers)
        return np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=resamples), dtype=np.float64)

    def _sums(self, chosen: np.ndarray, weight: np.ndarray) -> np.ndarray:
        table, weight = self._table[chosen], weight[chosen]
        p, target = probabilities_of(table), targets_of(table)
        count, classes = p.shape
        decision, row = p.argmax(axis=1), np.arange(count)
        bins = confidence_bins(p.max(axis=1))
        base = classes * classes
        speaker = pd.Index(self.speakers).get_indexer(table["speaker"])
        sums = np.zeros((len(self.speakers), base + 2 + 3 * BINS))
        brier = (p**2).sum(axis=1) - 2 * p[row, target] + 1
        for column, term in (
            (target * classes + decision, np.ones(count)),
            (np.full(count, base), -np.log(np.maximum(p[row, target], SMALLEST))),
            (np.full(count, base + 1), brier),
            (base + 2 + bins, np.ones(count)),
            (base + 2 + BINS + bins, p.max(axis=1)),
            (base + 2 + 2 * BINS + bins, (decision == target).astype(np.float64)),
        ):
            np.add.at(sums, (speaker, column), weight * term)
        return sums


def values(sums: np.ndarray) -> np.ndarray:
    """(…, D) sums → (…, 6 + K): SCORES in their order, then the recall of each emotion; NaN where there is none."""
    classes = round(np.sqrt(sums.shape[-1] - 2 - 3 * BINS))
    base = classes * classes
    confusion = sums[..., :base].reshape(*sums.shape[:-1], classes, classes)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    targets, decisions = confusion.sum(axis=-1), confusion.sum(axis=-2)
    rows = targets.sum(axis=-1)
    recall = _ratio(right, targets)
    f1 = np.where(targets > 0, _ratio(2 * right, targets + decisions), np.nan)
    confidence, hits = sums[..., base + 2 + BINS : base + 2 + 2 * BINS], sums[..., base + 2 + 2 * BINS :]
    scores = (
        _ratio(right.sum(axis=-1), rows),
        _mean(recall, -1),
        _mean(f1, -1),
        _ratio(np.abs(hits - confidence).sum(axis=-1), rows),
        _ratio(sums[..., base], rows),
        _ratio(sums[..., base + 1], rows),
    )
    return np.concatenate([np.stack(scores, axis=-1), recall], axis=-1)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Largest probabilities (N,), whether they are of the target (N,) → ECE, each row with weight one."""
    gaps = np.bincount(confidence_bins(confidence), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def ece_by_chance(confidence: np.ndarray, rng: np.random.Generator) -> float:
    """(N,) → the mean ECE of decisions that are right as often as their confidence says, each for itself. Clips of one
    speaker, and a clip in several rooms, hang together: the true figure is higher."""
    draws = (rng.random(len(confidence)) < confidence for _ in range(CHANCE_DRAWS))
    return float(np.mean([expected_calibration_error(confidence, right) for right in draws]))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Largest probability → its bin, 0 to BINS - 1; a bin includes its upper edge."""
    return np.asarray(np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1), dtype=np.intp)


def standard_error(spread: np.ndarray, units: int) -> float:
    """(R,) resampled values of `units` speakers → standard error; 0 where all are alike, NaN where undefined."""
    spread = spread[np.isfinite(spread)]
    if units < 2 or len(spread) < 2:
        return float("nan")
    error = float(spread.std(ddof=1) * np.sqrt(units / (units - 1)))
    return error if error > 1e-12 else 0.0


def interval(value: float, spread: np.ndarray, units: int, clips: float, level: float, kind: str = "share") -> Interval:
    """Interval of a value with its resampled values (R,), see the module's text. kind: share, or loss (0 or more).

    Where all speakers are alike the bootstrap sees no spread, which does not mean certainty (three speakers without
    an error): a share then takes the exact binomial interval over its clips (Clopper & Pearson, 1934).
    """
    value, error = float(value), standard_error(spread, units)
    if not np.isfinite(value) or not np.isfinite(error):
        return Interval(value)
    reach = float(special.stdtrit(units - 1, (1 + level) / 2)) * error
    if kind == "loss":
        return Interval(value, max(value - reach, 0.0), value + reach) if error else Interval(value)
    if error and 0 < value < 1:
        reach /= value * (1 - value)
        return Interval(value, *(float(special.expit(special.logit(value) + sign * reach)) for sign in (-1, 1)))
    right, tail = value * clips, (1 - level) / 2
    low = float(special.betaincinv(right, clips - right + 1, tail)) if value > 0 else 0.0
    high = float(special.betaincinv(right + 1, clips - right, 1 - tail)) if value < 1 else 1.0
    return Interval(value, low, high)


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def natural_order(names: pd.Series) -> list[str]:
    """Different names in the order people count: room 2 before room 10."""

    def parts(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]

    return sorted(set(names), key=lambda name: (parts(name), name))


def _all_scores(
    table: pd.DataFrame, sums: SpeakerSums, weights: np.ndarray, level: float
) -> tuple[Scores, dict[str, Scores], Scores]:
    """Overall, of each room, and the mean over rooms."""
    emotions = emotions_of(table)
    rooms = {}
    spread = []
    for room in sums.rooms:
        spread.append(values(weights @ sums.of_room[room]))
        rooms[room] = _scores(table[table["room"] == room], sums.of_room[room], spread[-1], emotions, level)
    overall = _scores(table, sums.overall, values(weights @ sums.overall), emotions, level)
    each = np.stack([values(room.sum(axis=0)) for room in sums.of_room.values()])
    return overall, rooms, _scores(table, sums.overall, _mean(np.stack(spread), 0), emotions, level, _mean(each, 0))


def _with_raw(scores: Scores, raw: Scores) -> Scores:
    return replace(scores, uncalibrated={name: getattr(raw, name) for name in LOSSES})


def _abstention(sums: SpeakerSums, weights: np.ndarray, below: float, clips: int, level: float) -> Abstention:
    each = sums.decided(below)
    (every, made, right), (every_r, made_r, right_r) = each.sum(axis=0), (weights @ each).T
    coverage, accuracy = float(made / every), float(_ratio(right, made))
    units = len(sums.speakers)
    return Abstention(
        below,
        interval(coverage, made_r / every_r, units, clips, level),
        interval(accuracy, _ratio(right_r, made_r), int((each[:, 1] > 0).sum()), clips * coverage, level),
    )


def _scores(
    table: pd.DataFrame,
    sums: np.ndarray,
    spread: np.ndarray,
    emotions: tuple[str, ...],
    level: float,
    value: np.ndarray | None = None,
) -> Scores:
    value = values(sums.sum(axis=0)) if value is None else value
    speakers, clips = table["speaker"].nunique(), table["clip"].nunique()
    scores = {
        name: interval(value[i], spread[:, i], speakers, clips, level, "share" if name in SHARES else "loss")
        for i, name in enumerate(SCORES)
    }
    units = table.groupby("target")[["speaker", "clip"]].nunique()
    recall = {
        emotion: interval(value[i], spread[:, i], units["speaker"][emotion], units["clip"][emotion], level)
        if emotion in units.index
        else Interval(float("nan"))
        for i, emotion in enumerate(emotions, start=len(SCORES))
    }
    return Scores(speakers=speakers, clips=clips, recall=recall, uncalibrated={}, **scores)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    empty = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.asarray(np.divide(part, whole, out=empty, where=whole > 0))


def _mean(array: np.ndarray, axis: int) -> np.ndarray:
    """Mean of those that are not NaN; NaN where none is left."""
    finite = np.isfinite(array)
    return _ratio(np.where(finite, array, 0).sum(axis=axis), finite.sum(axis=axis))
