"""Compare two evaluations on the same clips and rooms: is one better than the other?

Two tests of the difference b - a:

1. Over speakers: would the difference appear again with other speakers? Speakers are resampled with all their clips,
   the same draw for both evaluations. The difference has a t interval and a t test with n - 1 degrees of freedom; its
   standard error is that of the bootstrap, as in `metrics`.
2. McNemar's test (1947): are the rows on which only one evaluation is right split evenly? It is an exact binomial test
   and assumes independent rows. Clips of one speaker, and one clip in several rooms, are not independent, so it only
   describes the speakers of the test.

P values of rooms are corrected for the number of rooms by Holm's method (1979). How often the first test calls two
equally good systems different at p < 0.05 (400 pairs each, standard error about 1 %):

    speakers   different
           3       5.8 %
           7       6.3 %
          21       5.5 %

`PYTHONPATH=src python tests/evaluate/test_coverage.py` measures this again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from farfeel.evaluate.metrics import (
    LEVEL,
    LOSSES,
    RESAMPLES,
    SCORES,
    SEED,
    SHARES,
    SpeakerSums,
    number,
    standard_error,
    values,
)
from farfeel.evaluate.table import aligned, checked, probabilities_of, targets_of
from farfeel.types import FarfeelError

LABELS = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1", "ece": "ECE", "nll": "NLL", "brier": "Brier"}


@dataclass(frozen=True)
class Difference:
    """The difference b - a in one room or overall.

    low, high: its interval. p_value: of the test over speakers. p_holm: the same, corrected for the number of rooms
    (NaN overall). only_a_right, only_b_right: rows on which only one is right. mcnemar_p: p of McNemar's test. Values
    that cannot be estimated, because there is one speaker, are NaN.
    """

    room: str
    rows: int
    speakers: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    only_a_right: int
    only_b_right: int
    mcnemar_p: float

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON numbers and text; null for NaN."""
        return {key: number(value) if isinstance(value, float) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Comparison:
    """The comparison of two evaluations on the same rows. names: of a and b. level: of the intervals, as 0.95."""

    metric: str
    names: tuple[str, str]
    level: float
    resamples: int
    seed: int
    clips: int
    overall: Difference
    rooms: tuple[Difference, ...]

    def as_dict(self) -> dict[str, Any]:
        """What `farfeel compare --format json` prints."""
        protocol = {
            "level": self.level,
            "unit": "speaker",
            "speakers": self.overall.speakers,
            "clips": self.clips,
            "rows": self.overall.rows,
            "rooms": [row.room for row in self.rooms],
            "resamples": self.resamples,
            "seed": self.seed,
            "correction": "Holm over rooms",
        }
        return {
            "protocol": protocol,
            "metric": self.metric,
            "a": self.names[0],
            "b": self.names[1],
            "overall": self.overall.as_dict(),
            "rooms": {row.room: row.as_dict() for row in self.rooms},
        }

    def rows(self) -> list[dict[str, str]]:
        """The table to print: a row for each room, then overall. Accuracy, UAR and F1 are in per cent."""
        a, b = self.names
        scale, digits = (100.0, 1) if self.metric in SHARES else (1.0, 3)
        table = []
        for row in (*self.rooms, self.overall) if len(self.rooms) > 1 else (self.overall,):
            p = row.p_value if row is self.overall else row.p_holm
            table.append(
                {
                    "room": row.room,
                    "rows": str(row.rows),
                    a: f"{scale * row.a:.{digits}f}",
                    b if b != a else f"{b} (2)": f"{scale * row.b:.{digits}f}",
                    "difference": f"{scale * row.difference:+.{digits}f}",
                    f"{100 * self.level:g} % interval": span(scale * row.low, scale * row.high, digits),
                    "p" if len(self.rooms) < 2 else "p (rooms: corrected)": p_text(p),
                    "only first : only second right": f"{row.only_a_right} : {row.only_b_right}",
                    "p (McNemar)": p_text(row.mcnemar_p),
                }
            )
        return table

    def verdict(self) -> str:
        """The result in one sentence."""
        a, b = self.names
        label, row = LABELS[self.metric], self.overall
        speakers = f"{row.speakers} speaker{'s' * (row.speakers != 1)}"
        if not np.isfinite(row.p_value):
            return f"{a} and {b} cannot be compared by {label}: found {speakers}, expected 2 or more."
        if row.p_value > 1 - self.level:
            return (
                f"The difference in {label} between {a} and {b} may be chance "
                f"({p_equals(row.p_value)} over {speakers}). This does not prove that they are equal."
            )
        better = b if (row.difference < 0) == (self.metric in LOSSES) else a
        worse = a if better == b else b
        return f"{better} has a better {label} than {worse} ({p_equals(row.p_value)} over {speakers})."

    def as_text(self) -> str:
        """The table as plain text, the result in one sentence, and what the tests assume."""
        table = self.rows()
        widths = {key: max(len(key), *(len(row[key]) for row in table)) for key in table[0]}
        lines = ["  ".join(key.ljust(width) for key, width in widths.items())]
        lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()) for row in table]
        return "\n".join([*(line.rstrip() for line in lines), "", self.verdict(), caveat()])


def caveat() -> str:
    """What the two tests assume."""
    return (
        "The interval and p come from resampling speakers; p of rooms is corrected for the number of rooms (Holm). "
        "McNemar's test compares the numbers of rows on which only the first or only the second is right. It assumes "
        "independent rows; clips of one speaker are not independent."
    )


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str = "accuracy",
    *,
    names: tuple[str, str] = ("A", "B"),
    intersection: bool = False,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Paired comparison of two prediction tables: the difference b - a in each room and overall.

    a, b: prediction tables on the same clips and rooms. metric: accuracy, uar, macro_f1, ece, nll or brier.
    names: of a and b in texts. intersection: use only the rows that both have. level: of the intervals.
    resamples, seed: of the bootstrap. Raises FarfeelError for an unknown metric, or if rows do not match.
    """
    if metric not in SCORES:
        raise FarfeelError(f"the metric {metric} is unknown, expected one of {', '.join(SCORES)}; choose one of them")
    if names[0] == names[1]:
        names = (names[0], f"{names[1]} (2)")
    a, b = checked(a, source=names[0]), checked(b, source=names[1])
    a, b = aligned({names[0]: a, names[1]: b}, intersection).values()
    at = SCORES.index(metric)
    sums_a, sums_b = SpeakerSums(a), SpeakerSums(b)
    weights = sums_a.draw(np.random.default_rng(seed), resamples)  # one draw for both: speakers are paired
    right_a, right_b = _right(a), _right(b)

    def difference(room: str, rows: np.ndarray, in_a: np.ndarray, in_b: np.ndarray) -> Difference:
        """Of the chosen rows (N,) bool, with the sums of speakers (S, D) in a and b."""
        value_a, value_b = float(values(in_a.sum(axis=0))[at]), float(values(in_b.sum(axis=0))[at])
        spread = values(weights @ in_b)[:, at] - values(weights @ in_a)[:, at]
        units = a["speaker"][rows].nunique()
        low, high, p_value = t_test(value_b - value_a, standard_error(spread, units), units, level)
        only_a, only_b = int((right_a & ~right_b)[rows].sum()), int((right_b & ~right_a)[rows].sum())
        return Difference(
            room, int(rows.sum()), units, value_a, value_b, value_b - value_a, low, high, p_value, float("nan"),
            only_a, only_b, mcnemar(only_a, only_b),
        )  # fmt: skip

    room = a["room"].to_numpy()
    rooms = [difference(name, room == name, sums_a.of_room[name], sums_b.of_room[name]) for name in sums_a.rooms]
    corrected = holm([row.p_value for row in rooms])
    overall = difference("all rooms", np.ones(len(a), dtype=bool), sums_a.overall, sums_b.overall)
    return Comparison(
        metric, names, level, resamples, seed, a["clip"].nunique(), overall,
        tuple(replace(row, p_holm=p) for row, p in zip(rooms, corrected, strict=True)),
    )  # fmt: skip


def mcnemar(only_a_right: int, only_b_right: int) -> float:
    """Exact two-sided p of McNemar's test, from the numbers of rows on which only a or only b is right."""
    discordant = only_a_right + only_b_right
    return min(1.0, float(2 * special.bdtr(min(only_a_right, only_b_right), discordant, 0.5)))


def holm(p_values: list[float]) -> list[float]:
    """P values corrected for their number (Holm, 1979), in the same order. NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = largest
    return [float(value) for value in corrected]


def p_text(p: float) -> str:
    """0.012, < 0.001, or a dash for NaN."""
    if not np.isfinite(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """p = 0.012, p < 0.001, or nothing for NaN."""
    if not np.isfinite(p):
        return ""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def span(low: float, high: float, digits: int) -> str:
    """+1.2 to +3.4, or a dash if there is no interval."""
    return f"{low:+.{digits}f} to {high:+.{digits}f}" if np.isfinite(low) and np.isfinite(high) else "-"


def t_test(difference: float, error: float, units: int, level: float) -> tuple[float, float, float]:
    """(low, high, two-sided p) of a difference with this standard error over `units` speakers.

    If the difference is the same for all speakers, the standard error is 0: there is no interval (NaN), and p is that
    of the sign test over speakers. If the difference is 0 as well, p is 1.
    """
    if not np.isfinite(error):
        return float("nan"), float("nan"), float("nan")
    if error == 0:
        return (0.0, 0.0, 1.0) if difference == 0 else (float("nan"), float("nan"), 2.0 ** (1 - units))
    reach = float(special.stdtrit(units - 1, (1 + level) / 2)) * error
    return difference - reach, difference + reach, float(2 * special.stdtr(units - 1, -abs(difference) / error))


def _right(table: pd.DataFrame) -> np.ndarray:
    return np.asarray(probabilities_of(table).argmax(axis=1) == targets_of(table))
