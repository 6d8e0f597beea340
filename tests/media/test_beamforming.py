"""Laws of the blind beamformer: the order and the gains of the microphones do not matter, a talker without noise is not
changed, and noise and other talkers are suppressed."""

from collections.abc import Sequence

import numpy as np
import pytest

from farfeel.media.audio import read_audio
from farfeel.media.beamforming import beamform
from farfeel.media.blocks import BLOCK_S

RATE = 16000


def db(ratio: float) -> float:
    return float(10 * np.log10(ratio))


@pytest.fixture(scope="module")
def speech(voices) -> list[np.ndarray]:
    """Six dry voices (T,), with pauses at both ends."""
    return [np.pad(read_audio(path, RATE)[0], (8000, 8000)) for path in sorted(voices.rglob("*.flac"))[:6]]


@pytest.fixture(scope="module")
def clean_mics(speech) -> np.ndarray:
    """(3, T) a voice without reverberation, at three microphones."""
    return delayed(speech[0], (0, 3, 7))


@pytest.fixture(scope="module")
def noisy(clean_mics) -> np.ndarray:
    """(3, T) the same, with independent white noise at an SNR of 10 dB."""
    return clean_mics + white(clean_mics, 10)


def delayed(voice: np.ndarray, samples: Sequence[int]) -> np.ndarray:
    return np.stack([np.roll(voice, delay) for delay in samples]).astype(np.float32)


def white(audio: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(audio.shape).astype(np.float32)
    return noise * np.sqrt(np.mean(audio**2, axis=1, keepdims=True)) * 10 ** (-snr_db / 20)


def snr_db(audio: np.ndarray, clean: np.ndarray) -> float:
    """SNR of the first microphone. Everything but its clean signal counts as noise."""
    return db(np.mean(clean[0] ** 2) / np.mean((audio[0] - clean[0]) ** 2))


def test_the_order_of_the_microphones_does_not_matter(noisy):
    order = [2, 0, 1]
    np.testing.assert_allclose(beamform(noisy[order], RATE), beamform(noisy, RATE)[order], atol=1e-4 * noisy.std())


def test_gains_do_not_matter(noisy):
    gains = np.array([[1.0], [10.0], [0.03]], np.float32)
    np.testing.assert_allclose(beamform(gains * noisy, RATE) / gains, beamform(noisy, RATE), atol=1e-3 * noisy.std())


def test_noise_of_the_microphones_is_suppressed(noisy, clean_mics):
    before, after = snr_db(noisy, clean_mics), snr_db(beamform(noisy, RATE), clean_mics)
    assert after > before + 3, (before, after)


def test_seven_microphones_suppress_more_than_two(speech):
    clean = delayed(speech[0], range(7))
    noisy = clean + white(clean, 5)
    two, seven = (snr_db(beamform(noisy[:mics], RATE), clean) for mics in (2, 7))
    assert seven > two + 3, (two, seven)


def test_a_quieter_second_talker_is_suppressed(speech, clean_mics):
    clean, endless = clean_mics, np.resize(speech[3][8000:-8000], clean_mics.shape[1])
    other = delayed(endless, (9, 4, 0))
    other *= np.sqrt(np.mean(clean**2) / np.mean(other**2)) * 10 ** (-10 / 20)
    before, after = snr_db(clean + other, clean), snr_db(beamform(clean + other, RATE), clean)
    assert after > before + 3, (before, after)


def test_a_talker_without_noise_is_not_changed(clean_mics):
    assert snr_db(beamform(clean_mics, RATE), clean_mics) > 30


def test_identical_microphones_are_not_changed(speech):
    same = np.repeat(speech[0][None], 3, axis=0)
    assert snr_db(beamform(same, RATE), same) > 30


@pytest.mark.parametrize("shape", [(1, 16000), (3, 100), (3, 0)])
def test_one_microphone_and_very_short_audio_are_returned_unchanged(shape):
    audio = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    assert beamform(audio, RATE) is audio


def test_silence_stays_silence():
    assert not beamform(np.zeros((3, 16000), np.float32), RATE).any()


def test_a_long_recording_has_no_seams(speech):
    """The filters of each block do not change the talker, so overlapping blocks do not either."""
    line = np.tile(speech[0], 20)[: round(2.7 * BLOCK_S * RATE)]
    clean = delayed(line, (0, 3, 7))
    assert snr_db(beamform(clean, RATE), clean) > 20
    assert beamform(clean, RATE).shape == clean.shape
