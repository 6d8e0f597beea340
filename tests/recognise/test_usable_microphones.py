"""Laws of the microphones that are left out: silent, constant, broken and unplugged ones."""

from collections.abc import Callable

import numpy as np
import pytest

from farfeel.recipe import load_recipe
from farfeel.recognise.microphones import frame_levels, is_silent, judged
from farfeel.recognise.windows import Recording, recording_windows

RATE = 16000


def voice(mics: int, seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """(M, T): bursts of noise that come and go, as syllables do, a little softer at each further microphone."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE)) / RATE
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time_s), 0, 1) ** 2
    dry = 0.1 * syllables * rng.standard_normal(len(time_s))
    room = 1e-4 * rng.standard_normal((mics, len(time_s)))
    return (dry * 0.8 ** np.arange(mics)[:, None] + room).astype(np.float32)


def hum(audio: np.ndarray) -> np.ndarray:
    time_s = np.arange(audio.shape[1]) / RATE
    return sum(np.sin(2 * np.pi * 50 * k * time_s) / k for k in (1, 2, 3, 5)) * 0.02


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray | float]] = {
    "digital silence": lambda audio: 0.0,
    "a constant": lambda audio: -0.48,
    "NaN": lambda audio: np.nan,
    "hiss of an open input": lambda audio: 1e-4 * np.random.default_rng(9).standard_normal(audio.shape[1]),
    "loud hiss": lambda audio: 0.02 * np.random.default_rng(9).standard_normal(audio.shape[1]),
    "hum of the mains": hum,
    "silence from the middle on": lambda audio: np.where(np.arange(audio.shape[1]) < audio.shape[1] // 2, audio[1], 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_microphone_without_a_voice_is_found_and_the_others_stay(fault: str) -> None:
    audio = voice(4)
    audio[1] = FAULTS[fault](audio)
    assert judged(frame_levels(audio, RATE)).usable.tolist() == [True, False, True, True]


@pytest.mark.parametrize("samples", [1, 479, 481, 14_400, 14_639, 50_000])
@pytest.mark.parametrize("peak", [0.0, 1e-6, 2e-5, 1e-4, 0.1, np.nan])
@pytest.mark.parametrize("begin", [0.0, 0.9, 1.0])
def test_a_recording_is_silent_exactly_where_no_microphone_can_be_used(samples: int, peak: float, begin: float) -> None:
    audio = np.full((3, samples), 0.2, np.float32)  # an offset is no sound
    first = round(begin * samples)
    audio[1, first:] += peak * np.random.default_rng(4).standard_normal(samples - first)
    assert is_silent(audio, RATE) == (not judged(frame_levels(audio, RATE)).usable.any())


@pytest.mark.parametrize("change", ["quiet", "far", "gated", "offset"])
def test_a_microphone_that_records_the_voice_stays(change: str) -> None:
    audio = voice(3)
    if change == "quiet":
        audio[2] *= 0.01
    elif change == "far":  # its own noise is 15 dB below the voice
        audio[2] = 0.1 * audio[2] + 0.002 * np.random.default_rng(1).standard_normal(audio.shape[1])
    elif change == "gated":
        audio[2][np.abs(audio[2]) < 0.005] = 0.0
    else:
        audio[2] += 0.2
    assert judged(frame_levels(audio, RATE)).usable.all()


def test_a_word_in_a_minute_of_digital_silence_is_not_silence() -> None:
    audio = np.zeros((1, 60 * RATE), np.float32)
    audio[:, 30 * RATE : 31 * RATE] = voice(1, 1.0)
    assert judged(frame_levels(audio, RATE)).usable.all()


def test_the_order_of_microphones_does_not_matter() -> None:
    audio = voice(5)
    audio[3] = 1e-4 * np.random.default_rng(2).standard_normal(audio.shape[1])
    audio[1] = 0
    order = np.array([4, 1, 0, 3, 2])
    np.testing.assert_array_equal(
        judged(frame_levels(audio[order], RATE)).usable, judged(frame_levels(audio, RATE)).usable[order]
    )


def test_steady_noise_at_all_microphones_tells_nothing_about_any() -> None:
    audio = np.random.default_rng(3).normal(0, 0.01, (3, RATE)).astype(np.float32)
    assert judged(frame_levels(audio, RATE)).usable.all()


def test_what_is_known_of_a_recording_counts_in_a_window_without_speech() -> None:
    audio = voice(2, 6.0)
    audio[1] = 1e-4 * np.random.default_rng(4).standard_normal(audio.shape[1])
    audio[0, 3 * RATE :] = 1e-4 * np.random.default_rng(5).standard_normal(3 * RATE)
    levels = frame_levels(audio, RATE)
    assert judged(levels[:, 110:]).usable.all()
    assert judged(levels[:, 110:], judged(levels)).usable.tolist() == [True, False]


def test_a_window_leaves_out_a_microphone_that_has_died_by_then() -> None:
    recipe = load_recipe("tiny")
    audio = voice(2, 4 * recipe.audio.seconds)
    audio[1, audio.shape[1] // 2 :] = 0
    windows = recording_windows(Recording(audio), recipe)
    assert windows.mic_mask[:, 0].all()
    assert windows.mic_mask[0, 1]
    assert not windows.mic_mask[-1, 1]
    assert windows.faults == {1: "is silent and left out in part of the recording"}
    assert np.isfinite(windows.audio).all()
