"""A timeline as a file: JSON or CSV with one entry per window, a Praat TextGrid, WebVTT subtitles, a page to look at.

Windows overlap. What cannot hold overlaps (TextGrid, subtitles, the page) is told in intervals of one step, each of
which takes the window whose centre is nearest to its own; those of the same label side by side are one episode.
Silence, and what was not decided, has no label.
"""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from farfeel.show.predictions import as_dict
from farfeel.support.files import replacing_file
from farfeel.types import FarfeelError, Prediction, Timeline

Timelines = Sequence[tuple[Path, Timeline]]
MAX_COLUMNS = 880  # of the page: as many as its plot has points; a longer recording is averaged into these.
MAX_ROWS = 500  # of the page's table of episodes
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


@dataclass(frozen=True)
class Interval:
    """A span with the window that speaks for it; None where nothing was classified."""

    start_s: float
    end_s: float
    prediction: Prediction | None


@dataclass(frozen=True)
class Episode:
    """Intervals of the same label side by side; `confidence` is their mean, "" the label where there is none."""

    start_s: float
    end_s: float
    label: str
    confidence: float


def intervals(timeline: Timeline) -> list[Interval]:
    """Intervals of one step that tile 0 to `seconds`; the last may be shorter."""
    count = max(1, ceil(timeline.seconds / timeline.step_s - 1e-6)) if timeline.seconds > 0 else 0
    edges = [index * timeline.step_s for index in range(count)] + [timeline.seconds]
    centres = [(each.start_s + each.end_s) / 2 for each in timeline.predictions]
    found = []
    for start_s, end_s in pairwise(edges):
        prediction = None
        if centres:
            middle_s = (start_s + end_s) / 2
            right = bisect_left(centres, middle_s)
            near = [index for index in (right - 1, right) if 0 <= index < len(centres)]
            nearest = timeline.predictions[min(near, key=lambda index: abs(centres[index] - middle_s))]
            prediction = nearest if nearest.probabilities else None
        found.append(Interval(start_s, end_s, prediction))
    return found


def episodes(timeline: Timeline) -> list[Episode]:
    """Episodes that tile 0 to `seconds`, labelled or not."""
    found = []
    for label, group in groupby(intervals(timeline), key=lambda each: _label(each.prediction)):
        parts = list(group)
        sure = [each.prediction.confidence for each in parts if each.prediction and label]
        found.append(Episode(parts[0].start_s, parts[-1].end_s, label, float(np.mean(sure)) if sure else 0.0))
    return found


def as_json(path: Path, timeline: Timeline, checkpoint: str) -> str:
    return _json([(path, timeline)], checkpoint)


def as_csv(path: Path, timeline: Timeline, checkpoint: str) -> str:
    return _csv([(path, timeline)], checkpoint)


def as_textgrid(path: Path, timeline: Timeline, checkpoint: str) -> str:
    """Praat's long text form, with the interval tiers `speech` and `emotion`."""
    speech: list[tuple[float, float, str]] = []
    last_s = 0.0
    for start_s, end_s in timeline.speech:
        start_s, end_s = max(start_s, last_s), min(end_s, timeline.seconds)
        if start_s < end_s:
            speech += [(last_s, start_s, ""), (start_s, end_s, "speech")]
            last_s = end_s
    speech.append((last_s, timeline.seconds, ""))
    tiers = {"speech": speech, "emotion": [(each.start_s, each.end_s, each.label) for each in episodes(timeline)]}
    end = _decimal(timeline.seconds)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, parts) in enumerate(tiers.items(), start=1):
        told = [(_decimal(a), _decimal(b), text) for a, b, text in parts if _decimal(a) != _decimal(b)]
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(told)}"]
        for at, (a, b, text) in enumerate(told, start=1):
            lines += [f"        intervals [{at}]:", f"            xmin = {a}", f"            xmax = {b}"]
            lines.append(f"            text = {_quoted(text)}")
    return "\n".join(lines)


def as_webvtt(path: Path, timeline: Timeline, checkpoint: str) -> str:
    """A cue for each labelled episode, with its confidence."""
    cues = ["WEBVTT"]
    for each in episodes(timeline):
        start, end = _vtt_time(each.start_s), _vtt_time(each.end_s)
        if each.label and start != end:
            text = each.label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            cues.append(f"{start} --> {end}\n{text} {100 * each.confidence:.0f} %")
    return "\n\n".join(cues)


def as_html(path: Path, timeline: Timeline, checkpoint: str) -> str:
    """One page that asks nothing of any network: probabilities, labels and speech over time."""
    emotions = timeline.predictions[0].emotions if timeline.predictions else ()
    parts = intervals(timeline)
    thinned = max(1, ceil(len(parts) / MAX_COLUMNS))
    columns = [_column(parts[at : at + thinned]) for at in range(0, len(parts), thinned)]
    told = [each for each in episodes(timeline) if each.label]
    lengths: dict[str, float] = {}
    for each in told:
        lengths[each.label] = lengths.get(each.label, 0.0) + each.end_s - each.start_s
    warnings = Counter(warning for each in timeline.predictions for warning in dict.fromkeys(each.warnings))
    tick_s = next((step for step in TICKS_S if timeline.seconds / step <= TICKS), 3600 * ceil(timeline.seconds / 36000))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    return environment.get_template("timeline.html.j2").render(
        name=path.name,
        checkpoint=checkpoint,
        timeline=timeline,
        window=timeline.predictions[0] if timeline.predictions else None,
        colours=colours_of(emotions),
        areas={emotion: _area(columns, at) for at, emotion in enumerate(emotions)},
        strip=_strip(columns),
        columns=[
            [round(c.start_s, 3), round(c.end_s, 3), c.label, *(round(100 * p) for p in c.probabilities)]
            for c in columns
        ],
        thinned=thinned,
        ticks=[at * tick_s for at in range(int(timeline.seconds / tick_s + 1e-6) + 1)],
        spoken=_speech(timeline, columns, thinned),
        spoken_s=sum(end_s - start_s for start_s, end_s in timeline.speech),
        lengths=lengths,
        undecided=any(column.label is None for column in columns),
        episodes=told[:MAX_ROWS],
        more=max(0, len(told) - MAX_ROWS),
        warnings=warnings,
    )


FORMATS: dict[str, Callable[[Path, Timeline, str], str]] = {
    "csv": as_csv,
    "json": as_json,
    "html": as_html,
    "textgrid": as_textgrid,
    "vtt": as_webvtt,
}
"""By suffix, without its dot and in lower case: (path of the recording, timeline, checkpoint) → text."""


def colours_of(emotions: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(fill, ink) of each: its own, else one that none of the others has, else grey."""
    free = [colour for emotion, colour in COLOURS.items() if emotion not in emotions]
    return {emotion: COLOURS.get(emotion) or (free.pop() if free else ("#bbbbbb", "#000")) for emotion in emotions}


def format_of(out: Path) -> str:
    """The form that a file's name asks for, of FORMATS."""
    form = out.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise FarfeelError(
            f"{out} ends in {out.suffix or 'no suffix'}, expected .csv, .json, .html, .TextGrid or .vtt; "
            "name the file so that it tells its form"
        )
    return form


def write_timeline(out: Path, path: Path, timeline: Timeline, checkpoint: str) -> None:
    """Write the timeline of the recording `path` to `out`, in the form that its suffix tells."""
    text = FORMATS[format_of(out)](path, timeline, checkpoint)
    with replacing_file(out) as partial:
        partial.write_text(text + "\n", encoding="utf-8", newline="\n")


def render_timelines(found: Timelines, checkpoint: str, form: str) -> str:
    """Several timelines as one text; `form` is table, json or csv."""
    if form == "json":
        return _json(found, checkpoint)
    return _csv(found, checkpoint) if form == "csv" else "\n".join(_table(*each) for each in found)


def clock(time_s: float, decimals: int = 0) -> str:
    """Seconds → m:ss, h:mm:ss from an hour on."""
    units = round(time_s * 10**decimals)
    minutes, rest = divmod(units, 60 * 10**decimals)
    seconds = f"{rest / 10**decimals:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{minutes // 60}:{minutes % 60:02}:{seconds}" if minutes >= 60 else f"{minutes}:{seconds}"


def _label(prediction: Prediction | None) -> str:
    return (prediction.label or "") if prediction else ""


def _rows(found: Timelines, checkpoint: str) -> list[dict[str, Any]]:
    """What `predict` tells of a recording, for each window, and the share of it in which somebody speaks."""
    rows = []
    for path, timeline in found:
        for each in timeline.predictions:
            row = as_dict(path, each, checkpoint)
            share = None if each.speech_share is None else round(each.speech_share, 3)
            rows.append(row | {"speech_share": share})
    return rows


def _json(found: Timelines, checkpoint: str) -> str:
    return json.dumps(_rows(found, checkpoint), indent=2, ensure_ascii=False, allow_nan=False)


def _csv(found: Timelines, checkpoint: str) -> str:
    """The columns of `predict`'s table, and speech_share; cells are empty where there is nothing to say."""
    emotions = next((each.emotions for _, timeline in found for each in timeline.predictions), ())
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["path", "start_s", "end_s", "label", *(f"p_{emotion}" for emotion in emotions)]
    writer.writerow([*head, "modalities", "microphones", "warnings", "speech_share"])
    for row in _rows(found, checkpoint):
        given = row["probabilities"]
        shares = [f"{given[emotion]:.6f}" if emotion in given else "" for emotion in emotions]
        used = ["+".join(row["modalities"]), row["microphones"], "; ".join(row["warnings"]), row["speech_share"]]
        writer.writerow([row["path"], row["start_s"], f"{row['end_s']:.3f}", row["label"], *shares, *used])
    return stream.getvalue().rstrip("\n")


def _table(path: Path, timeline: Timeline) -> str:
    """A line for each episode."""
    told = [each for each in episodes(timeline) if each.label]
    lines = [f"{path}  ({clock(timeline.seconds)}, every {timeline.step_s:g} s)"]
    for each in told:
        lines.append(
            f"  {clock(each.start_s, 1):>9} to {clock(each.end_s, 1):<9}  {each.label:<10} {each.confidence:.0%}"
        )
    warnings = dict.fromkeys(warning for each in timeline.predictions for warning in each.warnings)
    return "\n".join([*lines, *(["  no emotion told"] * (not told)), *(f"  warning: {each}" for each in warnings)])


def _decimal(time_s: float) -> str:
    return f"{time_s:.6f}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _vtt_time(time_s: float) -> str:
    seconds, milliseconds = divmod(round(1000 * time_s), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"


@dataclass(frozen=True)
class Column:
    """What the page draws side by side: mean probabilities (K,) or () in silence; label "" in silence, None where
    undecided."""

    start_s: float
    end_s: float
    label: str | None
    probabilities: tuple[float, ...]


def _column(parts: list[Interval]) -> Column:
    """One interval or several as one: silent where most of them are."""
    start_s, end_s = parts[0].start_s, parts[-1].end_s
    told = [part.prediction for part in parts if part.prediction]
    if 2 * len(told) < len(parts):
        return Column(start_s, end_s, "", ())
    label = Counter(prediction.label for prediction in told).most_common(1)[0][0]
    mean = np.mean([prediction.probabilities for prediction in told], axis=0)
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
    """(start_s, end_s, label) of columns alike side by side, without silence."""
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
