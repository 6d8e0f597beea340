"""Results as text: predictions as a table that a person reads, as JSON or CSV; accuracies per room."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from farfeel.evaluate.metrics import Interval, Metrics
from farfeel.types import Prediction

Named = Sequence[tuple[Path, Prediction]]
BAR = 20  # characters for a probability of 1


def render(predictions: Named, checkpoint: str, form: str) -> str:
    """`form` is table, json or csv."""
    if form == "json":
        return json.dumps([as_dict(path, prediction, checkpoint) for path, prediction in predictions], indent=2)
    return as_csv(predictions) if form == "csv" else as_table(predictions)


def as_dict(path: Path, prediction: Prediction, checkpoint: str) -> dict[str, Any]:
    return {
        "path": str(path),
        "start_s": prediction.start_s,
        "end_s": round(prediction.end_s, 3),
        "label": prediction.label,
        "probabilities": {
            emotion: round(p, 6) for emotion, p in zip(prediction.emotions, prediction.probabilities, strict=True)
        },
        "modalities": list(prediction.modalities),
        "microphones": prediction.microphones,
        "checkpoint": checkpoint,
        "warnings": list(prediction.warnings),
    }


def as_csv(predictions: Named) -> str:
    emotions = predictions[0][1].emotions if predictions else ()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "start_s", "end_s", "label", *(f"p_{e}" for e in emotions), "microphones", "warnings"])
    for path, p in predictions:
        shares = [f"{probability:.6f}" for probability in p.probabilities]
        writer.writerow([path, p.start_s, f"{p.end_s:.3f}", p.label, *shares, p.microphones, "; ".join(p.warnings)])
    return stream.getvalue().rstrip("\n")


def as_table(predictions: Named) -> str:
    """One block per recording: its label, and a bar for each emotion."""
    lines = []
    for path, prediction in predictions:
        heard = f"{prediction.microphones} microphone{'s' * (prediction.microphones != 1)}"
        best = max(prediction.probabilities)
        lines.append(f"{path}  ({prediction.end_s:.1f} s, {heard}): {prediction.label} {best:.0%}")
        for emotion, p in zip(prediction.emotions, prediction.probabilities, strict=True):
            lines.append(f"  {emotion:<10} {p:5.1%} {'█' * round(p * BAR)}")
        lines += [f"  warning: {warning}" for warning in prediction.warnings]
    return "\n".join(lines)


def systems_table(systems: Mapping[str, Metrics]) -> str:
    """Accuracy per room in per cent, with its interval; a column for each system."""
    first = next(iter(systems.values()))
    rows = [["accuracy, %", *systems]]
    for room in first.rooms:
        rows.append([room, *(_percent(found.rooms[room].accuracy) for found in systems.values())])
    if len(first.rooms) > 1:
        rows.append(["mean over rooms", *(_percent(found.mean_over_rooms.accuracy) for found in systems.values())])
    rows.append(["UAR, overall", *(_percent(found.overall.uar) for found in systems.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    protocol = first.protocol
    lines.append(f"[{protocol.level:.0%} interval over {protocol.speakers} speakers; {protocol.clips} clips]")
    return "\n".join(lines)


def _percent(interval: Interval) -> str:
    if interval.low != interval.low:  # one speaker: no interval
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
