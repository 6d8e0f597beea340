"""Laws of face videos: a window gets the frames of its own time, and a short video is decoded only once."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from farfeel.corpora.video_files import write_video
from farfeel.media import face_video as module
from farfeel.media.face_video import WHOLE_S, FaceVideo
from farfeel.media.face_windows import middles
from farfeel.recipe import Video
from farfeel.types import FarfeelError

SETTINGS = Video(frames=4, size=16, crop="none")
FPS = 10
WINDOW_S = 2.0
LEVEL = 5  # One frame is this much brighter than the one before it.


def clock(path: Path, seconds: float = 4.0, fps: float = FPS, level: float = LEVEL) -> Path:
    """A video whose grey level shows its time: frame i has the level 5 i."""
    grey = (level * np.arange(round(seconds * fps))).astype(np.uint8)
    write_video(path, np.broadcast_to(grey[:, None, None, None], (len(grey), 32, 32, 3)), fps, quality=5)
    return path


def times_s(frames: np.ndarray | None, level: float = LEVEL, fps: float = FPS) -> np.ndarray:
    """The time of each frame in the video: the middle of its tenth of a second."""
    assert frames is not None
    return (frames.mean(axis=(1, 2, 3)) / level).round() / fps + 0.5 / fps


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return clock(tmp_path / "video.mp4")


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of frames of each decoding."""
    counts: list[int] = []
    read: Callable = module.read_frames

    def counted(path: Path, moments: list[float]) -> object:
        counts.append(len(moments))
        return read(path, moments)

    monkeypatch.setattr(module, "read_frames", counted)
    return counts


def tolerance_s(footage: FaceVideo) -> float:
    """Largest error of a frame's time: half the spacing of decoded frames, and half a frame of the video."""
    return footage.spacing_s / 2 + 0.5 / FPS + 1e-6


def test_middles_are_those_of_equal_parts() -> None:
    np.testing.assert_allclose(middles(1.0, 3.0, 4), [1.25, 1.75, 2.25, 2.75])


def test_all_windows_of_a_short_video_share_one_decoding(video: Path, decodings: list[int]) -> None:
    footage = FaceVideo(video, SETTINGS, WINDOW_S)
    assert decodings == []
    for start_s in (0.0, 1.3, 2.0, 0.4):
        frames = footage.frames(start_s, start_s + WINDOW_S)
        assert frames is not None
        assert frames.shape == (4, 16, 16, 3)
        assert frames.dtype == np.uint8
    assert decodings == [8]  # four seconds, at the spacing of four frames in two seconds
    assert len(footage.crops) == 1
    assert footage.decoded_bytes >= footage.crops[0].pixels.nbytes


@pytest.mark.parametrize("start_s", [0.0, 0.37, 1.0, 2.0])
@pytest.mark.parametrize("length_s", [0.5, 1.0, 2.0])
def test_a_window_gets_the_frames_nearest_to_its_times(video: Path, start_s: float, length_s: float) -> None:
    footage = FaceVideo(video, SETTINGS, WINDOW_S)
    frames_s = times_s(footage.frames(start_s, start_s + length_s))
    np.testing.assert_allclose(frames_s, middles(start_s, start_s + length_s, 4), atol=tolerance_s(footage))


@pytest.mark.parametrize("offset_s", [-0.5, 0.0, 0.7, 1.5])
def test_an_offset_moves_the_video_against_the_recording(video: Path, offset_s: float) -> None:
    footage = FaceVideo(video, SETTINGS, WINDOW_S, offset_s=offset_s)
    assert footage.seconds == pytest.approx(4.0 - offset_s)
    frames_s = times_s(footage.frames(0.5, 2.5))
    np.testing.assert_allclose(frames_s, middles(0.5, 2.5, 4) + offset_s, atol=tolerance_s(footage))


def test_frames_outside_the_recording_are_not_shown(video: Path) -> None:
    footage = FaceVideo(video, SETTINGS, WINDOW_S, offset_s=1.0, end_s=1.0)
    assert footage.seconds == 1.0
    shown = np.concatenate([times_s(footage.frames(start_s, start_s + 1)) for start_s in (0.0, 0.2, 0.5)])
    assert shown.min() >= 1.0
    assert shown.max() <= 2.0


def test_a_window_gets_frames_if_the_video_covers_half_of_it_or_more(video: Path) -> None:
    footage = FaceVideo(video, SETTINGS, WINDOW_S, offset_s=-1.0)  # the video lasts from second 1 to second 5
    assert footage.frames(-0.1, 1.9) is None
    assert not footage.was_used
    assert footage.frames(0.1, 2.1) is not None
    assert footage.was_used
    assert footage.frames(3.9, 5.9) is not None
    assert footage.frames(4.1, 6.1) is None
    assert footage.frames(9.0, 11.0) is None
    covered = times_s(footage.frames(0.0, 2.0))  # evenly spaced over the covered part, the first second of the video
    np.testing.assert_allclose(covered, middles(0.0, 1.0, 4), atol=tolerance_s(footage))


def test_a_window_of_length_zero_gets_the_frame_of_its_time(video: Path) -> None:
    footage = FaceVideo(video, SETTINGS, WINDOW_S)
    np.testing.assert_allclose(times_s(footage.frames(1.0, 1.0)), 1.0, atol=tolerance_s(footage))


@pytest.mark.parametrize("end_s", [None, 3.0, 30.0])
def test_a_still_picture_is_the_same_for_every_window_and_decoded_once(
    tmp_path: Path, decodings: list[int], end_s: float | None
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "face.png"), picture)
    footage = FaceVideo(tmp_path / "face.png", SETTINGS, WINDOW_S, offset_s=-5.0, end_s=end_s)
    assert footage.seconds == (end_s or WINDOW_S)
    frames_of = [footage.frames(start_s, start_s + 1.0) for start_s in np.arange(0, footage.seconds - 1, 0.7)]
    assert all(frames is not None and frames.shape == (4, 16, 16, 3) for frames in frames_of)
    assert all(
        (frames == frames_of[0][0]).all() for frames in frames_of if frames is not None and frames_of[0] is not None
    )
    assert decodings == [1]


def test_a_long_video_is_decoded_window_by_window(tmp_path: Path, decodings: list[int]) -> None:
    level = 250 / (12 * FPS)
    long = clock(tmp_path / "long.mp4", WHOLE_S + 2, level=level)
    footage = FaceVideo(long, SETTINGS, WINDOW_S)
    for number, start_s in enumerate((0.0, 9.3, 4.0), start=1):
        frames_s = times_s(footage.frames(start_s, start_s + WINDOW_S), level)
        np.testing.assert_allclose(frames_s, middles(start_s, start_s + WINDOW_S, 4), atol=0.11)
        assert decodings == [4] * number
    assert len(footage.crops) == 3
    part = FaceVideo(
        long, SETTINGS, WINDOW_S, offset_s=1.0, end_s=3.0
    )  # A short part of a long video is treated as a short video.
    part.frames(0.0, 2.0)
    part.frames(1.0, 3.0)
    assert decodings[3:] == [6]


def test_each_warning_about_the_frames_is_given_once(video: Path) -> None:
    footage = FaceVideo(video, Video(frames=4, size=16), WINDOW_S)
    assert footage.warnings == ()
    assert footage.frames(0.0, 2.0) is None
    assert footage.frames(2.0, 4.0) is None
    assert not footage.was_used
    assert footage.warnings == ("no face found, the video is not used",)
    assert FaceVideo(video, Video(frames=4, size=16), WINDOW_S, face="whole").warnings == ()


def test_no_video_is_one_line(tmp_path: Path, video: Path) -> None:
    soundfile.write(tmp_path / "audio.wav", np.random.default_rng(1).normal(0, 0.1, 16000), 16000)
    with pytest.raises(FarfeelError, match=r"audio.wav has audio but no video, expected a video; use a video file"):
        FaceVideo(tmp_path / "audio.wav", SETTINGS, WINDOW_S)
    with pytest.raises(FarfeelError, match=r"lasts 4.0 s, but the recording begins at 4.5 s of it; correct the offset"):
        FaceVideo(video, SETTINGS, WINDOW_S, offset_s=4.5)
    for offset_s in (-4.5, float("nan"), float("inf"), float("-inf")):
        with pytest.raises(FarfeelError, match="correct the offset"):
            FaceVideo(video, SETTINGS, WINDOW_S, offset_s=offset_s, end_s=4.0)


def test_a_clip_of_an_hour_is_refused(tmp_path: Path) -> None:
    hour = clock(tmp_path / "hour.mp4", 3600, fps=0.2, level=0.3)
    with pytest.raises(FarfeelError, match="lasts 60 minutes, expected at most 10; cut it into clips"):
        FaceVideo(hour, SETTINGS, WINDOW_S)
    part = FaceVideo(hour, SETTINGS, WINDOW_S, offset_s=3000.0, end_s=60.0)
    shown_s = times_s(part.frames(20.0, 40.0), 0.3, 0.2).mean()
    assert shown_s == pytest.approx(3030, abs=40)  # five seconds are a third of a grey level here
