"""A timeline as a file: JSON or CSV with one entry per window, a Praat TextGrid, WebVTT subtitles, an HTML page.

Windows overlap. The formats that cannot hold overlaps (TextGrid, subtitles, the page) show intervals of one step. Each
interval takes the window with the nearest centre. Neighbouring intervals with the same label are one episode. Silence
and undecided windows have no label.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from farfeel.show.drawing import STYLE, columns_of, draw, environment, thinning
from farfeel.show.intervals import clock, episodes, label_seconds
from farfeel.show.predictions import as_dict
from farfeel.types import FarfeelError, Timeline

Timelines = Sequence[tuple[Path, Timeline]]
MAX_ROWS = 500  # of the table of episodes on the page


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
    labels = [(episode.start_s, episode.end_s, episode.label) for episode in episodes(timeline)]
    tiers = {"speech": speech, "emotion": labels}
    end = _decimal(timeline.seconds)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, parts) in enumerate(tiers.items(), start=1):
        longer = [(_decimal(a), _decimal(b), text) for a, b, text in parts if _decimal(a) != _decimal(b)]
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(longer)}"]
        for at, (a, b, text) in enumerate(longer, start=1):
            lines += [f"        intervals [{at}]:", f"            xmin = {a}", f"            xmax = {b}"]
            lines.append(f"            text = {_quoted(text)}")
    return "\n".join(lines)


def as_webvtt(path: Path, timeline: Timeline, checkpoint: str) -> str:
    """A cue for each labelled episode, with its confidence."""
    cues = ["WEBVTT"]
    for episode in episodes(timeline):
        start, end = _vtt_time(episode.start_s), _vtt_time(episode.end_s)
        if episode.label and start != end:
            text = episode.label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            cues.append(f"{start} --> {end}\n{text} {100 * episode.confidence:.0f} %")
    return "\n\n".join(cues)


def as_html(path: Path, timeline: Timeline, checkpoint: str) -> str:
    """One page that needs nothing from any other host: probabilities, labels and speech over time."""
    emotions = timeline.predictions[0].emotions if timeline.predictions else ()
    labelled = [episode for episode in episodes(timeline) if episode.label]
    return (
        environment()
        .get_template("timeline.html.j2")
        .render(
            name=path.name,
            checkpoint=checkpoint,
            timeline=timeline,
            window=timeline.predictions[0] if timeline.predictions else None,
            style=STYLE,
            drawing=draw(timeline, emotions),
            emotions=list(emotions),
            columns=[
                [round(c.start_s, 3), round(c.end_s, 3), c.label, *(round(100 * p) for p in c.probabilities)]
                for c in columns_of(timeline)
            ],
            thinned=thinning(timeline),
            spoken_s=sum(end_s - start_s for start_s, end_s in timeline.speech),
            lengths=label_seconds(timeline),
            episodes=labelled[:MAX_ROWS],
            more=max(0, len(labelled) - MAX_ROWS),
            warnings=Counter(warning for window in timeline.predictions for warning in dict.fromkeys(window.warnings)),
        )
    )


FORMATS: dict[str, Callable[[Path, Timeline, str], str]] = {
    "csv": as_csv,
    "json": as_json,
    "html": as_html,
    "textgrid": as_textgrid,
    "vtt": as_webvtt,
}
"""By suffix, without its dot and in lower case: (path of the recording, timeline, checkpoint) → text."""


def format_of(out: Path) -> str:
    """The format that the suffix of a file's name means, one of FORMATS."""
    form = out.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise FarfeelError(
            f"{out} ends in {out.suffix or 'no suffix'}, expected .csv, .json, .html, .TextGrid or .vtt; "
            "give the file one of these suffixes"
        )
    return form


def render_timelines(timelines: Timelines, checkpoint: str, form: str) -> str:
    """Several timelines as one text; `form` is table, json or csv."""
    if form == "json":
        return _json(timelines, checkpoint)
    return _csv(timelines, checkpoint) if form == "csv" else "\n".join(_table(*timeline) for timeline in timelines)


def _rows(timelines: Timelines, checkpoint: str) -> list[dict[str, Any]]:
    """For each window the row of `predict`, and the share of the window in which somebody speaks."""
    rows = []
    for path, timeline in timelines:
        for window in timeline.predictions:
            row = as_dict(path, window, checkpoint)
            share = None if window.speech_share is None else round(window.speech_share, 3)
            rows.append(row | {"speech_share": share})
    return rows


def _json(timelines: Timelines, checkpoint: str) -> str:
    return json.dumps(_rows(timelines, checkpoint), indent=2, ensure_ascii=False, allow_nan=False)


def _csv(timelines: Timelines, checkpoint: str) -> str:
    """The columns of `predict`'s table, and speech_share; a cell without a value is empty."""
    emotions = next((window.emotions for _, timeline in timelines for window in timeline.predictions), ())
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["path", "start_s", "end_s", "label", *(f"p_{emotion}" for emotion in emotions)]
    writer.writerow([*head, "modalities", "microphones", "warnings", "speech_share"])
    for row in _rows(timelines, checkpoint):
        probabilities = row["probabilities"]
        shares = [f"{probabilities[emotion]:.6f}" if emotion in probabilities else "" for emotion in emotions]
        used = ["+".join(row["modalities"]), row["microphones"], "; ".join(row["warnings"]), row["speech_share"]]
        writer.writerow([row["path"], row["start_s"], f"{row['end_s']:.3f}", row["label"], *shares, *used])
    return stream.getvalue().rstrip("\n")


def _table(path: Path, timeline: Timeline) -> str:
    """A line for each episode."""
    labelled = [episode for episode in episodes(timeline) if episode.label]
    lines = [f"{path}  ({clock(timeline.seconds)}, every {timeline.step_s:g} s)"]
    for episode in labelled:
        span = f"{clock(episode.start_s, 1):>9} to {clock(episode.end_s, 1):<9}"
        lines.append(f"  {span}  {episode.label:<10} {episode.confidence:.0%}")
    warnings = dict.fromkeys(warning for window in timeline.predictions for warning in window.warnings)
    return "\n".join(
        [*lines, *(["  no emotion recognised"] * (not labelled)), *(f"  warning: {warning}" for warning in warnings)]
    )


def _decimal(time_s: float) -> str:
    return f"{time_s:.6f}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _vtt_time(time_s: float) -> str:
    seconds, milliseconds = divmod(round(1000 * time_s), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"
