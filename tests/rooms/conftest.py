"""The measured responses, where they are."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from farfeel.rooms.importers import r3vival as layout
from farfeel.types import Rir

PROJECT = Path(__file__).parents[2]


def real_rirs(name: str) -> Path:
    """Folder of measured responses; skips the test where it is absent."""
    folder = Path(os.environ.get("FARFEEL_DATA", PROJECT / "../shared/data")).resolve() / "rirs" / name
    if not folder.is_dir():
        pytest.skip(f"needs the responses in rirs/{name}; set FARFEEL_DATA to the data's folder")
    return folder


@pytest.fixture(scope="session")
def r3vival() -> list[Rir]:
    return layout.r3vival(real_rirs("r3vival"))


@pytest.fixture
def real() -> Callable[[str], Path]:
    return real_rirs


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)
