"""Laws of blind dereverberation: what a room adds to the log-mels goes, more of it with more microphones; a voice
without a room stays."""

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from farfeel.media.audio import read_audio
from farfeel.media.blocks import BLOCK_S
from farfeel.media.dereverberation import dereverberate
from farfeel.models.logmel import LogMel, limit_range
from farfeel.recipe import Audio

RATE = 16000
T60_S = 0.6


@pytest.fixture(scope="module")
def voice(voices) -> np.ndarray:
    """Four seconds of dry speech, with pauses at both ends."""
    return np.pad(read_audio(sorted(voices.rglob("*.flac"))[0], RATE)[0], (8000, 20000))[: 4 * RATE]


def in_room(voice: np.ndarray, mics: int) -> np.ndarray:
    """A voice at M microphones of a diffuse room, (M, T), each with a noise of its own 60 dB below."""
    rng = np.random.default_rng(4)
    taps = np.arange(round(T60_S * RATE))
    response = 0.05 * rng.standard_normal((mics, len(taps))) * 10 ** (-3 * taps / len(taps))
    response[:, 0] = 1.0
    heard = fftconvolve(voice[None], response, axes=1)[:, : len(voice)]
    return (heard + 1e-3 * heard.std() * rng.standard_normal(heard.shape)).astype(np.float32)


def distance_db(heard: np.ndarray, dry: np.ndarray) -> float:
    """Between the log-mels of microphones, averaged, and those of the dry voice."""
    logmel = LogMel(Audio())
    seen, wanted = (limit_range(logmel(torch.from_numpy(each)[None]), 50).mean(dim=1) for each in (heard, dry[None]))
    return float((seen - wanted).abs().mean())


def test_the_room_goes_and_more_microphones_take_more_of_it(voice):
    heard = in_room(voice, 4)

    def left(mics: int) -> float:
        """The share of the room's distance that is still there."""
        return distance_db(dereverberate(heard[:mics], RATE), voice) / distance_db(heard[:mics], voice)

    one, two, four = left(1), left(2), left(4)
    assert four < two < one < 0.98, (one, two, four)
    assert four < 0.8, four


def test_a_voice_without_a_room_stays(voice):
    dry = np.stack([voice, np.roll(voice, 5)])
    assert np.mean((dereverberate(dry, RATE) - dry) ** 2) < 0.1 * np.mean(dry**2)


def test_neither_order_nor_gains_of_the_microphones_matter(voice):
    heard = in_room(voice, 3)
    order, gains = [2, 0, 1], np.array([[1.0], [10.0], [0.03]], np.float32)
    found = dereverberate(heard, RATE)
    np.testing.assert_allclose(dereverberate(heard[order], RATE), found[order], atol=1e-3 * found.std())
    np.testing.assert_allclose(dereverberate(gains * heard, RATE) / gains, found, atol=1e-3 * found.std())


@pytest.mark.parametrize("shape", [(7, 3000), (3, 100), (3, 0)])
def test_next_to_nothing_comes_back_untouched(shape):
    audio = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    assert dereverberate(audio, RATE) is audio


def test_silence_stays_silence():
    assert not dereverberate(np.zeros((3, RATE), np.float32), RATE).any()


def test_a_long_recording_is_treated_in_blocks(voice):
    line = np.resize(voice, round(2.7 * BLOCK_S * RATE))
    heard = in_room(line, 2)
    found = dereverberate(heard, RATE)
    assert found.shape == heard.shape
    assert distance_db(found, line) < 0.9 * distance_db(heard, line)
