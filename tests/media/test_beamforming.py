"""Laws of the blind beamformer: it knows neither order nor gains of the microphones, leaves a talker alone as he is,
and takes noise and other talkers away."""

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
def heard(speech) -> np.ndarray:
    """(3, T) a voice in the open air, at three distances."""
    return delayed(speech[0], (0, 3, 7))


@pytest.fixture(scope="module")
def noisy(heard) -> np.ndarray:
    """The same with white noise of each microphone at 10 dB."""
    return heard + white(heard, 10)


def delayed(voice: np.ndarray, samples: Sequence[int]) -> np.ndarray:
    return np.stack([np.roll(voice, delay) for delay in samples]).astype(np.float32)


def white(heard: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(heard.shape).astype(np.float32)
    return noise * np.sqrt(np.mean(heard**2, axis=1, keepdims=True)) * 10 ** (-snr_db / 20)


def snr_db(found: np.ndarray, clean: np.ndarray) -> float:
    """Of the first microphone; whatever is not the clean signal at that microphone is noise."""
    return db(np.mean(clean[0] ** 2) / np.mean((found[0] - clean[0]) ** 2))


def test_the_order_of_the_microphones_does_not_matter(noisy):
    order = [2, 0, 1]
    np.testing.assert_allclose(beamform(noisy[order], RATE), beamform(noisy, RATE)[order], atol=1e-4 * noisy.std())


def test_gains_do_not_matter(noisy):
    gains = np.array([[1.0], [10.0], [0.03]], np.float32)
    np.testing.assert_allclose(beamform(gains * noisy, RATE) / gains, beamform(noisy, RATE), atol=1e-3 * noisy.std())


def test_noise_of_the_microphones_is_taken_away(noisy, heard):
    before, after = snr_db(noisy, heard), snr_db(beamform(noisy, RATE), heard)
    assert after > before + 3, (before, after)


def test_seven_microphones_take_more_away_than_two(speech):
    clean = delayed(speech[0], range(7))
    noisy = clean + white(clean, 5)
    two, seven = (snr_db(beamform(noisy[:mics], RATE), clean) for mics in (2, 7))
    assert seven > two + 3, (two, seven)


def test_another_who_talks_more_quietly_is_taken_away(speech, heard):
    clean, endless = heard, np.resize(speech[3][8000:-8000], heard.shape[1])
    other = delayed(endless, (9, 4, 0))
    other *= np.sqrt(np.mean(clean**2) / np.mean(other**2)) * 10 ** (-10 / 20)
    before, after = snr_db(clean + other, clean), snr_db(beamform(clean + other, RATE), clean)
    assert after > before + 3, (before, after)


def test_a_talker_without_noise_is_left_as_he_is(heard):
    assert snr_db(beamform(heard, RATE), heard) > 30


def test_microphones_that_hear_the_same_are_no_trouble(speech):
    same = np.repeat(speech[0][None], 3, axis=0)
    assert snr_db(beamform(same, RATE), same) > 30


@pytest.mark.parametrize("shape", [(1, 16000), (3, 100), (3, 0)])
def test_one_microphone_and_next_to_nothing_come_back_untouched(shape):
    audio = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    assert beamform(audio, RATE) is audio


def test_silence_stays_silence():
    assert not beamform(np.zeros((3, 16000), np.float32), RATE).any()


def test_a_long_recording_goes_on_without_a_seam(speech):
    """In blocks that overlap: where each block's filters leave the talker as he is, so does the whole."""
    line = np.tile(speech[0], 20)[: round(2.7 * BLOCK_S * RATE)]
    clean = delayed(line, (0, 3, 7))
    assert snr_db(beamform(clean, RATE), clean) > 20
    assert beamform(clean, RATE).shape == clean.shape
