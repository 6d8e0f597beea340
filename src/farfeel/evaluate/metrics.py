"""Accuracy, unweighted average recall, macro-F1, recalls and calibration, with intervals over speakers.

Definitions, for N rows (clip and room), K emotions, probabilities p and the decision argmax p:
  accuracy   share of decisions that are right
  UAR        recall averaged over the emotions that occur as targets (balanced accuracy)
  macro-F1   F1 averaged over the same emotions
  ECE        expected calibration error, 15 bins of equal width of the largest probability (Guo et al., 2017). In a bin
             with few rows, chance moves the share of right decisions, and every distance counts as error. So the ECE
             is above 0 even for perfect probabilities, most with few rows; `ece_by_chance` is this amount.
  NLL        mean of -ln p(target), p no smaller than 1e-12
  Brier      mean over rows of the sum over emotions of (p - 1[target])^2, from 0 to 2 (Brier, 1950)

If the table has probabilities before calibration (`q_<emotion>`), the last three are computed for them too, as
`ece_uncalibrated` and so on. Abstention: no decision is made if the largest probability is below a threshold. The
coverage is the share of clips with a decision; the accuracy counts only these.

Overall, each clip has weight one, shared among its rooms. `mean_over_rooms` gives each room weight one instead.

Intervals. Clips of one speaker are not independent, so speakers are resampled, each with all its clips in all rooms.
The percentile bootstrap is too narrow with few units (Hesterberg, 2015, The American Statistician 69(4)): with three
speakers it never reaches beyond the best and the worst. So the interval is a t interval with n - 1 degrees of freedom
around the value. Its standard error is the bootstrap's times sqrt(n / (n - 1)), which corrects the bias of its
variance. Intervals of shares are computed on the logit scale, which keeps them within 0 and 1.

Coverage in per cent of a nominal 95 % interval, by number of speakers and true accuracy. Speakers differ by a standard
deviation of 0.6 on the logit scale and have 48 clips each in two rooms. With 400 tables, the standard error is about 1
at 95 % and 2.5 at 60 %.

                       this interval      of macro-F1    percentile, speakers   percentile, clips
  3 speakers, 53 %         94.5              95.3               73.3                  56.0
  7 speakers, 53 %         95.8              95.5               87.5                  53.3
  21 speakers, 53 %        94.3              94.3               92.3                  54.0
  3 speakers, 86 %         94.8              95.0               73.0                  63.5
  7 speakers, 86 %         95.0              94.8               84.0                  62.8
  21 speakers, 86 %        95.3              95.5               91.3                  59.8

`PYTHONPATH=src python tests/evaluate/test_coverage.py` measures this again. The coverage of single recalls and of the
calibration measures was not measured.
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
RESAMPLES = 4000  # the standard error of a standard error is then 1.1 % (1/sqrt(2 R))
LEVEL = 0.95
SEED = 1
SHARES = ("accuracy", "uar", "macro_f1")  # 0 to 1, higher is better; recall too
LOSSES = ("ece", "nll", "brier")  # lower is better
SCORES = ("accuracy", "uar", "macro_f1", "ece", "nll", "brier")
SMALLEST = 1e-12
ABSTAIN_BELOW = (0.3, 0.4, 0.5, 0.6, 0.7)
CHANCE_DRAWS = 200  # the mean ECE by chance is then known to a few per cent


@dataclass(frozen=True)
class Interval:
    """A value and its interval. The bounds are NaN if there is one speaker; the value is NaN if the class is absent."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def as_dict(self) -> dict[str, float | None]:
        return {name: number(getattr(self, name)) for name in ("value", "low", "high")}


@dataclass(frozen=True)
class Protocol:
    """How the intervals were computed, and the size of the test."""

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
    """Results without decisions below a threshold.

    below: no decision is made if the largest probability is lower. coverage: share of clips with a decision. accuracy:
    of these.
    """

    below: float
    coverage: Interval
    accuracy: Interval

    def as_dict(self) -> dict[str, Any]:
        return {"below": self.below, "coverage": self.coverage.as_dict(), "accuracy": self.accuracy.as_dict()}


@dataclass(frozen=True)
class Scores:
    """All metrics of one room, or of all rooms. uncalibrated: the LOSSES before calibration, empty if unknown."""

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
    """All metrics of a prediction table.

    overall: each clip has the same weight. rooms: each room, in natural order. mean_over_rooms: each room has the same
    weight. ece_by_chance: the mean overall ECE that perfectly calibrated probabilities of the same size would have.
    """

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
            "abstention": [threshold.as_dict() for threshold in self.abstention],
            "ece_by_chance": self.ece_by_chance,
        }


def metrics(table: pd.DataFrame, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED) -> Metrics:
    """All metrics of a prediction table with their intervals, in each room and overall.

    level: of the intervals, as 0.95. resamples: of the bootstrap. seed: of the resamples.
    Raises FarfeelError if it is no prediction table.
    """
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
    """Sums over each speaker's rows. Every metric is a function of them, so that a bootstrap is a matrix product.

    The sums are (S, D) for S speakers: the confusion matrix (K·K, target by decision), the sums of -ln p(target) and of
    the Brier terms (2), and for each calibration bin the count, the sum of confidence and the number of right decisions
    (3·BINS). The order of the table's rows does not matter.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.speakers = natural_order(table["speaker"])
        self.rooms = natural_order(table["room"])
        self._table = table
        self._share = (1 / table.groupby("clip")["room"].transform("size")).to_numpy()

    @cached_property
    def overall(self) -> np.ndarray:
        """(S, D), each clip with weight one, shared among its rooms."""
        return self._sums(np.ones(len(self._table), dtype=bool), self._share)

    @cached_property
    def of_room(self) -> dict[str, np.ndarray]:
        """Room → (S, D), each row with weight one."""
        room, ones = self._table["room"].to_numpy(), np.ones(len(self._table))
        return {name: self._sums(room == name, ones) for name in self.rooms}

    def decided(self, below: float) -> np.ndarray:
        """(S, 3): summed weights of all rows, of those with at least this confidence, and of the right ones of "
        "these."""
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

    def _sums(self, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        table, weight = self._table[rows], weight[rows]
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
    """(…, D) sums → (…, 6 + K): SCORES in their order, then the recall of each emotion. NaN if it has no target."""
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
    """Expected calibration error, each row with weight one.

    confidence: (N,) largest probabilities. right: (N,) whether the decision is the target.
    """
    gaps = np.bincount(confidence_bins(confidence), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def ece_by_chance(confidence: np.ndarray, rng: np.random.Generator) -> float:
    """The mean expected calibration error of decisions that are right exactly as often as their confidence says.

    confidence: (N,) largest probabilities. Decisions are drawn independently; clips of one speaker, and one clip in
    several rooms, are not independent, so the true value is higher.
    """
    draws = (rng.random(len(confidence)) < confidence for _ in range(CHANCE_DRAWS))
    return float(np.mean([expected_calibration_error(confidence, right) for right in draws]))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """(N,) largest probabilities → (N,) bins, 0 to BINS - 1. A bin includes its upper edge."""
    return np.asarray(np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1), dtype=np.intp)


def standard_error(spread: np.ndarray, units: int) -> float:
    """Standard error of (R,) resampled values of `units` speakers; 0 if all are equal, NaN if it is undefined."""
    spread = spread[np.isfinite(spread)]
    if units < 2 or len(spread) < 2:
        return float("nan")
    error = float(spread.std(ddof=1) * np.sqrt(units / (units - 1)))
    return error if error > 1e-12 else 0.0


def interval(value: float, spread: np.ndarray, units: int, clips: float, level: float, kind: str = "share") -> Interval:
    """A value with its interval; the method is described at the top of this module.

    spread: (R,) resampled values. units: number of speakers. clips: number of clips. level: of the interval, as 0.95.
    kind: "share" for values from 0 to 1, "loss" for values of 0 or more.

    If all speakers are equal, for instance three speakers without an error, the bootstrap has no spread. This does not
    mean certainty, so a share then gets the exact binomial interval over its clips (Clopper & Pearson, 1934).
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
    """The value, or None for NaN and infinity, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def natural_order(names: pd.Series) -> list[str]:
    """The different names, sorted with numbers by value: room 2 before room 10."""

    def parts(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]

    return sorted(set(names), key=lambda name: (parts(name), name))


def _all_scores(
    table: pd.DataFrame, sums: SpeakerSums, weights: np.ndarray, level: float
) -> tuple[Scores, dict[str, Scores], Scores]:
    """Scores overall, of each room, and as the mean over rooms."""
    emotions = emotions_of(table)
    rooms = {}
    spread = []
    for room in sums.rooms:
        spread.append(values(weights @ sums.of_room[room]))
        rooms[room] = _scores(table[table["room"] == room], sums.of_room[room], spread[-1], emotions, level)
    overall = _scores(table, sums.overall, values(weights @ sums.overall), emotions, level)
    of_rooms = np.stack([values(room.sum(axis=0)) for room in sums.of_room.values()])
    return overall, rooms, _scores(table, sums.overall, _mean(np.stack(spread), 0), emotions, level, _mean(of_rooms, 0))


def _with_raw(scores: Scores, raw: Scores) -> Scores:
    return replace(scores, uncalibrated={name: getattr(raw, name) for name in LOSSES})


def _abstention(sums: SpeakerSums, weights: np.ndarray, below: float, clips: int, level: float) -> Abstention:
    decided = sums.decided(below)
    (every, made, right), (every_r, made_r, right_r) = decided.sum(axis=0), (weights @ decided).T
    coverage, accuracy = float(made / every), float(_ratio(right, made))
    units = len(sums.speakers)
    return Abstention(
        below,
        interval(coverage, made_r / every_r, units, clips, level),
        interval(accuracy, _ratio(right_r, made_r), int((decided[:, 1] > 0).sum()), clips * coverage, level),
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


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    empty = np.full(np.broadcast(part, total).shape, np.nan)
    return np.asarray(np.divide(part, total, out=empty, where=total > 0))


def _mean(array: np.ndarray, axis: int) -> np.ndarray:
    """Mean without NaN; NaN if all are NaN."""
    finite = np.isfinite(array)
    return _ratio(np.where(finite, array, 0).sum(axis=axis), finite.sum(axis=axis))
