import numpy as np
import pytest
import soundfile
from generated import SAMPLE_RATE
from scipy.signal import fftconvolve

from farfeel.rooms.noise import babble, fan, recorded_noise, white_noise
from farfeel.types import FarfeelError


def test_white_noise_is_white_and_independent_between_microphones(rng):
    noise = white_noise(3, 100_000, rng)
    np.testing.assert_allclose(noise.astype(np.float64) @ noise.T / noise.shape[1], np.eye(3), atol=0.02)
    spectrum = np.square(np.abs(np.fft.rfft(noise))).reshape(3, -1)[:, :50_000].reshape(3, 10, -1).mean(axis=2)
    np.testing.assert_allclose(spectrum / spectrum.mean(), 1, atol=0.1)


def test_the_same_generator_gives_the_same_noise():
    talkers, taps = [np.sin(np.arange(3000.0)), np.cos(np.arange(9000.0))], [np.eye(2, 5), np.eye(2, 9)]
    a, b, c = (babble(talkers, taps, 4000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


def test_babble_is_the_talkers_in_the_room_that_was_already_filled(rng):
    # A constant voice through any response is constant from the first sample: nothing of it is still to arrive.
    response = rng.standard_normal((2, 300))
    noise = babble([np.full(1000, 0.2)], [response], 500, rng)
    np.testing.assert_allclose(noise, np.repeat(response.sum(axis=1)[:, None], 500, axis=1), atol=1e-3)
    assert noise.dtype == np.float32


def test_talkers_of_babble_are_equally_loud_and_silent_ones_are_left_out(rng):
    speech = rng.standard_normal((3, 8000)) * np.array([[1.0], [0.001], [0.0]])
    at_own_microphone = [np.eye(3)[:, [k]] for k in range(3)]
    energy = np.square(babble(list(speech), at_own_microphone, 8000, rng)).mean(axis=1)
    np.testing.assert_allclose(energy, [1, 1, 0], atol=0.01)


def test_a_fan_is_pink_and_comes_from_one_place(rng):
    response = np.zeros((2, 8))
    response[0, 0], response[1, 3] = 1, 0.5
    near, far = fan(response, 200_000, rng).astype(np.float64)
    np.testing.assert_allclose(far[3:], 0.5 * near[:-3], atol=1e-6)
    power = np.square(np.abs(np.fft.rfft(near)))
    octaves = [power[low : 2 * low].sum() for low in (2_000, 4_000, 8_000, 16_000, 32_000)]
    np.testing.assert_allclose(octaves / np.mean(octaves), 1, atol=0.1)  # pink: every octave has as much


@pytest.fixture
def noise_file(tmp_path):
    def write(channels, seconds, sample_rate=SAMPLE_RATE):
        ramp = np.linspace(0.1, 0.9, round(seconds * sample_rate))[:, None] * (1 + np.arange(channels)) / channels
        soundfile.write(tmp_path / "noise.wav", ramp, sample_rate, subtype="FLOAT")
        return tmp_path / "noise.wav", ramp.T

    return write


def test_a_recording_with_enough_channels_is_a_stretch_of_itself(noise_file, rng):
    path, ramp = noise_file(channels=4, seconds=1.0)
    starts = set()
    for _ in range(5):
        noise = recorded_noise(path, 3, SAMPLE_RATE, 2000, None, rng)
        start = int(np.abs(ramp[0] - noise[0, 0]).argmin())
        np.testing.assert_allclose(noise, ramp[:3, start : start + 2000], atol=1e-6)
        starts.add(start)
    assert len(starts) == 5


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_noise_has_the_asked_length_whatever_the_file_has(noise_file, rng, rate, seconds):
    path, _ = noise_file(channels=1, seconds=seconds, sample_rate=rate)
    assert recorded_noise(path, 1, SAMPLE_RATE, 5000, None, rng).shape == (1, 5000)
    assert recorded_noise(path, 3, SAMPLE_RATE, 5000, np.ones((3, 40)), rng).shape == (3, 5000)


def test_a_mono_recording_sounds_through_the_room(noise_file, rng):
    path, ramp = noise_file(channels=1, seconds=0.2)
    taps = rng.standard_normal((2, 200))
    heard = recorded_noise(path, 2, SAMPLE_RATE, ramp.shape[1] - 199, taps, rng)
    np.testing.assert_allclose(heard, fftconvolve(ramp, taps, mode="valid", axes=-1), atol=1e-4)


def test_noise_that_cannot_be_used_is_named(noise_file, rng, tmp_path):
    path, _ = noise_file(channels=2, seconds=0.2)
    with pytest.raises(FarfeelError, match="2 channels, 3 microphones"):
        recorded_noise(path, 3, SAMPLE_RATE, 100, None, rng)
    with pytest.raises(FarfeelError, match="does not exist"):
        recorded_noise(tmp_path / "none.wav", 1, SAMPLE_RATE, 100, None, rng)
    soundfile.write(path, np.full(1000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(FarfeelError, match="NaN"):
        recorded_noise(path, 1, SAMPLE_RATE, 100, None, rng)
