"""Laws of blind dereverberation: it brings the log-mels closer to those of dry speech, more so with more microphones,
and does not change speech without reverberation."""

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
    """(M, T): a voice at M microphones in a diffuse room, each with its own noise at -60 dB."""
    rng = np.random.default_rng(4)
    taps = np.arange(round(T60_S * RATE))
    response = 0.05 * rng.standard_normal((mics, len(taps))) * 10 ** (-3 * taps / len(taps))
    response[:, 0] = 1.0
    reverberant = fftconvolve(voice[None], response, axes=1)[:, : len(voice)]
    return (reverberant + 1e-3 * reverberant.std() * rng.standard_normal(reverberant.shape)).astype(np.float32)


def distance_db(audio: np.ndarray, dry: np.ndarray) -> float:
    """Distance between the log-mels, averaged over microphones, and those of the dry voice."""
    logmel = LogMel(Audio())
    mels, dry_mels = (limit_range(logmel(torch.from_numpy(each)[None]), 50).mean(dim=1) for each in (audio, dry[None]))
    return float((mels - dry_mels).abs().mean())


def test_reverberation_is_reduced_and_more_microphones_reduce_it_more(voice):
    reverberant = in_room(voice, 4)

    def left(mics: int) -> float:
        """Remaining share of the distance."""
        return distance_db(dereverberate(reverberant[:mics], RATE), voice) / distance_db(reverberant[:mics], voice)

    one, two, four = left(1), left(2), left(4)
    assert four < two < one < 0.98, (one, two, four)
    assert four < 0.8, four


def test_dry_speech_is_kept(voice):
    dry = np.stack([voice, np.roll(voice, 5)])
    assert np.mean((dereverberate(dry, RATE) - dry) ** 2) < 0.1 * np.mean(dry**2)


def test_neither_order_nor_gains_of_the_microphones_matter(voice):
    reverberant = in_room(voice, 3)
    order, gains = [2, 0, 1], np.array([[1.0], [10.0], [0.03]], np.float32)
    dereverberated = dereverberate(reverberant, RATE)
    np.testing.assert_allclose(
        dereverberate(reverberant[order], RATE), dereverberated[order], atol=1e-3 * dereverberated.std()
    )
    np.testing.assert_allclose(
        dereverberate(gains * reverberant, RATE) / gains, dereverberated, atol=1e-3 * dereverberated.std()
    )


@pytest.mark.parametrize("shape", [(7, 3000), (3, 100), (3, 0)])
def test_very_short_audio_is_returned_unchanged(shape):
    audio = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    assert dereverberate(audio, RATE) is audio


def test_silence_stays_silence():
    assert not dereverberate(np.zeros((3, RATE), np.float32), RATE).any()


def test_a_long_recording_is_treated_in_blocks(voice):
    line = np.resize(voice, round(2.7 * BLOCK_S * RATE))
    reverberant = in_room(line, 2)
    dereverberated = dereverberate(reverberant, RATE)
    assert dereverberated.shape == reverberant.shape
    assert distance_db(dereverberated, line) < 0.9 * distance_db(reverberant, line)
