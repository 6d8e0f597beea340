"""Reports of evaluations: `report.html` (one file that loads nothing from anywhere), `report.md` and `metrics.json`.

The page is made from the template `report.html.j2`, which escapes every value. Figures are SVG and tables. They take
their colours from the style sheet, so they follow the reader's light or dark mode, and screen readers can read them.
Colours are those of Okabe & Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from farfeel.evaluate.compare import LABELS, Comparison, compare, p_equals
from farfeel.evaluate.metrics import (
    BINS,
    Interval,
    Metrics,
    Scores,
    confidence_bins,
    metrics,
    natural_order,
)
from farfeel.evaluate.table import FILE, aligned, checked, emotions_of, probabilities_of, targets_of
from farfeel.support.files import replacing_folder
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

FILES = (FILE, "metrics.json", "report.md", "report.html")
FEW_SPEAKERS = 10  # below this the t quantile is 2.3 or more, and the width of an interval is only a rough estimate
DETAIL_NAMES = {"sound": "audio", "film": "video"}  # key in metrics.json → name in the reports
SIDE_BY_SIDE = ("accuracy", "uar")


@dataclass(frozen=True)
class Confusion:
    """counts: (K, K) rows of the table by target and decision. share: (K, K) of each target's rows, 0 to 1."""

    title: str
    counts: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability plot with at least one decision: its edges, number, mean confidence and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Cell:
    """One system in one room: its value, and its difference from the first system with a paired interval."""

    value: Interval
    difference: Interval | None
    p_text: str


def write_evaluation(
    table: pd.DataFrame,
    out: Path,
    title: str,
    details: Mapping[str, Any],
) -> Metrics:
    """Write predictions.parquet, metrics.json, report.md and report.html into the folder `out`, all four or none.

    table: the prediction table. details: facts for the section "Protocol" (corpus, split, checkpoint, …); `command` is
    the command line that reproduces the evaluation. Returns the metrics.
    Raises FarfeelError if the table is no prediction table, or if `out` holds anything but an earlier report.
    """
    out = require_report_folder(out)
    table = checked(table, source="the prediction table")
    results = metrics(table)
    page = {
        "title": title,
        "headline": _headline(results),
        "warning": _warning(results),
        "bias": _bias([results]),
        "metrics": results,
        "rows": _rows(results),
        "confusions": _confusions(table),
        "bins": reliability(table),
        "speakers": _speakers(table),
    }
    content = {
        "title": title,
        "details": _plain(details),
        **results.as_dict(),
        "comparisons": [],
    }
    with replacing_folder(out) as partial:
        table.to_parquet(partial / FILE, index=False)
        _write(partial, "evaluation", page, content, details, results)
    return results


def write_side_by_side(
    evaluations: Mapping[str, pd.DataFrame],
    out: Path,
    title: str,
    details: Mapping[str, Any],
    intersection: bool = False,
) -> dict[str, Metrics]:
    """Write metrics.json, report.md and report.html of several systems on the same clips and rooms into `out`.

    evaluations: name → prediction table, two or more. In the tables of the report, rows are rooms and columns are
    systems; each system is compared with the first, paired by speaker. title, details: as in `write_evaluation`.
    intersection: use only the rows that all systems have. Returns name → metrics.
    Raises FarfeelError if there are fewer than two systems, or if rows do not match without `intersection`.
    """
    out = require_report_folder(out)
    if len(evaluations) < 2:
        raise FarfeelError(
            f"found {len(evaluations)} evaluation(s), expected two or more; name every system to compare"
        )
    tables = aligned({name: checked(t, source=name) for name, t in evaluations.items()}, intersection)
    results = {name: metrics(table) for name, table in tables.items()}
    first, *others = tables
    comparisons = {
        metric: {name: compare(tables[first], tables[name], metric, names=(first, name)) for name in others}
        for metric in SIDE_BY_SIDE
    }
    page = {
        "title": title,
        "headline": _headline_of_many(results, comparisons["accuracy"]),
        "warning": _warning(results[first]),
        "bias": _bias(list(results.values())),
        "raw": any(system.overall.uncalibrated for system in results.values()),
        "metrics": results[first],
        "systems": list(tables),
        "grids": [(LABELS[metric], _grid(results, comparisons[metric], metric), metric) for metric in SIDE_BY_SIDE],
        "others": [(name, results[name].overall) for name in tables],
    }
    content = {
        "title": title,
        "details": _plain(details),
        "protocol": results[first].protocol.as_dict(),
        "first": first,
        "systems": {name: system.as_dict() for name, system in results.items()},
        "differences": {m: {name: c.as_dict() for name, c in by.items()} for m, by in comparisons.items()},
    }
    with replacing_folder(out) as partial:
        _write(partial, "side by side", page, content, details, results[first])
    return results


def require_report_folder(out: Path) -> Path:
    """The absolute path of a folder that a report may replace: it does not exist, is empty, or holds an earlier report.

    Raises FarfeelError for any other folder. A command that computes for long calls this first.
    """
    out = Path(out).resolve()
    if out.is_dir():
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in FILES)
    else:
        foreign = [out.name] if out.exists() else []
    if foreign:
        raise FarfeelError(
            f"{out} holds {foreign[0]}, which is not part of a report, expected a new folder or an earlier report; "
            "choose another --out"
        )
    return out


def reliability(table: pd.DataFrame) -> list[Bin]:
    """The calibration bins with at least one row, by the largest probability of each row."""
    p = probabilities_of(table)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == targets_of(table)
    at = confidence_bins(confidence)
    return [
        Bin(i / BINS, (i + 1) / BINS, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for i in range(BINS)
        if (inside := at == i).any()
    ]


def confusion(table: pd.DataFrame, title: str) -> Confusion:
    """The confusion matrix of a prediction table. Shares are NaN for an emotion that does not occur as target."""
    classes = len(emotions_of(table))
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets_of(table), probabilities_of(table).argmax(axis=1)), 1)
    total = counts.sum(axis=1, keepdims=True)
    return Confusion(title, counts, np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0))


def percent(interval: Interval) -> str:
    """62.3 (55.1 to 69.0), in per cent; a dash for NaN."""
    if not np.isfinite(interval.value):
        return "-"
    if not np.isfinite(interval.low):
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def points(interval: Interval) -> str:
    """+3.2 (+1.0 to +5.4), in percentage points."""
    if not np.isfinite(interval.low):
        return f"{100 * interval.value:+.1f}"
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def decimal(interval: Interval) -> str:
    """0.123 (0.101 to 0.145)."""
    if not np.isfinite(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def markdown(text: object) -> str:
    """Escape a text for one line or table cell of Markdown."""
    line = one_line(text)
    for mark in "\\`*_[]|":
        line = line.replace(mark, "\\" + mark)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _write(
    folder: Path, kind: str, page: dict[str, Any], content: dict[str, Any], details: Mapping[str, Any], results: Metrics
) -> None:
    """Write report.html, report.md and metrics.json. kind: "evaluation" or "side by side"."""
    shared = {
        "kind": kind,
        "protocol": _protocol_sentences(results),
        "details": {DETAIL_NAMES.get(key, key): value for key, value in _plain(details).items() if key != "command"},
        "command": str(details.get("command", "")),
    }
    for name in ("report.html", "report.md"):
        text = _templates().get_template(f"{name}.j2").render(**page, **shared)
        (folder / name).write_text(text, encoding="utf-8")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, points=points, decimal=decimal, md=markdown)
    environment.tests["finite"] = lambda number: bool(np.isfinite(number))
    return environment


def _headline(results: Metrics) -> str:
    overall, rooms = results.overall, results.rooms
    in_rooms = f"in {len(rooms)} rooms" if len(rooms) > 1 else f"in {next(iter(rooms))}"
    text = (
        f"{100 * overall.accuracy.value:.1f} % of the clips are recognised {in_rooms}"
        f"{_interval_text(overall.accuracy, results)}. "
        f"The average recall of the emotions (UAR) is {100 * overall.uar.value:.1f} %. "
    )
    if len(rooms) > 1:
        best, worst = (choose(rooms, key=lambda room: rooms[room].accuracy.value) for choose in (max, min))
        text += (
            f"The best room is {best} with {100 * rooms[best].accuracy.value:.1f} %, the worst is {worst} with "
            f"{100 * rooms[worst].accuracy.value:.1f} %. "
        )
    return f"{text}The test has {_speakers_text(results.protocol.speakers)} and {results.protocol.clips} clips."


def _headline_of_many(results: dict[str, Metrics], comparisons: dict[str, Comparison]) -> str:
    best = max(results, key=lambda name: results[name].overall.accuracy.value)
    accuracy, rooms = results[best].overall.accuracy, len(results[best].rooms)
    text = (
        f"{best} has the highest accuracy: {100 * accuracy.value:.1f} %{_interval_text(accuracy, results[best])}. "
        f"The test has {rooms} room{'s' * (rooms != 1)} and {_speakers_text(results[best].protocol.speakers)}. "
    )
    first, *others = results
    other = best if best != first else max(others, key=lambda name: results[name].overall.accuracy.value)
    row = comparisons[other].overall
    gap = f"{other} differs from {first} by {points(Interval(row.difference, row.low, row.high))} percentage points"
    if not np.isfinite(row.p_value):
        return f"{text}{gap}; one speaker is too few for a test."
    chance = row.p_value > 1 - comparisons[other].level
    return f"{text}{gap} ({p_equals(row.p_value)}){', which may be chance' * chance}."


def _interval_text(interval: Interval, results: Metrics) -> str:
    if not np.isfinite(interval.low):
        return ""
    level = f"{100 * results.protocol.level:g} %"
    return f" ({level} confidence interval {100 * interval.low:.1f} to {100 * interval.high:.1f} %)"


def _speakers_text(count: int) -> str:
    return f"{count} speaker{'s' * (count != 1)}"


def _warning(results: Metrics) -> str:
    """A note if there are few speakers, or nothing."""
    count = results.protocol.speakers
    if count == 1:
        return "One speaker only: the results say nothing about other speakers, so there are no intervals."
    if count < FEW_SPEAKERS:
        return (
            f"Only {count} speakers: the intervals are wide for this reason, and their width is only a rough estimate. "
            "More speakers would make them narrower; more clips of the same speakers would not."
        )
    return ""


def _bias(systems: Sequence[Metrics]) -> str:
    """How large the ECE would be for perfect probabilities: of one system, or the largest of several."""
    most = max(system.ece_by_chance for system in systems)
    of_which = "" if len(systems) == 1 else "up to "
    return (
        "Chance adds to the ECE, because some bins hold few clips. Perfectly calibrated probabilities would also have "
        f"an ECE of {of_which}{most:.3f} on average."
    )


def _protocol_sentences(results: Metrics) -> list[str]:
    protocol = results.protocol
    level = f"{100 * protocol.level:g} %"
    rooms = f"{len(protocol.rooms)} room{'s' * (len(protocol.rooms) != 1)}"
    return [
        f"{protocol.clips} clips of {_speakers_text(protocol.speakers)} in {rooms} give {protocol.rows} decisions. A "
        "decision is the emotion with the largest probability.",
        f"A {level} confidence interval is computed so that, in {level} of such tests, it contains the true value "
        "over all speakers of this kind. It does not cover other rooms, other corpora, or another training of the "
        f"model. Its standard error comes from {protocol.resamples} resamples of the speakers, each with all its "
        f"clips in all rooms (seed {protocol.seed}). Its width comes from the t distribution with "
        f"{max(protocol.speakers - 1, 0)} degrees of freedom.",
        "Overall, every clip has the same weight. UAR (unweighted average recall) and macro-F1 are means over the "
        f"emotions that occur. ECE (expected calibration error) has {BINS} bins of equal width.",
    ]


def _rows(results: Metrics) -> list[tuple[str, Scores]]:
    """Rows of the table of rooms: each room, the mean over rooms if it differs from overall, and overall."""
    if len(results.rooms) == 1:
        return list(results.rooms.items())
    rows = [*results.rooms.items()]
    if abs(results.mean_over_rooms.uar.value - results.overall.uar.value) > 5e-4:
        rows.append(("Mean over rooms", results.mean_over_rooms))
    return [*rows, ("All rooms", results.overall)]


def _confusions(table: pd.DataFrame) -> list[Confusion]:
    rooms = natural_order(table["room"])
    of_rooms = [confusion(table[table["room"] == room], room) for room in rooms]
    return of_rooms if len(rooms) == 1 else [confusion(table, "All rooms"), *of_rooms]


def _speakers(table: pd.DataFrame) -> list[tuple[str, float, int]]:
    """(speaker, accuracy over all rows, number of rows), the best first."""
    right = pd.Series(probabilities_of(table).argmax(axis=1) == targets_of(table), dtype=float)
    by = right.groupby(table["speaker"].to_numpy())
    speakers = [(str(speaker), float(value), int(by.size()[speaker])) for speaker, value in by.mean().items()]
    return sorted(speakers, key=lambda row: (-row[1], row[0]))


def _grid(results: dict[str, Metrics], comparisons: dict[str, Comparison], metric: str) -> list[tuple[str, list[Cell]]]:
    """Rows of the side-by-side table: (room, one cell per system)."""
    rooms = list(next(iter(results.values())).rooms)
    rows = [] if len(rooms) == 1 else ["All rooms"]
    grid = []
    for room in rooms + rows:
        cells = []
        for name, system in results.items():
            scores = system.overall if room in rows else system.rooms[room]
            difference, p_text = None, ""
            if name in comparisons:
                both = comparisons[name]
                row = both.overall if room in rows else both.rooms[rooms.index(room)]
                difference = Interval(row.difference, row.low, row.high)
                p_text = p_equals(row.p_value if room in rows else row.p_holm)
            cells.append(Cell(getattr(scores, metric), difference, p_text))
        grid.append((room, cells))
    return grid


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details for JSON: numbers, text and lists stay, everything else becomes text."""
    return {
        str(key): value
        if isinstance(value, (str, int, float, bool)) and value == value
        else [str(item) for item in value]
        if isinstance(value, (list, tuple))
        else str(value)
        for key, value in details.items()
    }
