import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from farfeel.rooms.acoustics import onset, remove_common_delay
from farfeel.rooms.reverb import add_noise, convolve


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@given(samples=st.integers(1, 700), length=st.integers(1, 900), mics=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_convolution_is_the_exact_linear_one_cut_to_the_dry_length(samples, length, mics, seed):
    dry, taps = random(2, samples, seed=seed), random(2, mics, length, seed=seed + 1)
    expected = fftconvolve(dry.numpy().astype(np.float64)[:, None], taps.numpy(), axes=-1)[..., :samples]
    wet = convolve(dry, taps)
    assert wet.shape == (2, mics, samples)
    assert wet.dtype == torch.float32
    assert np.abs(wet.numpy() - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_a_unit_impulse_is_identity_and_a_later_one_a_delay():
    dry, taps = random(1, 1000), torch.zeros(1, 2, 50)
    taps[0, 0, 0] = taps[0, 1, 30] = 1
    wet = convolve(dry, taps)[0]
    torch.testing.assert_close(wet[0], dry[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(wet[1, 30:], dry[0, :-30], atol=1e-5, rtol=0)
    assert wet[1, :30].abs().max() < 1e-5


def test_convolution_is_linear_in_both_and_keeps_levels_between_microphones():
    a, b, taps = random(1, 500, seed=1), random(1, 500, seed=2), random(1, 1, 100, seed=3)
    torch.testing.assert_close(convolve(2 * a + b, taps), 2 * convolve(a, taps) + convolve(b, taps), atol=1e-4, rtol=0)
    both = torch.cat([taps, 0.125 * taps], dim=1)
    wet = convolve(a, both)
    torch.testing.assert_close(wet[:, 1], 0.125 * wet[:, 0], atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_speech_and_the_room():
    dry, taps = random(1, 30).double().requires_grad_(), random(1, 2, 9).double().requires_grad_()
    add_noise(convolve(dry, taps), torch.zeros(1, 2, 30), torch.tensor([float("inf")])).square().sum().backward()
    for leaf in (dry, taps):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().max() > 0


@given(snr_db=st.floats(-30, 60), level_db=st.floats(-60, 20), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_noise_has_the_asked_level_over_all_microphones(snr_db, level_db, seed):
    clean = random(2, 3, 4000, seed=seed) * torch.tensor([1.0, 0.1, 0.01])[None, :, None]
    noise = random(2, 3, 4000, seed=seed + 1) * 10 ** (level_db / 20)
    added = add_noise(clean.double(), noise.double(), torch.tensor([snr_db, snr_db])) - clean.double()
    found_db = 10 * torch.log10(clean.double().square().sum((1, 2)) / added.square().sum((1, 2)))
    np.testing.assert_allclose(found_db, snr_db, atol=0.01)
    # One gain for all microphones of an item.
    gain = added / noise.double()
    torch.testing.assert_close(gain, gain[:, :1, :1].expand_as(gain), rtol=1e-3, atol=0)


def test_infinite_snr_silent_noise_and_silent_speech_add_nothing():
    clean, noise = random(3, 2, 100), random(3, 2, 100, seed=1)
    clean[1], noise[2] = 0, 0
    noisy = add_noise(clean, noise, torch.tensor([float("inf"), 10.0, 10.0]))
    torch.testing.assert_close(noisy, clean, atol=0, rtol=0)


@given(delay=st.integers(0, 200), later=st.integers(0, 60))
def test_the_common_delay_goes_and_differences_stay(delay, later):
    taps = np.zeros((2, 400), dtype=np.float32)
    taps[0, delay], taps[1, delay + later] = 1.0, 0.25
    aligned = remove_common_delay(taps)
    assert aligned.shape == taps.shape
    assert aligned[0, 0] == 1
    assert aligned[1, later] == 0.25
    assert np.count_nonzero(aligned) == 2


def test_removing_the_delay_of_measured_responses_costs_no_energy(r3vival):
    for rir in r3vival:
        aligned = remove_common_delay(rir.taps)
        assert onset(aligned) == 0
        before, after = (np.square(t, dtype=np.float64).sum(axis=1) for t in (rir.taps, aligned))
        assert 10 * np.log10(before / after).max() == pytest.approx(0, abs=0.2)
