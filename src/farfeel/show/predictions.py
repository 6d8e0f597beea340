"""Predictions as a table for people, as JSON or as CSV; and the frames of a video that the model got, as pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from farfeel.media.face_video import FaceVideo
from farfeel.media.video import read_frames
from farfeel.support.files import replacing_file
from farfeel.types import Prediction

Named = Sequence[tuple[Path, Prediction]]
BAR = 20  # characters for a probability of 1


def render(predictions: Named, checkpoint: str, form: str) -> str:
    """`form` is table, json or csv."""
    if form == "json":
        return json.dumps([as_dict(path, prediction, checkpoint) for path, prediction in predictions], indent=2)
    return as_csv(predictions) if form == "csv" else as_table(predictions)


def as_dict(path: Path, prediction: Prediction, checkpoint: str) -> dict[str, Any]:
    """The JSON object of one prediction."""
    return prediction.to_dict(path, checkpoint)


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
        used = [f"{prediction.microphones} microphone{'s' * (prediction.microphones != 1)}"] * bool(
            prediction.microphones
        )
        used += ["camera"] * ("video" in prediction.modalities)
        decision = f"{prediction.label or 'undecided'} {prediction.confidence:.0%}"
        lines.append(f"{path}  ({prediction.end_s:.1f} s, {', '.join(used)}): {decision}")
        for emotion, p in zip(prediction.emotions, prediction.probabilities, strict=True):
            lines.append(f"  {emotion:<10} {p:5.1%} {'█' * round(p * BAR)}")
        lines += [f"  warning: {warning}" for warning in prediction.warnings]
    return "\n".join(lines)


def write_views(folder: Path, name: str, footage: FaceVideo) -> list[Path]:
    """Write the frames of a video that the model got; the files that were written.

    `NAME-face.png` shows the cropped frames side by side, a row for each view. `NAME-crop.png` shows the middle frame
    with the square of the crop.
    """
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
