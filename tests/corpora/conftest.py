"""Small corpora for the tests: real names with generated sound, and the real recordings where they are."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def real() -> Callable[[str], Path]:
    """Name of a folder of the data → its path; skips the test where it is absent."""
    data = Path(os.environ.get("FARFEEL_DATA", PROJECT / "../shared/data"))

    def folder(name: str) -> Path:
        if not (data / name).is_dir():
            pytest.skip(f"needs the recordings in {name}; set FARFEEL_DATA to their folder")
        return data / name

    return folder


@pytest.fixture
def write() -> Callable[..., Path]:
    """Path → an audio file of 0.3 s of noise there."""

    def noise(path: Path, sample_rate: int = 16000, channels: int = 1, seconds: float = 0.3) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(1).normal(0, 0.1, (round(seconds * sample_rate), channels))
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        return path

    return noise
