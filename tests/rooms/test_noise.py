import numpy as np
import pytest
import soundfile
from generated import SAMPLE_RATE
from scipy.signal import fftconvolve

from farfeel.rooms.noise import kind_of, usable
from farfeel.rooms.scene import Material, Scene
from farfeel.types import FarfeelError
from farfeel.variants import NOISES


def scene_of(samples, rng, mics=None, responses=(), talkers=(), recordings=()):
    """A scene whose positions are the responses given, in turn; every talker is at the position of the same rank."""
    responses = list(responses)
    return Scene(
        mics=mics or len(responses[0]),
        samples=samples,
        sample_rate=SAMPLE_RATE,
        rng=rng,
        draw_positions=lambda count: [responses[index % len(responses)] for index in range(count)],
        draw_talkers=lambda: (list(talkers), responses[: len(talkers)]),
        recordings=recordings,
    )


def white_noise(mics, samples, rng):
    return kind_of("white").make(scene_of(samples, rng, mics))


def fan(response, samples, rng):
    return kind_of("fan").make(scene_of(samples, rng, responses=[response]))


def babble(talkers, responses, samples, rng):
    return kind_of("babble").make(scene_of(samples, rng, responses=responses, talkers=talkers))


def recorded_noise(path, samples, response, rng):
    return kind_of("recorded").make(scene_of(samples, rng, responses=[response], recordings=[path]))


@pytest.fixture
def any_scene(tmp_path):
    """A seed → a scene of three microphones in which every kind of noise can be made."""
    draw = np.random.default_rng(5)
    soundfile.write(tmp_path / "recorded.wav", draw.normal(0, 0.1, 9000), SAMPLE_RATE)
    responses, talkers = list(draw.standard_normal((2, 3, 40))), list(draw.standard_normal((2, 5000)))

    def scene(seed, samples=4000):
        rng = np.random.default_rng(seed)
        return scene_of(samples, rng, 3, responses, talkers, [tmp_path / "recorded.wav"])

    return scene


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("samples", [1, 4000, 20_000])
def test_every_noise_has_the_length_and_the_microphones_of_its_scene(name, samples, any_scene):
    noise = kind_of(name).make(any_scene(1, samples))
    assert noise.shape == (3, samples)
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()
    assert samples == 1 or (np.abs(noise).max(axis=1) > 0).all()


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_follows_from_its_generator(name, any_scene):
    one, same, other = (kind_of(name).make(any_scene(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_has_a_line_of_help_and_can_be_made_where_nothing_is_lacking(name, tmp_path):
    assert NOISES.summary(name)
    assert usable([name], Material(True, 2, (tmp_path / "recorded.wav",)), "")[0] == [name]


def test_a_noise_that_cannot_be_made_says_what_it_lacks():
    names = ["babble", "white", "fan"]
    kinds, lacking = usable(names, Material(positions=False, speakers=5), "choose another")
    assert kinds == ["white"]
    assert "positions in the room" in lacking["babble"]
    assert "a position in the room" in lacking["fan"]
    alone = Material(positions=True, speakers=1)
    assert usable(names, alone, "")[1] == {"babble": "it needs a second speaker, found 1"}
    with pytest.raises(FarfeelError, match=r"^babble: it needs a second speaker, found 1; choose another$"):
        usable(["babble"], alone, "choose another")
    with pytest.raises(FarfeelError, match=r"rooms\.noise_folder \(None\) has no audio file"):
        usable([*names, "recorded"], Material(positions=True, speakers=2), "")


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
        noise = recorded_noise(path, 2000, np.ones((3, 1)), rng)
        start = int(np.abs(ramp[0] - noise[0, 0]).argmin())
        np.testing.assert_allclose(noise, ramp[:3, start : start + 2000], atol=1e-6)
        starts.add(start)
    assert len(starts) == 5


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_noise_has_the_asked_length_whatever_the_file_has(noise_file, rng, rate, seconds):
    path, _ = noise_file(channels=1, seconds=seconds, sample_rate=rate)
    assert recorded_noise(path, 5000, np.ones((1, 1)), rng).shape == (1, 5000)
    assert recorded_noise(path, 5000, np.ones((3, 40)), rng).shape == (3, 5000)


def test_a_mono_recording_sounds_through_the_room(noise_file, rng):
    path, ramp = noise_file(channels=1, seconds=0.2)
    taps = rng.standard_normal((2, 200))
    heard = recorded_noise(path, ramp.shape[1] - 199, taps, rng)
    np.testing.assert_allclose(heard, fftconvolve(ramp, taps, mode="valid", axes=-1), atol=1e-4)


def test_noise_that_cannot_be_used_is_named(noise_file, rng, tmp_path):
    path, _ = noise_file(channels=2, seconds=0.2)
    with pytest.raises(FarfeelError, match="does not exist"):
        recorded_noise(tmp_path / "none.wav", 100, np.ones((1, 1)), rng)
    soundfile.write(path, np.full(1000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(FarfeelError, match="NaN"):
        recorded_noise(path, 100, np.ones((1, 1)), rng)
