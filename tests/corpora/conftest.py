"""Small corpora for the tests: real names with generated audio, and the real recordings where they are."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def real() -> Callable[[str], Path]:
    """Name of a folder of the data → its path; skips the test where it is absent."""
    data = Path(os.environ.get("FARFEEL_DATA", PROJECT / "../shared/data")).resolve()

    def folder(name: str) -> Path:
        if not (data / name).is_dir():
            pytest.skip(f"needs the recordings in {name}; set FARFEEL_DATA to their folder")
        return data / name

    return folder


@pytest.fixture
def video() -> Callable[..., Path]:
    """Path → a video of 64 by 48 pixels there, without audio: H.264, or MPEG-4 in an AVI. It brightens evenly."""

    def shot(path: Path, frames: int = 5, fps: int = 10) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 48, "yuv420p", 1
            for number in range(frames):
                picture = np.full((48, 64, 3), 40 + 150 * number // frames, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return shot


@pytest.fixture
def write() -> Callable[..., Path]:
    """Path → an audio file of 0.3 s of noise there."""

    def noise(path: Path, sample_rate: int = 16000, channels: int = 1, seconds: float = 0.3) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(1).normal(0, 0.1, (round(seconds * sample_rate), channels))
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        return path

    return noise
