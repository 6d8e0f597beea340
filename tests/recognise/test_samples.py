"""Laws of arrays: what is clear is taken, with its axes and its scale put right; everything else is one line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from farfeel.recipe import Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.samples import checked_block, checked_picture, checked_recording
from farfeel.types import FarfeelError
from untrained import make

RATE = 16000


@pytest.fixture(scope="module")
def recognizer(small: Callable[..., Recipe]) -> Recognizer:
    return make(small())


@pytest.fixture
def audio() -> np.ndarray:
    """(M, T)."""
    return np.random.default_rng(1).normal(0, 0.1, (2, 32000)).clip(-1, 1).astype(np.float32)


def test_the_longer_axis_is_time(recognizer: Recognizer, audio: np.ndarray) -> None:
    expected = recognizer.predict_audio(audio)
    assert expected.microphones == 2
    assert recognizer.predict_audio(audio.T) == expected
    assert recognizer.predict_audio(audio[0]) == recognizer.predict_audio(audio[:1])
    assert recognizer.predict_audio(audio[0]).microphones == 1


@pytest.mark.parametrize("kind", ["int16", "int32"])
def test_integers_are_scaled_as_soundfile_does_it(audio: np.ndarray, kind: str) -> None:
    bits = np.iinfo(kind).bits
    whole = np.round(audio.astype(float) * (2 ** (bits - 1) - 1)).astype(kind)
    found = checked_recording(whole, RATE, "audio")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, audio, atol=2.0 ** (2 - bits) + 1e-7)
    np.testing.assert_array_equal(checked_block(whole, 2), found)


def test_floats_lists_and_tensors_are_taken_as_they_are(audio: np.ndarray) -> None:
    for given in (audio, audio.astype(np.float64), audio.tolist(), torch.from_numpy(audio), np.asfortranarray(audio)):
        found = checked_recording(given, RATE, "audio")
        np.testing.assert_array_equal(found, audio)
        assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros(0, np.float32), r"clip has the shape \(0,\), expected \(microphones, samples\)"),
        (np.zeros((2, 0), np.float32), r"clip has the shape \(2, 0\), expected"),
        (np.float32(1), r"clip has the shape \(\), expected"),
        (np.ones((1, 2, 32000)), r"clip has the shape \(1, 2, 32000\), expected"),
        (np.ones((65, 32000)), r"clip has the shape \(65, 32000\), which is 65 microphones, expected 64 or fewer"),
        (np.ones((32000, 65)), r"clip has the shape \(32000, 65\), which is 65 microphones, expected 64 or fewer"),
        (np.ones((1, 1000)), "clip has 0.0625 s at 16000 Hz, expected 0.1 s to 600 s; record a longer one"),
        (np.ones((1, 601 * RATE), np.float32), "clip has 601 s .* cut it, or push it into a stream"),
        (np.full((1, 3200), np.nan), "clip contains NaN or infinite samples, expected finite numbers"),
        (np.array([[0.1, np.inf] * 1600]), "clip contains NaN or infinite samples"),
        (np.full((1, 3200), 12000.0), "clip has a peak of 12000, expected samples from -1 to 1"),
        (np.ones((1, 3200), np.uint8), "clip is of type uint8, expected floats from -1 to 1, int16 or int32"),
        (np.ones((1, 3200), complex), "clip is of type complex128, expected floats"),
        (np.ones((1, 3200), bool), "clip is of type bool, expected floats"),
        (["a", "b"], "clip is of type <U1, expected floats"),
        ([[1.0, 2.0], [1.0]], "clip is no array .list., expected one of NumPy"),
    ],
)
def test_an_array_that_cannot_be_a_recording_is_one_line(given: object, told: str) -> None:
    with pytest.raises(FarfeelError, match=told):
        checked_recording(given, RATE, "clip")


def test_a_block_is_never_turned_but_its_error_says_how() -> None:
    assert checked_block(np.zeros((3, 2)), 3).shape == (3, 2)  # shorter than it has microphones
    assert checked_block(np.zeros(5), 1).shape == (1, 5)
    with pytest.raises(FarfeelError, match=r"shape \(1600, 3\), expected \(3, n\); transpose it"):
        checked_block(np.zeros((1600, 3)), 3)
    with pytest.raises(FarfeelError, match=r"shape \(2, 1600\), expected \(3, n\); push all microphones together"):
        checked_block(np.zeros((2, 1600)), 3)
    with pytest.raises(FarfeelError, match="a block is of type uint8"):
        checked_block(np.zeros((3, 10), np.uint8), 3)


def test_a_stream_takes_integers_as_floats(recognizer: Recognizer, audio: np.ndarray) -> None:
    whole = np.round(audio * 32767).astype(np.int16)
    streams = [recognizer.stream(RATE, 2, 0.5) for _ in range(2)]
    assert streams[0].push(whole) == streams[1].push(whole.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), "u1")],
)
def test_what_is_no_picture_is_one_line(picture: np.ndarray) -> None:
    with pytest.raises(FarfeelError, match=r"expected \(height, width, 3\) of uint8, RGB"):
        checked_picture(picture)
