import numpy as np
import pytest
from generated import SAMPLE_RATE, exponential
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroomacoustics.experimental import measure_rt60

from farfeel.rooms.acoustics import c50_db, drr_db, edt_s, measure, onset, t60_s
from farfeel.types import Rir


@given(asked_s=st.floats(0.1, 1.5), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_an_exponential_decay_has_the_t60_and_edt_it_was_made_with(asked_s, seed):
    taps = exponential(asked_s, seconds=asked_s, rng=np.random.default_rng(seed))[0]
    assert t60_s(taps, SAMPLE_RATE) == pytest.approx(asked_s, rel=0.02)
    assert edt_s(taps, SAMPLE_RATE) == pytest.approx(asked_s, rel=0.02)


@given(asked_s=st.floats(0.2, 1.2), gain_db=st.floats(-80, 40), delay=st.integers(0, 3000), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_acoustics_do_not_depend_on_gain_delay_or_padding(asked_s, gain_db, delay, seed):
    taps = exponential(asked_s, seconds=0.8, rng=np.random.default_rng(seed), mics=2)
    taps[:, 0] *= 10
    other = np.pad(taps * 10 ** (gain_db / 20), ((0, 0), (delay, 1000)))
    expected, found = (measure(Rir(t, SAMPLE_RATE, "room")) for t in (taps, other))
    for name in ("t60_s", "edt_s", "drr_db", "c50_db"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("asked_s", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("floor_db", [-60, -50])
def test_a_noise_floor_leaves_t60_within_5_percent(asked_s, floor_db, rng):
    taps = exponential(asked_s, seconds=1.5, rng=rng)[0]
    noisy = taps + 10 ** (floor_db / 20) * rng.standard_normal(len(taps))
    assert t60_s(noisy, SAMPLE_RATE) == pytest.approx(asked_s, rel=0.05)


def test_t60_agrees_with_pyroomacoustics_on_measured_rooms(r3vival):
    for rir in r3vival[::10]:
        for taps in rir.taps[::3]:
            reference = measure_rt60(taps, SAMPLE_RATE, decay_db=20)
            assert t60_s(taps, SAMPLE_RATE) == pytest.approx(reference, rel=0.02)


@pytest.mark.parametrize(("room", "published_s"), [("r3vival_000", 0.66), ("r3vival_050", 0.48), ("r3vival_100", 0.43)])
def test_measured_t60_is_the_published_one(r3vival, room, published_s):
    found_s = [rir.t60_s for rir in r3vival if rir.room == room]
    assert np.median(found_s) == pytest.approx(published_s, rel=0.05)


def test_drr_and_c50_are_the_ratios_of_the_energies(rng):
    taps = np.zeros(SAMPLE_RATE)
    taps[100], taps[100 + 160], taps[100 + 1600] = 1.0, 0.5, 0.25  # direct, after 10 ms, after 100 ms
    assert drr_db(taps, SAMPLE_RATE) == pytest.approx(10 * np.log10(1 / (0.25 + 0.0625)))
    assert c50_db(taps, SAMPLE_RATE) == pytest.approx(10 * np.log10(1.25 / 0.0625))


def test_a_reflection_louder_than_the_direct_sound_is_not_taken_for_it():
    taps = np.zeros(SAMPLE_RATE)
    taps[100], taps[300] = 0.5, 1.0
    assert drr_db(taps, SAMPLE_RATE) == pytest.approx(20 * np.log10(0.5))


def test_a_response_that_does_not_decay_has_no_t60(rng):
    assert np.isnan(t60_s(rng.standard_normal(8000), SAMPLE_RATE))
    assert np.isnan(t60_s(exponential(3.0, seconds=0.5, rng=rng)[0], SAMPLE_RATE))


def test_a_dead_microphone_changes_neither_onset_nor_acoustics(rng):
    taps = np.pad(exponential(0.4, seconds=0.6, rng=rng), ((0, 1), (50, 0)))
    assert onset(taps) == 50
    assert measure(Rir(taps, SAMPLE_RATE, "room")) == measure(Rir(taps[:1], SAMPLE_RATE, "room"))
    assert np.isnan(measure(Rir(np.zeros((2, 8000)), SAMPLE_RATE, "room")).t60_s)
