"""Results as text: predictions as a table that a person reads, as JSON or CSV; accuracies per room. And as pictures:
what the model saw of a film."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from farfeel.files import replacing_file
from farfeel.media.footage import Footage
from farfeel.media.video import read_frames
from farfeel.types import Prediction

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from farfeel.evaluate.metrics import Interval, Metrics

Named = Sequence[tuple[Path, Prediction]]
BAR = 20  # characters for a probability of 1


def render(predictions: Named, checkpoint: str, form: str) -> str:
    """`form` is table, json or csv."""
    if form == "json":
        return json.dumps([as_dict(path, prediction, checkpoint) for path, prediction in predictions], indent=2)
    return as_csv(predictions) if form == "csv" else as_table(predictions)


def as_dict(path: Path, prediction: Prediction, checkpoint: str) -> dict[str, Any]:
    """What is told of one prediction; no probabilities, and no label, where nobody spoke."""
    return {
        "path": str(path),
        "start_s": round(prediction.start_s, 3),
        "end_s": round(prediction.end_s, 3),
        "label": prediction.label,
        "probabilities": {
            emotion: round(p, 6) for emotion, p in zip(prediction.emotions, prediction.probabilities, strict=False)
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
    writer.writerow(
        ["path", "start_s", "end_s", "label", *(f"p_{e}" for e in emotions), "modalities", "microphones", "warnings"]
    )
    for path, p in predictions:
        shares = [f"{probability:.6f}" for probability in p.probabilities]
        used = ["+".join(p.modalities), p.microphones, "; ".join(p.warnings)]
        writer.writerow([path, p.start_s, f"{p.end_s:.3f}", p.label, *shares, *used])
    return stream.getvalue().rstrip("\n")


def as_table(predictions: Named) -> str:
    """One block per recording: its label, and a bar for each emotion."""
    lines = []
    for path, prediction in predictions:
        took = [f"{prediction.microphones} microphone{'s' * (prediction.microphones != 1)}"] * bool(
            prediction.microphones
        )
        took += ["camera"] * ("video" in prediction.modalities)
        told = f"{prediction.label or 'undecided'} {prediction.confidence:.0%}"
        lines.append(f"{path}  ({prediction.end_s:.1f} s, {', '.join(took)}): {told}")
        for emotion, p in zip(prediction.emotions, prediction.probabilities, strict=True):
            lines.append(f"  {emotion:<10} {p:5.1%} {'█' * round(p * BAR)}")
        lines += [f"  warning: {warning}" for warning in prediction.warnings]
    return "\n".join(lines)


def write_views(folder: Path, name: str, footage: Footage) -> list[Path]:
    """What the model saw of a film: `NAME-face.png`, its frames side by side, a row for each view; and `NAME-crop.png`,
    the middle frame with the crop's square in it. Returns what was written."""
    rows = [np.concatenate(list(crop.pixels), axis=1) for crop in footage.crops]
    if not rows:
        return []
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    pictures = {f"{name}-face.png": sheet}
    middle_s = (footage.begin_s + footage.end_s) / 2
    whole = read_frames(footage.path, [middle_s + footage.offset_s]).pixels[0].copy()
    box = footage.crops[len(footage.crops) // 2].box
    if box is not None:
        left, top, side_x, side_y = (round(value) for value in box)
        cv2.rectangle(whole, (left, top), (left + side_x, top + side_y), (0, 255, 0), 2)
    pictures[f"{name}-crop.png"] = whole
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        with replacing_file(folder / name) as partial:
            partial.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    return [folder / name for name in pictures]


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
