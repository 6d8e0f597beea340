"""Laws of writing videos: the same frames give the same bytes, they are read as written, and files are whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from farfeel.corpora.video_files import write_video
from farfeel.media.camera import simulate_camera
from farfeel.media.video import media_info, read_frames
from farfeel.recipe import Camera


def greys(count: int, size: int = 32) -> np.ndarray:
    """(count, size, size, 3): frame i is grey, 10 i dark."""
    return np.broadcast_to(10 * np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 3))


def noise(count: int, seed: int) -> np.ndarray:
    """A still of noise, recorded by an unsteady camera: hard to predict from frame to frame."""
    still = np.random.default_rng(seed).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    return simulate_camera(still, 96, count, Camera(shift=0.05, drift=0.05, light=0.2), np.random.default_rng(seed))


@pytest.mark.parametrize("count", [1, 4, 15])
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, count: int) -> None:
    for seed in range(8):
        frames, written = noise(count, seed), set()
        for _ in range(5):
            write_video(tmp_path / "film.mp4", frames, 10)
            written.add((tmp_path / "film.mp4").read_bytes())
        assert len(written) == 1


@pytest.mark.parametrize(("count", "fps"), [(1, 10.0), (2, 25.0), (23, 12.5), (20, 29.97)])
def test_what_is_written_is_read_back(tmp_path: Path, count: int, fps: float) -> None:
    write_video(tmp_path / "film.mp4", greys(count), fps)
    video = media_info(tmp_path / "film.mp4").video
    assert video is not None
    assert (video.frames, video.width, video.height, video.is_still) == (count, 32, 32, count == 1)
    assert video.fps == pytest.approx(fps, rel=1e-4)
    assert video.seconds == pytest.approx(count / fps, abs=0.01)
    found = read_frames(tmp_path / "film.mp4", list((np.arange(count) + 0.5) / fps)).pixels
    assert np.abs(found.mean(axis=(1, 2, 3)) - 10 * np.arange(count)).max() < 3


def test_a_lower_quality_is_smaller(tmp_path: Path) -> None:
    for quality in (18, 28):
        write_video(tmp_path / f"{quality}.mp4", noise(8, 1), 10, quality)
    assert (tmp_path / "28.mp4").stat().st_size < 0.7 * (tmp_path / "18.mp4").stat().st_size


def test_a_killed_writer_leaves_nothing_half_and_the_next_one_tidies(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", greys(3), 10)
    before = (tmp_path / "film.mp4").read_bytes()
    killed = """
import os, signal, av, numpy as np
from pathlib import Path
from farfeel.corpora.video_files import write_video
taken, make = [], av.VideoFrame.from_ndarray
class Frame:
    def from_ndarray(pixels, format):
        taken.append(pixels)
        if len(taken) > 60:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(pixels, format=format)
av.VideoFrame = Frame
write_video(Path("film.mp4"), np.random.default_rng(1).integers(0, 256, (80, 64, 64, 3), dtype=np.uint8), 10)
"""
    process = subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, env=os.environ)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "film.mp4").read_bytes() == before
    assert len(list(tmp_path.glob(".film.mp4.*.partial"))) == 1
    write_video(tmp_path / "film.mp4", greys(3), 10)
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


def test_an_interrupted_writer_leaves_the_old_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "film.mp4", greys(3), 10)
    before = (tmp_path / "film.mp4").read_bytes()
    make, taken = av.VideoFrame.from_ndarray, []

    class Frame:
        @staticmethod
        def from_ndarray(pixels: np.ndarray, format: str) -> av.VideoFrame:
            taken.append(pixels)
            if len(taken) > 2:
                raise KeyboardInterrupt
            return make(pixels, format=format)

    monkeypatch.setattr(av, "VideoFrame", Frame)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "film.mp4", greys(9), 10)
    assert (tmp_path / "film.mp4").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]
