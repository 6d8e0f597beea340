"""Laws of speech activity: steady noise is not speech, and audio that rises above it is. Block size, gain and dead
microphones do not matter."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.media.speech import FRAME_S, JOIN_S, SpeechActivity, spans

RATE = 16000
BEGIN_S, END_S = 2.0, 4.0
NOISES = ("white", "fan", "hum")


def voice(seconds: float, sample_rate: int = RATE) -> np.ndarray:
    """(T,) a signal like speech, RMS 1: pulses of 120 Hz through two moving formants, four syllables a second."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch_hz = 120 + 15 * np.sin(2 * np.pi * 0.7 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate
    signal = np.zeros_like(time_s)
    for harmonic in range(1, 30):
        hz = harmonic * pitch_hz
        formants = [(500 + 250 * np.sin(2 * np.pi * 2.1 * time_s), 120), (1500 + 500 * np.cos(9 * time_s), 200)]
        gain = sum(np.exp(-(((hz - centre) / width) ** 2) / 2) for centre, width in formants) + 0.02
        signal += gain * np.sin(harmonic * phase)
    signal *= np.clip(np.sin(2 * np.pi * 4 * time_s), 0.02, 1)
    return signal / np.sqrt(np.mean(signal**2))


def steady(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """(T,) noise, RMS 1."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(count) / RATE
    signal = rng.standard_normal(count)
    if kind == "fan":
        spectrum = np.fft.rfft(signal)
        signal = np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(count, 1 / RATE), 60), count)
        signal = signal / signal.std() + np.sin(2 * np.pi * 180 * time_s)
    if kind == "hum":
        signal = 0.02 * signal + sum(np.sin(2 * np.pi * 50 * k * time_s) / k for k in (1, 2, 3, 5, 7))
    return signal / signal.std()


def scene(mics: int = 1, level_db: float = -20.0, snr_db: float = 20.0, kind: str = "white") -> np.ndarray:
    """(M, T) 6 s of noise with a voice of level_db from BEGIN_S to END_S."""
    audio = np.zeros((mics, 6 * RATE))
    audio[:, round(BEGIN_S * RATE) : round(END_S * RATE)] = voice(END_S - BEGIN_S)
    audio += 10 ** (-snr_db / 20) * np.stack([steady(kind, audio.shape[1], mic) for mic in range(mics)])
    return (10 ** (level_db / 20) * audio).astype(np.float32)


def flags_of(audio: np.ndarray, sample_rate: int = RATE) -> np.ndarray:
    return SpeechActivity(sample_rate, len(audio)).push(audio)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("level_db", [-20.0, -45.0])
@pytest.mark.parametrize("snr_db", [10.0, 20.0, 40.0])
def test_a_voice_is_speech_and_the_noise_around_it_is_not(kind: str, level_db: float, snr_db: float) -> None:
    speech = spans(flags_of(scene(2, level_db, snr_db, kind)))
    assert speech[0][0] == pytest.approx(BEGIN_S, abs=0.2)
    assert speech[-1][1] == pytest.approx(END_S, abs=0.3)
    assert sum(end_s - start_s for start_s, end_s in speech) == pytest.approx(END_S - BEGIN_S, abs=0.4)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("level_db", [-60.0, -30.0, -3.0])
@pytest.mark.parametrize("mics", [1, 4])
def test_steady_noise_is_not_speech_however_loud(kind: str, level_db: float, mics: int) -> None:
    noise = np.stack([steady(kind, 20 * RATE, 7 + mic) for mic in range(mics)]) * 10 ** (level_db / 20)
    assert flags_of(noise.astype(np.float32)).mean() < 0.01


def test_digital_silence_is_not_speech_and_a_voice_after_it_is() -> None:
    silence = np.zeros((1, RATE), dtype=np.float32)
    assert not flags_of(silence).any()
    talk = (0.1 * voice(2.0)[None]).astype(np.float32)
    assert spans(flags_of(np.concatenate([silence, talk, silence], axis=1)))[0][0] == pytest.approx(1.0, abs=0.1)


def test_a_fan_that_starts_is_soon_background() -> None:
    noise = steady("fan", 10 * RATE)
    noise[: 4 * RATE] *= 0.01
    assert not flags_of(0.1 * noise[None].astype(np.float32))[round(7 / FRAME_S) :].any()


def test_a_recording_may_begin_with_a_voice() -> None:
    audio = scene()[:, round(BEGIN_S * RATE) :]
    assert flags_of(audio)[: round(2.0 / FRAME_S)].mean() > 0.75


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 3 * RATE), max_size=12).map(sorted),
    sample_rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
)
def test_block_size_does_not_matter(cuts: list[int], sample_rate: int) -> None:
    audio = scene(2)[:, round(1.5 * RATE) :][:, : 3 * RATE]
    activity = SpeechActivity(sample_rate, 2)
    pieces = [activity.push(block) for block in np.split(audio, cuts, axis=1)]
    assert np.array_equal(np.concatenate(pieces), flags_of(audio, sample_rate))


def test_a_frame_does_not_depend_on_later_audio() -> None:
    audio = scene()
    whole = flags_of(audio)
    part = flags_of(audio[:, : 3 * RATE])
    assert len(part) == round(3 / FRAME_S)
    assert np.array_equal(part, whole[: len(part)])


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_frames_do_not_drift_at_any_sample_rate(sample_rate: int) -> None:
    flags = flags_of(np.zeros((1, 60 * sample_rate), dtype=np.float32), sample_rate)
    assert len(flags) == 2000


@settings(deadline=None, max_examples=15)
@given(gain_db=st.floats(-25.0, 20.0))
def test_gain_does_not_matter(gain_db: float) -> None:
    audio = scene(2, level_db=-30.0)
    louder = (audio.astype(np.float64) * 10 ** (gain_db / 20)).astype(np.float32)
    assert np.mean(flags_of(louder) != flags_of(audio)) < 0.01


@pytest.mark.parametrize("value", [0.0, 0.25, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_dead_microphone_changes_nothing(value: float, position: int) -> None:
    audio = scene(2)
    with_dead = np.insert(audio, position, np.float32(value), axis=0)
    assert np.array_equal(flags_of(with_dead), flags_of(audio))


def test_samples_that_are_not_finite_have_no_lasting_effect() -> None:
    audio = scene(2)
    audio[0, RATE : RATE + 5] = np.nan
    speech = spans(flags_of(audio))
    assert speech[0][0] == pytest.approx(BEGIN_S, abs=0.2)
    assert speech[-1][1] == pytest.approx(END_S, abs=0.3)


def test_dead_microphones_alone_are_silence() -> None:
    assert not flags_of(np.full((2, RATE), np.nan, dtype=np.float32)).any()
    assert flags_of(np.empty((2, 0), dtype=np.float32)).shape == (0,)


@given(flags=st.lists(st.booleans(), max_size=200))
def test_spans_contain_every_flag_and_are_separate(flags: list[bool]) -> None:
    speech = spans(flags)
    for at, flag in enumerate(flags):
        middle_s = (at + 0.5) * FRAME_S
        assert not flag or any(start_s < middle_s < end_s for start_s, end_s in speech)
    for (_, end_s), (start_s, _) in pairwise(speech):
        assert start_s - end_s >= JOIN_S - 1e-6
    assert all(0 <= start_s < end_s <= len(flags) * FRAME_S + 1e-6 for start_s, end_s in speech)
