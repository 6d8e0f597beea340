"""Laws of many recordings: workers change nothing, and one bad file stops nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crashing import decode_or_die
from farfeel.recipe import Recipe
from farfeel.recognise import many_files
from farfeel.recognise.recognizer import Recognizer
from farfeel.types import FarfeelError, Prediction
from untrained import make


@pytest.fixture(scope="module")
def recognizer(small: Callable[..., Recipe]) -> Recognizer:
    return make(small("modalities=both"))


@pytest.fixture
def files(voices: Path, tmp_path: Path) -> list[Path]:
    """Audio of one and of three channels, video, and files that are neither."""
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 1000)
    (tmp_path / "empty.wav").touch()
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "array.wav", rng.normal(0, 0.1, (16000, 3)), 16000)
    real = sorted(voices.rglob("*01.flac"))[:3] + sorted(voices.rglob("*01.mp4"))[:2]
    return [real[0], tmp_path / "broken.mp4", *real[1:], tmp_path / "empty.wav", tmp_path / "array.wav"]


def by_itself(recognizer: Recognizer, path: Path) -> Prediction | str:
    try:
        return recognizer.predict(path)
    except FarfeelError as error:
        return str(error)


@pytest.mark.parametrize("workers", [0, 2])
def test_many_files_are_predicted_like_each_by_itself_and_in_their_order(
    recognizer: Recognizer, files: list[Path], workers: int
) -> None:
    found = list(recognizer.predict_many(files, workers=workers))
    assert len(found) == len(files)
    for path, result in zip(files, found, strict=True):
        alone = by_itself(recognizer, path)
        if isinstance(alone, str):
            assert str(result) == alone
            continue
        assert isinstance(result, Prediction)
        assert (result.end_s, result.modalities, result.microphones, result.warnings) == (
            alone.end_s,
            alone.modalities,
            alone.microphones,
            alone.warnings,
        )
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=1e-5)


def test_a_file_that_kills_its_decoder_is_named_and_the_others_are_predicted(
    recognizer: Recognizer, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_files, "_decode", decode_or_die)
    files = sorted((voices / "speaker_01").glob("*.flac"))[-3:]
    found = dict(zip(files, recognizer.predict_many(files, workers=2), strict=True))
    failed = {path: str(result) for path, result in found.items() if isinstance(result, FarfeelError)}
    assert [path.stem for path in failed] == ["synthetic-01-surprised-01"]
    assert "crashed the decoder, expected a recording; convert the file" in next(iter(failed.values()))
