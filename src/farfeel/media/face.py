"""Face detection with OpenCV, and the face crop: one square that stays at the same position for a whole window.

A box is (left, top, width, height) in pixels of the upright frame.

Sources: the Haar cascade (Viola and Jones, 2001), which OpenCV includes, and YuNet (Wu, Peng and Yu, 2023), which is
used if the user provides its model file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from farfeel.media.camera import fit
from farfeel.types import FACES, FarfeelError

SEARCHED_FRAMES = 5  # Faces are detected in this many frames of a window: a search takes longer than decoding a frame.
SEARCH_SIDES = (320, 480)  # Frames are reduced to the first longer side, in pixels; to the second if no face was found.
MIN_FACE = 24  # Smallest face in the reduced frame, in pixels. The cascade's own window is a little smaller.
SCALE_STEP = 1.2  # Ratio between the face sizes that Haar tries. It takes half the time of 1.1.
MIN_NEIGHBOURS = 4  # Overlapping hits that make a Haar face. With OpenCV's 3, hair and folds of clothes count as faces.
YUNET_CONFIDENCE = 0.7
NO_FACE = "no face found, the video is not used"
FACE_IN_PART = "a face is seen in part of the video; only that part is used"
SAME_FACE_IOU = 0.1  # Boxes of two searched frames are the same face if their intersection over union is larger.


@dataclass(frozen=True)
class Crop:
    """The face crop of a window.

    pixels: (N, size, size, 3) uint8.
    shows_face: (N,) bool, whether a face was found in the frame or in frames near it. Other frames show no face.
    box: The square that was cut out, margin included. None if whole frames are used.
    faces: Number of faces found.
    warnings: What the user should know about the crop.
    """

    pixels: np.ndarray
    shows_face: np.ndarray
    box: tuple[float, float, float, float] | None
    faces: int
    warnings: tuple[str, ...]


class FaceDetector:
    """Detects faces with OpenCV's Haar cascade for frontal faces, or with YuNet.

    Args:
        model: A YuNet model file, `face_detection_yunet_*.onnx`. None: the Haar cascade.

    Raises:
        FarfeelError: The model file cannot be read.
    """

    def __init__(self, model: Path | None = None) -> None:
        self._yunet = None if model is None else _yunet(Path(model))
        # The boxes of alt2 are steadier from frame to frame than those of `frontalface_default`.
        self._haar = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data/haarcascade_frontalface_alt2.xml"))

    def find(self, frame: np.ndarray) -> np.ndarray:
        """Detect the faces in one frame, (H, W, 3) uint8 RGB.

        Returns:
            (N, 4) float boxes of N faces, the largest first.
        """
        height, width = frame.shape[:2]
        boxes = np.zeros((0, 4))
        for side in SEARCH_SIDES:
            scale = min(1.0, side / max(height, width))
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
            boxes = self._detect(small) * np.tile([width / small.shape[1], height / small.shape[0]], 2)
            if len(boxes) or scale == 1:
                break
        return boxes[np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")]

    def _detect(self, picture: np.ndarray) -> np.ndarray:
        if self._yunet is None:
            grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
            boxes = self._haar.detectMultiScale(grey, SCALE_STEP, MIN_NEIGHBOURS, minSize=(MIN_FACE, MIN_FACE))
            return np.asarray(boxes, dtype=float).reshape(-1, 4)
        self._yunet.setInputSize((picture.shape[1], picture.shape[0]))
        _, faces = self._yunet.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return np.zeros((0, 4)) if faces is None else np.asarray(faces, dtype=float)[:, :4]


def crop_face(
    frames: np.ndarray, size: int, face: str = "largest", margin: float = 0.25, detector: FaceDetector | None = None
) -> Crop:
    """Cut one face out of all frames of a window, with one square. Without a face, the crop has whole frames.

    Args:
        frames: (N, H, W, 3) uint8 RGB.
        size: Side of the crop, in pixels.
        face: One of FACES: the largest, the leftmost or the rightmost face. `whole` uses whole frames.
        margin: Added to the face on each side, as a share of the face's size.
        detector: Default: the Haar cascade.

    Returns:
        The crop, with a warning if there are several faces or none.

    Raises:
        FarfeelError: `face` is not one of FACES.
    """
    if face not in FACES:
        raise FarfeelError(f"face is {face!r}, expected {', '.join(FACES)}; choose one of these")
    if face == "whole":
        return Crop(fit(frames, size), np.ones(len(frames), dtype=bool), None, 0, ())
    detector = detector or _haar_detector()
    searched = np.unique(np.linspace(0, len(frames) - 1, min(SEARCHED_FRAMES, len(frames))).round().astype(int))
    tracks = _tracks([detector.find(frames[index]) for index in searched])
    if not tracks:
        return Crop(fit(frames, size), np.zeros(len(frames), dtype=bool), None, 0, (NO_FACE,))
    # A false detection appears in few frames. A face appears in half of them, or as often as the most frequent track.
    min_boxes = min(max(len(track) for track in tracks), (len(searched) + 1) // 2)
    tracks = [track for track in tracks if len(track) >= min_boxes]
    if face == "largest":
        chosen = max(tracks, key=lambda track: sum(box[2] * box[3] for box in track.values()))
    else:
        outermost = max if face == "right" else min
        chosen = outermost(tracks, key=lambda track: float(np.median([box[0] + box[2] / 2 for box in track.values()])))
    left, top, width, height = np.median(list(chosen.values()), axis=0)
    side = max(width, height) * (1 + 2 * margin)
    box = _shift_inside(
        left + width / 2 - side / 2, top + height / 2 - side / 2, side, frames.shape[2], frames.shape[1]
    )
    used = "the largest" if face == "largest" else f"the {face}most"
    warnings = [f"{len(tracks)} faces found, {used} is used"] if len(tracks) > 1 else []
    shows_face = _near(len(frames), searched[list(chosen)], searched)
    if not shows_face.all():
        warnings.append(FACE_IN_PART)
    crops = np.stack([_cut(frame, box, size) for frame in frames])
    return Crop(crops, shows_face, box, len(tracks), tuple(warnings))


def _near(count: int, with_face: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """Which of `count` frames are near a frame in which the face was found → (count,) bool.

    A frame is near if it is no farther away than one searched frame is from the next: the search may miss a face in one
    frame, and a face that is missed in two in a row has gone.
    """
    step = int(np.diff(searched).max(initial=1))
    distance = np.abs(np.arange(count)[:, None] - with_face).min(axis=1)
    return np.asarray(distance <= step)


@cache
def _haar_detector() -> FaceDetector:
    """The default detector, made only once: reading the cascade takes ten milliseconds."""
    return FaceDetector()


def _yunet(model: Path) -> cv2.FaceDetectorYN:
    remedy = "name a face_detection_yunet_*.onnx file"
    if not model.is_file():
        raise FarfeelError(f"{model} is not a file, expected a YuNet model; {remedy}")
    try:
        return cv2.FaceDetectorYN.create(str(model), "", (SEARCH_SIDES[0], SEARCH_SIDES[0]), YUNET_CONFIDENCE)
    except cv2.error:
        raise FarfeelError(f"{model} cannot be read as a network, expected a YuNet model; {remedy}") from None


def _tracks(boxes_of_frames: list[np.ndarray]) -> list[dict[int, np.ndarray]]:
    """Boxes of each frame → for each face, frame → box. A box joins the track whose last box it overlaps most."""
    tracks: list[dict[int, np.ndarray]] = []
    for frame, boxes in enumerate(boxes_of_frames):
        open_tracks = list(tracks)
        for box in boxes:
            overlaps = [_overlap(track[max(track)], box) for track in open_tracks]
            if max(overlaps, default=0) > SAME_FACE_IOU:
                open_tracks.pop(int(np.argmax(overlaps)))[frame] = box
            else:
                tracks.append({frame: box})
    return tracks


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    width, height = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    common = max(width, 0.0) * max(height, 0.0)
    return float(common / (a[2] * a[3] + b[2] * b[3] - common))


def _shift_inside(left: float, top: float, side: float, width: int, height: int) -> tuple[float, float, float, float]:
    """A square, shifted into a frame of width × height. A square that is larger than the frame is centred."""
    left = min(max(left, 0.0), width - side) if side <= width else (width - side) / 2
    top = min(max(top, 0.0), height - side) if side <= height else (height - side) / 2
    return float(left), float(top), float(side), float(side)


def _cut(frame: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """(H, W, 3) → (size, size, 3). Areas outside the frame repeat its edge."""
    left, top, side = (round(value) for value in box[:3])
    side = max(side, 1)
    height, width = frame.shape[:2]
    inner = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    border = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(border):
        inner = cv2.copyMakeBorder(inner, *border, cv2.BORDER_REPLICATE)
    return cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
