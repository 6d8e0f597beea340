"""Laws of what predict takes: a path, its bytes and an open file give the same, and nothing is left behind."""

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from farfeel.recipe import Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.types import FarfeelError, Prediction
from untrained import make


@pytest.fixture(scope="module")
def recognizer(small: Callable[..., Recipe]) -> Recognizer:
    return make(small("modalities=both"))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, which is empty again after each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture(params=["flac", "mp4"])
def clip(request: pytest.FixtureRequest, voices: Path) -> Path:
    return sorted(voices.rglob(f"*.{request.param}"))[0]


def test_a_path_its_bytes_and_an_open_file_are_the_same_recording(recognizer: Recognizer, clip: Path) -> None:
    expected = recognizer.predict(clip)
    content = clip.read_bytes()
    assert recognizer.predict(str(clip)) == recognizer.predict(content) == expected
    assert recognizer.predict(io.BytesIO(content)) == expected
    with clip.open("rb") as file:
        assert recognizer.predict(file) == expected
    assert recognizer.timeline(content, 0.5) == recognizer.timeline(clip, 0.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_many_recordings_of_all_kinds_keep_their_order(
    recognizer: Recognizer, clip: Path, tmp_path: Path, workers: int
) -> None:
    other = tmp_path / "other.wav"
    soundfile.write(other, np.random.default_rng(1).normal(0, 0.1, (16000, 2)), 16000)
    given = [clip, "missing.wav", other.read_bytes(), io.BytesIO(clip.read_bytes()), io.BytesIO(), 7, other]
    found = list(recognizer.predict_many(given, workers=workers))  # type: ignore[arg-type]
    kinds = [type(each) for each in found]
    assert kinds == [Prediction, FarfeelError, Prediction, Prediction, FarfeelError, FarfeelError, Prediction]
    good = [each for each in found if isinstance(each, Prediction)]
    assert [each.microphones for each in good[1::2]] == [2, 2]
    for one, twin in ((good[0], good[2]), (good[1], good[3])):
        np.testing.assert_allclose(one.probabilities, twin.probabilities, atol=1e-6)
    assert "missing.wav does not exist" in str(found[1])


def test_errors_and_warnings_call_an_open_file_by_its_name(
    recognizer: Recognizer, clip: Path, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    with (tmp_path / "broken.wav").open("rb") as file, pytest.raises(FarfeelError, match=r"^broken\.wav ") as error:
        recognizer.predict(file)
    assert str(temporary) not in str(error.value)
    with pytest.raises(FarfeelError, match=r"^the recording ") as error:
        recognizer.predict(b"no recording")
    assert str(temporary) not in str(error.value)
    with (tmp_path / "broken.wav").open("rb") as file:
        found = recognizer.predict(file, audio=sorted(clip.parent.glob("*.flac"))[0])
    assert found.warnings[0].startswith("the video is not used: broken.wav ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda path: path.open(encoding="latin-1"), "is open as text, expected a binary file; open it with mode 'rb'"),
        (lambda _: io.BytesIO(), "the recording has no bytes left to read, expected a recording; rewind it"),
        (lambda _: 7, "a recording is of type int, expected a path, bytes or an open binary file"),
        (lambda _: np.zeros(16000), "is of type ndarray, .* give samples to predict_audio"),
    ],
)
def test_what_is_no_recording_is_one_line(
    recognizer: Recognizer, clip: Path, source: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(FarfeelError, match=message):
        recognizer.predict(source(clip))  # type: ignore[arg-type]
