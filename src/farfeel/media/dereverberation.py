"""Blind dereverberation: late reverberation is predicted from past frames and subtracted.

    (M, T) -- STFT --> (F, M, N) -- at each frequency: subtract what the past frames of all microphones predict
           -- inverse STFT --> (M, T)

The method is blind. It needs no array geometry and no training, and it works with any number of microphones, even one.
More microphones predict the reverberation better. Speech cannot be predicted that far ahead, so it is kept.

Source: weighted prediction error (Nakatani, Yoshioka, Kinoshita, Miyoshi and Juang, IEEE TASLP 2010, 18(7)). Only the
first iteration is computed. A second one doubles the time and hardly brings the log-mels closer to those of dry speech.

Letters: M microphones, T samples, F frequencies, N frames, P predictors.
"""

from __future__ import annotations

import numpy as np

from farfeel.media.blocks import in_blocks

FRAME_S, HOP_S = 0.032, 0.008
# The next four were chosen on simulated rooms (array of 10 cm, T60 0.4 to 0.8 s). The criterion was the distance
# between the log-mels and those of dry speech.
DELAY = 4  # hops between a frame and the latest frame that predicts it: 32 ms, within which speech predicts itself
TAPS = 20  # largest number of past frames of each microphone that are used as predictors
PREDICTORS = 70  # largest number of predictors, over all microphones
FRAMES_EACH = 5  # frames needed for each predictor: with fewer, the filter overfits to the speech
POWER_FLOOR = 1e-10  # smallest power of a frame, as a share of the loudest frame
LOADING = 1e-5  # diagonal loading of the predictors' covariance: at low frequencies a small array acts like one point
TINY = 1e-20


def dereverberate(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Reduce late reverberation. Audio that is too short to estimate the filters is returned unchanged.

    Args:
        audio: (M, T) samples of M working microphones. Dead microphones must be removed before.
        sample_rate: In hertz.

    Returns:
        (M, T) float32, one output for each microphone, in the same order.
    """
    return in_blocks(audio, sample_rate, lambda block: _dereverberate_block(block, sample_rate))


def _dereverberate_block(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    from scipy.signal import ShortTimeFFT, get_window  # The import takes half a second.

    hop = round(HOP_S * sample_rate)
    taps = min(TAPS, min(PREDICTORS, audio.shape[1] // hop // FRAMES_EACH) // len(audio))
    if not taps:
        return audio
    # All microphones are brought to one level: otherwise the loudest alone would decide about the filters.
    level = np.sqrt(np.mean(np.square(audio, dtype=np.float64), axis=1, keepdims=True)) + TINY
    transform = ShortTimeFFT(get_window("hann", round(FRAME_S * sample_rate)), hop, sample_rate, phase_shift=None)
    spectrum = transform.stft(audio / level).swapaxes(0, 1)  # (F, M, N)
    clean = np.stack([_subtract_prediction(frequency, taps) for frequency in spectrum], axis=1)
    return np.asarray(transform.istft(clean, k1=audio.shape[1]) * level, dtype=np.float32)


def _subtract_prediction(spectrum: np.ndarray, taps: int) -> np.ndarray:
    """(M, N) spectrum at one frequency → (M, N) the same minus its prediction from past frames."""
    mics, frames = spectrum.shape
    past = np.zeros((taps, mics, frames), spectrum.dtype)
    for tap in range(taps):
        past[tap, :, DELAY + tap :] = spectrum[:, : frames - DELAY - tap]
    past = past.reshape(taps * mics, frames)  # (P, N)
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=0)
    weighted = past * (1 / (power + POWER_FLOOR * power.max() + TINY))
    covariance = weighted @ past.conj().T
    covariance += (LOADING * np.trace(covariance).real / len(past) + TINY) * np.eye(len(past))
    predictor = np.linalg.solve(covariance, weighted @ spectrum.conj().T)  # (P, M)
    return np.asarray(spectrum - predictor.conj().T @ past)
