"""Faces in film frames: found by OpenCV, and cut out as one square that stands still for the whole window.

Boxes are left, top, width, height in pixels of the upright frame. The Haar cascade (Viola and Jones, 2001) comes with
OpenCV; YuNet (Wu, Peng and Yu, 2023) is used where the user has its model file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from farfeel.media.camera import fit
from farfeel.types import FACES, FarfeelError

LOOKS = 5  # frames of a window that are searched: a face moves little between them, and a look costs more than a frame
SIDES = (320, 480)  # pixels of the longer side to search in: time goes with the area. The second where none was found.
SMALLEST = 24  # pixels: a fourteenth of the width at 320, and a little more than the cascade's own window
STEP = 1.2  # between the sizes of face that Haar tries: half the time of 1.1, and the median smooths what it costs
NEIGHBOURS = 4  # Overlapping hits that make a Haar face: with OpenCV's 3, hair and folds of clothes are faces too.
CONFIDENCE = 0.7  # of a YuNet face
SAME = 0.1  # Boxes of two looks that overlap by more (intersection over union) are one face that moves.


@dataclass(frozen=True)
class Crop:
    """pixels (N, size, size, 3) uint8. `box`: where they were cut out, with its margin; None where they are whole
    pictures. `faces`: how many were seen."""

    pixels: np.ndarray
    box: tuple[float, float, float, float] | None
    faces: int
    warnings: tuple[str, ...]


class FaceDetector:
    """Haar's frontal faces; YuNet's where `model`, a file `face_detection_yunet_*.onnx`, is given."""

    def __init__(self, model: Path | None = None) -> None:
        self._yunet = None if model is None else _yunet(Path(model))
        # Its boxes keep their place and size from frame to frame better than those of `frontalface_default`.
        self._haar = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data/haarcascade_frontalface_alt2.xml"))

    def find(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB → (F, 4) float boxes, the largest first."""
        height, width = frame.shape[:2]
        boxes = np.zeros((0, 4))
        for side in SIDES:
            scale = min(1.0, side / max(height, width))
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
            boxes = self._search(small) * np.tile([width / small.shape[1], height / small.shape[0]], 2)
            if len(boxes) or scale == 1:
                break
        return boxes[np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")]

    def _search(self, picture: np.ndarray) -> np.ndarray:
        if self._yunet is None:
            grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
            found = self._haar.detectMultiScale(grey, STEP, NEIGHBOURS, minSize=(SMALLEST, SMALLEST))
            return np.asarray(found, dtype=float).reshape(-1, 4)
        self._yunet.setInputSize((picture.shape[1], picture.shape[0]))
        _, faces = self._yunet.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return np.zeros((0, 4)) if faces is None else np.asarray(faces, dtype=float)[:, :4]


def crop_face(
    frames: np.ndarray, size: int, face: str = "largest", margin: float = 0.25, detector: FaceDetector | None = None
) -> Crop:
    """frames (N, H, W, 3) uint8 RGB → the face in all of them through one square window, (N, size, size, 3).

    `face` is one of FACES: the largest, the leftmost or the rightmost one; `whole` takes the whole picture. `margin` is
    added on each side, relative to the face. Without a face it is the whole picture, with a warning.
    """
    if face not in FACES:
        raise FarfeelError(f"there is no face {face!r}, expected {', '.join(FACES)}; name one of these")
    if face == "whole":
        return Crop(fit(frames, size), None, 0, ())
    detector = detector or _haar()
    looks = np.unique(np.linspace(0, len(frames) - 1, min(LOOKS, len(frames))).round().astype(int))
    seen = [detector.find(frames[look]) for look in looks]
    tracks = _tracks(seen)
    if not tracks:
        return Crop(fit(frames, size), None, 0, ("no face found, the whole picture is used",))
    # What is seen once in a while is a shadow: a face is there in half of the looks, or as often as the best.
    often = min(max(len(track) for track in tracks), (len(looks) + 1) // 2)
    tracks = [track for track in tracks if len(track) >= often]
    if face == "largest":
        chosen = max(tracks, key=lambda track: sum(box[2] * box[3] for box in track))
    else:
        ends = max if face == "right" else min
        chosen = ends(tracks, key=lambda track: float(np.median([box[0] + box[2] / 2 for box in track])))
    left, top, width, height = np.median(chosen, axis=0)
    side = max(width, height) * (1 + 2 * margin)
    box = _inside(left + width / 2 - side / 2, top + height / 2 - side / 2, side, frames.shape[2], frames.shape[1])
    which = "the largest" if face == "largest" else f"the {face}most"
    warnings = (f"{len(tracks)} faces found, {which} is used",) if len(tracks) > 1 else ()
    return Crop(np.stack([_cut(frame, box, size) for frame in frames]), box, len(tracks), warnings)


@cache
def _haar() -> FaceDetector:
    """One for all films whose caller brings none: reading the cascade takes ten milliseconds."""
    return FaceDetector()


def _yunet(model: Path) -> cv2.FaceDetectorYN:
    remedy = "name a face_detection_yunet_*.onnx file"
    if not model.is_file():
        raise FarfeelError(f"{model} is no file, expected a YuNet model; {remedy}")
    try:
        return cv2.FaceDetectorYN.create(str(model), "", (SIDES[0], SIDES[0]), CONFIDENCE)
    except cv2.error:
        raise FarfeelError(f"{model} cannot be read as a network, expected a YuNet model; {remedy}") from None


def _tracks(seen: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Boxes of each frame → one list of boxes per face; a box joins the face whose last box it overlaps most."""
    tracks: list[list[np.ndarray]] = []
    for boxes in seen:
        free = list(tracks)
        for box in boxes:
            overlaps = [_overlap(track[-1], box) for track in free]
            if max(overlaps, default=0) > SAME:
                free.pop(int(np.argmax(overlaps))).append(box)
            else:
                tracks.append([box])
    return tracks


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    width, height = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    common = max(width, 0.0) * max(height, 0.0)
    return float(common / (a[2] * a[3] + b[2] * b[3] - common))


def _inside(left: float, top: float, side: float, width: int, height: int) -> tuple[float, float, float, float]:
    """The square, shifted into a picture of width × height as far as it fits."""
    left = min(max(left, 0.0), width - side) if side <= width else (width - side) / 2
    top = min(max(top, 0.0), height - side) if side <= height else (height - side) / 2
    return float(left), float(top), float(side), float(side)


def _cut(frame: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """(H, W, 3) → (size, size, 3); outside the picture its edge is repeated."""
    left, top, side = (round(value) for value in box[:3])
    side = max(side, 1)
    height, width = frame.shape[:2]
    inner = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    beyond = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(beyond):
        inner = cv2.copyMakeBorder(inner, *beyond, cv2.BORDER_REPLICATE)
    return cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
