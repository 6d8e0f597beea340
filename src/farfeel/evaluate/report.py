"""Evaluations as pages: `report.html` (one file, no request to anywhere), `report.md`, `metrics.json`.

The page is filled from `report.html.j2`, where every value is escaped; its figures are SVG and tables that take their
colours from the style sheet, so they follow the reader's light or dark mode and can be read aloud. Colours are those
of Okabe & Ito, which colour-blind readers can tell apart.
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
FEW_SPEAKERS = 10  # below it the t quantile is 2.3 and more: the width of an interval is itself a rough guess
SIDE_BY_SIDE = ("accuracy", "uar")


@dataclass(frozen=True)
class Confusion:
    """counts (K, K) rows of the table by target and decision; share of each target's rows, 0 to 1."""

    title: str
    counts: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Bin:
    """One occupied bin of the reliability plot."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Cell:
    """One system in one room: its value, and its difference to the first system with its paired interval."""

    value: Interval
    difference: Interval | None
    p_text: str


def write_evaluation(
    table: pd.DataFrame,
    out: Path,
    title: str,
    details: Mapping[str, Any],
) -> Metrics:
    """Write predictions.parquet, metrics.json, report.md and report.html into the folder `out`, all or nothing.

    details: what the protocol should say (corpus, split, checkpoint, …); `command` gives the evaluation again.
    Raises FarfeelError where the table is not one, or `out` holds anything but an earlier report.
    """
    out = require_report_folder(out)
    table = checked(table, source="the prediction table")
    found = metrics(table)
    page = {
        "title": title,
        "headline": _headline(found),
        "warning": _warning(found),
        "bias": _bias([found]),
        "metrics": found,
        "rows": _rows(found),
        "confusions": _confusions(table),
        "bins": reliability(table),
        "speakers": _speakers(table),
    }
    content = {
        "title": title,
        "details": _plain(details),
        **found.as_dict(),
        "comparisons": [],
    }
    with replacing_folder(out) as partial:
        table.to_parquet(partial / FILE, index=False)
        _write(partial, "evaluation", page, content, details, found)
    return found


def write_side_by_side(
    evaluations: Mapping[str, pd.DataFrame],
    out: Path,
    title: str,
    details: Mapping[str, Any],
    intersection: bool = False,
) -> dict[str, Metrics]:
    """Write metrics.json, report.md and report.html of several systems on the same clips and rooms into `out`.

    Rows are rooms, columns systems; each is compared with the first, paired by speaker. With `intersection` the rows
    that all have are used; without it FarfeelError where rows do not match.
    """
    out = require_report_folder(out)
    if len(evaluations) < 2:
        raise FarfeelError(
            f"found {len(evaluations)} evaluation(s), expected two or more; name all to set side by side"
        )
    tables = aligned({name: checked(t, source=name) for name, t in evaluations.items()}, intersection)
    found = {name: metrics(table) for name, table in tables.items()}
    first, *others = tables
    comparisons = {
        metric: {name: compare(tables[first], tables[name], metric, names=(first, name)) for name in others}
        for metric in SIDE_BY_SIDE
    }
    page = {
        "title": title,
        "headline": _headline_of_many(found, comparisons["accuracy"]),
        "warning": _warning(found[first]),
        "bias": _bias(list(found.values())),
        "raw": any(one.overall.uncalibrated for one in found.values()),
        "metrics": found[first],
        "systems": list(tables),
        "grids": [(LABELS[metric], _grid(found, comparisons[metric], metric), metric) for metric in SIDE_BY_SIDE],
        "others": [(name, found[name].overall) for name in tables],
    }
    content = {
        "title": title,
        "details": _plain(details),
        "protocol": found[first].protocol.as_dict(),
        "first": first,
        "systems": {name: one.as_dict() for name, one in found.items()},
        "differences": {m: {name: c.as_dict() for name, c in by.items()} for m, by in comparisons.items()},
    }
    with replacing_folder(out) as partial:
        _write(partial, "side by side", page, content, details, found[first])
    return found


def require_report_folder(out: Path) -> Path:
    """`out`, made absolute, if a report may take its place: new, empty, or an earlier report; else FarfeelError.

    Called by the writers, and by whoever computes for long before there is a table to write.
    """
    out = Path(out).resolve()
    if out.is_dir():
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in FILES)
    else:
        foreign = [out.name] if out.exists() else []
    if foreign:
        raise FarfeelError(
            f"{out} holds {foreign[0]}, which is no part of a report; expected a new folder or an earlier report; "
            "choose another --out"
        )
    return out


def reliability(table: pd.DataFrame) -> list[Bin]:
    """Occupied calibration bins over all rows, by the largest probability."""
    p = probabilities_of(table)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == targets_of(table)
    at = confidence_bins(confidence)
    return [
        Bin(i / BINS, (i + 1) / BINS, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for i in range(BINS)
        if (inside := at == i).any()
    ]


def confusion(table: pd.DataFrame, title: str) -> Confusion:
    """Counts of target by decision, and their share of the target's rows (NaN for an emotion that does not occur)."""
    classes = len(emotions_of(table))
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets_of(table), probabilities_of(table).argmax(axis=1)), 1)
    total = counts.sum(axis=1, keepdims=True)
    return Confusion(title, counts, np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0))


def percent(interval: Interval) -> str:
    """As in 62.3 (55.1 to 69.0), in per cent."""
    if not np.isfinite(interval.value):
        return "-"
    if not np.isfinite(interval.low):
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def points(interval: Interval) -> str:
    """As in +3.2 (+1.0 to +5.4), in percentage points."""
    if not np.isfinite(interval.low):
        return f"{100 * interval.value:+.1f}"
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def decimal(interval: Interval) -> str:
    if not np.isfinite(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line: neither HTML nor a table's end."""
    line = one_line(text)
    for mark in "\\`*_[]|":
        line = line.replace(mark, "\\" + mark)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _write(
    folder: Path, kind: str, page: dict[str, Any], content: dict[str, Any], details: Mapping[str, Any], found: Metrics
) -> None:
    shared = {
        "kind": kind,
        "protocol": _protocol_sentences(found),
        "details": {key: value for key, value in _plain(details).items() if key != "command"},
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


def _headline(found: Metrics) -> str:
    overall, protocol = found.overall, found.protocol
    where = f"in {len(found.rooms)} rooms" if len(found.rooms) > 1 else f"in {next(iter(found.rooms))}"
    text = (
        f"{100 * overall.accuracy.value:.1f} % of the clips are recognised {where}"
        f"{_interval_words(overall.accuracy, found)}; "
        f"the average recall of an emotion (UAR) is {100 * overall.uar.value:.1f} %"
    )
    if len(found.rooms) > 1:
        best, worst = (choose(found.rooms, key=lambda r: found.rooms[r].accuracy.value) for choose in (max, min))
        low, high = (100 * found.rooms[r].accuracy.value for r in (worst, best))
        text += f"; from {low:.1f} % in {worst} to {high:.1f} % in {best}"
    return f"{text}. {_speakers_words(protocol.speakers).capitalize()}, {protocol.clips} clips."


def _headline_of_many(found: dict[str, Metrics], comparisons: dict[str, Comparison]) -> str:
    best = max(found, key=lambda name: found[name].overall.accuracy.value)
    overall = found[best].overall.accuracy
    text = (
        f"{best} has the highest accuracy, {100 * overall.value:.1f} %{_interval_words(overall, found[best])}, over "
        f"{len(found[best].rooms)} room{'s' * (len(found[best].rooms) != 1)} and "
        f"{_speakers_words(found[best].protocol.speakers)}. "
    )
    first, *others = found
    other = best if best != first else max(others, key=lambda name: found[name].overall.accuracy.value)
    row = comparisons[other].overall
    gap = points(Interval(row.difference, row.low, row.high))
    if not np.isfinite(row.p_value):
        return text + f"{other} differs from {first} by {gap} points; one speaker is too few for a test."
    text += f"{other} differs from {first} by {gap} points ({p_equals(row.p_value)})"
    return text + ("." if row.p_value <= 1 - comparisons[other].level else ", which may be chance.")


def _interval_words(interval: Interval, found: Metrics) -> str:
    if not np.isfinite(interval.low):
        return ""
    return f" ({100 * found.protocol.level:g} % interval {100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _speakers_words(count: int) -> str:
    return f"{count} speaker{'s' * (count != 1)}"


def _warning(found: Metrics) -> str:
    count = found.protocol.speakers
    if count == 1:
        return "One speaker only: nothing can be said about others, so there are no intervals."
    if count < FEW_SPEAKERS:
        return (
            f"Only {count} speakers: the intervals allow for it, and are wide for it, but their width is itself a "
            "rough guess. More clips of the same speakers would not help; more speakers would."
        )
    return ""


def _bias(found: Sequence[Metrics]) -> str:
    most = max(one.ece_by_chance for one in found)
    whose = "these probabilities" if len(found) == 1 else "any of these"
    return (
        "A bin with few clips is off by chance, and the ECE counts that as error: were "
        f"{whose} perfectly calibrated, it would still be {'' if len(found) == 1 else 'up to '}{most:.3f} on average."
    )


def _protocol_sentences(found: Metrics) -> list[str]:
    protocol = found.protocol
    level = f"{100 * protocol.level:g} %"
    rooms = f"{len(protocol.rooms)} room{'s' * (len(protocol.rooms) != 1)}"
    return [
        f"{protocol.clips} clips of {_speakers_words(protocol.speakers)} in {rooms}: {protocol.rows} decisions, each "
        "the emotion of largest probability.",
        f"The interval says where the value would lie for other speakers of this kind, with {level} confidence: "
        f"{protocol.resamples} resamples of whole speakers with all their clips in all rooms (seed {protocol.seed}) "
        f"give the standard error, and the t distribution with {max(protocol.speakers - 1, 0)} degrees of freedom the "
        "width. It does not cover other rooms, other corpora, or another training of the model.",
        "Overall, every clip has the same weight. UAR is the recall averaged over the emotions that occur; F1 is "
        f"averaged over the same. ECE, the expected calibration error, takes {BINS} bins of equal width.",
    ]


def _rows(found: Metrics) -> list[tuple[str, Scores]]:
    """Rows of the table of rooms: each room, the mean over rooms where that differs from overall, overall."""
    if len(found.rooms) == 1:
        return list(found.rooms.items())
    rows = [*found.rooms.items()]
    if abs(found.mean_over_rooms.uar.value - found.overall.uar.value) > 5e-4:
        rows.append(("Mean over rooms", found.mean_over_rooms))
    return [*rows, ("All rooms", found.overall)]


def _confusions(table: pd.DataFrame) -> list[Confusion]:
    rooms = natural_order(table["room"])
    each = [confusion(table[table["room"] == room], room) for room in rooms]
    return each if len(rooms) == 1 else [confusion(table, "All rooms"), *each]


def _speakers(table: pd.DataFrame) -> list[tuple[str, float, int]]:
    """(speaker, accuracy over all rows, rows), the best first."""
    right = pd.Series(probabilities_of(table).argmax(axis=1) == targets_of(table), dtype=float)
    by = right.groupby(table["speaker"].to_numpy())
    found = [(str(speaker), float(value), int(by.size()[speaker])) for speaker, value in by.mean().items()]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _grid(found: dict[str, Metrics], comparisons: dict[str, Comparison], metric: str) -> list[tuple[str, list[Cell]]]:
    """Rows of the side-by-side table: (room, one cell per system)."""
    rooms = list(next(iter(found.values())).rooms)
    rows = [] if len(rooms) == 1 else ["All rooms"]
    grid = []
    for room in rooms + rows:
        cells = []
        for name, one in found.items():
            scores = one.overall if room in rows else one.rooms[room]
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
    """Details as JSON can hold them: numbers, text and lists stay, all else becomes text."""
    return {
        str(key): value
        if isinstance(value, (str, int, float, bool)) and value == value
        else [str(item) for item in value]
        if isinstance(value, (list, tuple))
        else str(value)
        for key, value in details.items()
    }
