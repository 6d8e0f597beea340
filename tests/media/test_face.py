"""Laws of the face crop: one square that does not move, on the right face, with a warning where that is uncertain."""

import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.media.camera import fit
from farfeel.media.face import FaceDetector, crop_face
from farfeel.media.video import read_frames
from farfeel.types import FACES, FarfeelError

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data")).resolve()
VIDEOS = sorted((DATA / "ravdess-av").rglob("*.mp4"))
real = pytest.mark.skipif(not VIDEOS, reason="no RAVDESS videos here")


class FixedDetector(FaceDetector):
    """Returns given boxes: the same for every frame, or one list for each searched frame."""

    def __init__(self, *boxes: list[tuple[float, ...]]) -> None:
        self.boxes = list(boxes)

    def find(self, frame: np.ndarray) -> np.ndarray:
        boxes = self.boxes[0] if len(self.boxes) == 1 else self.boxes.pop(0)
        return np.array(boxes, dtype=float).reshape(-1, 4)


def picture(height: int = 120, width: int = 200) -> np.ndarray:
    """(H, W, 3) whose red is the column and green the row: the colour of a pixel is its position."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, 9)], axis=-1).astype(np.uint8)


def video(count: int = 8) -> np.ndarray:
    return np.repeat(picture()[None], count, axis=0)


def test_the_face_with_its_margin_fills_the_crop() -> None:
    crop = crop_face(video(), 40, margin=0.25, detector=FixedDetector([(60, 30, 40, 40)]))
    assert crop.box == (50, 20, 60, 60)
    assert (crop.faces, crop.warnings) == (1, ())
    assert crop.pixels.shape == (8, 40, 40, 3)
    np.testing.assert_allclose(crop.pixels[:, 0, 0, :2], [[50, 20]] * 8, atol=2)
    np.testing.assert_allclose(crop.pixels[:, -1, -1, :2], [[109, 79]] * 8, atol=2)


@given(
    box=st.tuples(st.floats(-20, 190), st.floats(-20, 110), st.floats(5, 250), st.floats(5, 250)),
    size=st.sampled_from([1, 32, 112]),
    margin=st.floats(0, 1),
)
@settings(max_examples=60)
def test_any_box_gives_a_square_of_the_requested_size(box: tuple[float, ...], size: int, margin: float) -> None:
    crop = crop_face(video(2), size, margin=margin, detector=FixedDetector([box]))
    assert crop.pixels.shape == (2, size, size, 3)
    assert crop.pixels.dtype == np.uint8
    assert crop.box is not None
    left, top, width, height = crop.box
    assert width == height == pytest.approx(max(box[2:]) * (1 + 2 * margin))
    if width <= 120:
        assert left >= 0
        assert top >= 0
        assert left + width <= 200 + 1e-6
        assert top + height <= 120 + 1e-6


def test_a_crop_larger_than_the_picture_repeats_its_edge() -> None:
    crop = crop_face(video(1), 300, margin=0.5, detector=FixedDetector([(25, -15, 150, 150)]))
    assert crop.box == (-50, -90, 300, 300)
    assert not crop.pixels[0, :90, :, 1].any()  # above the frame its first row is repeated
    assert (crop.pixels[0, 210:, :, 1] == 119).all()


def test_the_crop_of_all_frames_is_the_median_of_the_searched_frames() -> None:
    boxes = [[(50 + 2 * i, 30, 40, 40)] for i in (0, 1, 2, 3, 10)]
    crop = crop_face(video(), 40, margin=0, detector=FixedDetector(*boxes))
    assert crop.box == (54, 30, 40, 40)


def test_a_box_in_a_single_frame_is_not_a_face() -> None:
    face, shadow = (20, 20, 30, 30), (100, 20, 90, 90)
    crop = crop_face(video(), 40, margin=0, detector=FixedDetector([face], [shadow, face], [face], [face], [face]))
    assert crop.box == (20, 20, 30, 30)
    assert (crop.faces, crop.warnings) == (1, ())


@pytest.mark.parametrize(("face", "box"), [("largest", 2), ("left", 0), ("right", 1)])
def test_of_several_faces_the_requested_one_is_cut_out_with_a_warning(face: str, box: int) -> None:
    boxes = [(10, 40, 30, 30), (150, 40, 30, 30), (70, 40, 50, 50)]
    searched = [[boxes[i] for i in order] for order in ([2, 0, 1], [1, 2, 0], [0, 1, 2], [2, 1, 0], [1, 0, 2])]
    crop = crop_face(video(), 40, face, margin=0, detector=FixedDetector(*searched))
    assert crop.box == boxes[box]
    assert crop.faces == 3
    name = "the largest" if face == "largest" else f"the {face}most"
    assert crop.warnings == (f"3 faces found, {name} is used",)


def test_without_a_face_no_frame_shows_one_and_a_warning_says_so() -> None:
    crop = crop_face(video(), 64, detector=FixedDetector([]))
    assert not crop.shows_face.any()
    assert (crop.box, crop.faces) == (None, 0)
    assert crop.warnings == ("no face found, the video is not used",)


def test_only_frames_near_a_seen_face_show_it_and_one_missed_frame_is_no_loss() -> None:
    face, nothing = [(60, 30, 40, 40)], np.zeros((0, 4))
    missed_once = crop_face(video(9), 64, detector=FixedDetector(face, nothing, face, face, face))
    assert missed_once.shows_face.all()
    assert missed_once.warnings == ()
    gone = crop_face(video(9), 64, detector=FixedDetector(face, face, nothing, nothing, nothing))
    assert gone.shows_face.tolist() == [True] * 5 + [False] * 4
    assert gone.warnings == ("a face is seen in part of the video; only that part is used",)


def test_the_whole_picture_needs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceDetector, "find", lambda *of: pytest.fail("searched"))
    crop = crop_face(video(), 64, "whole")
    np.testing.assert_array_equal(crop.pixels, fit(video(), 64))
    assert crop.warnings == ()


def test_an_unknown_face_is_one_line() -> None:
    with pytest.raises(FarfeelError, match="face is 'middle', expected largest, left, right, whole"):
        crop_face(video(), 64, "middle")


@pytest.mark.parametrize("shape", [(16, 16), (16, 400), (900, 20), (720, 1280)])
def test_pictures_without_a_face_have_none(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for frame in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert FaceDetector().find(frame).shape == (0, 4)


@pytest.mark.parametrize("content", [None, b"", b"no network"])
def test_a_bad_model_is_one_line(tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "yunet.onnx"
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(FarfeelError, match="expected a YuNet model; name a face_detection_yunet") as raised:
        FaceDetector(model)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_boxes_of_yunet_are_in_pixels_of_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class YuNet:
        size: tuple[int, int]

        def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
            self.size = size

        def detect(self, frame: np.ndarray) -> tuple[int, np.ndarray | None]:
            assert frame.shape[1::-1] == self.size
            width, height = self.size
            return 1, np.array([[0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height, *[0.0] * 10, 0.9]], np.float32)

    monkeypatch.setattr(cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *of: YuNet()))
    (tmp_path / "yunet.onnx").write_bytes(b"weights")
    boxes = FaceDetector(tmp_path / "yunet.onnx").find(np.zeros((500, 1000, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[100, 100, 300, 200]], rtol=1e-3)


@pytest.fixture(scope="module")
def talking() -> list[np.ndarray]:
    """Two videos of one face each, (N, H, W, 3)."""
    return [read_frames(path, [0.4, 1.2, 2.0, 2.8, 3.6]).pixels for path in VIDEOS[:2]]


@real
def test_a_real_face_is_found_in_every_frame_and_fills_the_crop(talking: list[np.ndarray]) -> None:
    detector = FaceDetector()
    for frames in talking:
        boxes = [detector.find(frame) for frame in frames]
        assert [len(each) for each in boxes] == [1] * 5
        crop = crop_face(frames, 112, detector=detector)
        assert (crop.faces, crop.warnings) == (1, ())
        again = detector.find(crop.pixels[0])
        assert len(again) == 1
        assert again[0, 2] > 0.4 * 112


@real
@pytest.mark.parametrize("face", FACES[:3])
def test_of_two_real_faces_the_crop_shows_the_requested_one(talking: list[np.ndarray], face: str) -> None:
    both = np.concatenate(talking, axis=2)
    crop = crop_face(both, 112, face)
    assert crop.faces == 2
    assert crop.box is not None
    middle = crop.box[0] + crop.box[2] / 2
    assert (middle > 600) == (face == "right")  # the face of the left video is also the larger


@real
def test_a_small_face_is_found_at_the_second_size(talking: list[np.ndarray]) -> None:
    small = cv2.copyMakeBorder(talking[0][0], 250, 250, 450, 450, cv2.BORDER_REPLICATE)
    boxes = FaceDetector().find(small)
    assert len(boxes) >= 1
    left, top, width, height = boxes[0]
    assert 450 < left + width / 2 < 1050
    assert 250 < top + height / 2 < 586
