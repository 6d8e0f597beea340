"""The room's late sound taken away, without knowing where anything is.

    (M, T) -- STFT --> (F, M, N) -- in each frequency: what the past frames of all microphones predict is taken off
           -- inverse STFT --> (M, T)

Blind: no geometry, no training, any number of microphones, one as well; the more there are, the better a room's tail is
predicted from what they heard before. Speech is not predicted that far ahead, so it stays.

Source: weighted prediction error (Nakatani, Yoshioka, Kinoshita, Miyoshi and Juang, IEEE TASLP 2010, 18(7)), its first
iteration: a second takes as long again, and brings the log-mels hardly nearer to those of the dry voice.

Letters: M microphones, T samples, F frequencies, N frames, P predictors.
"""

from __future__ import annotations

import numpy as np

from farfeel.media.blocks import in_blocks

FRAME_S, HOP_S = 0.032, 0.008
# Chosen on simulated rooms (array of 10 cm, T60 0.4 to 0.8 s) by the log-mels' distance to those of the dry voice.
DELAY = 4  # hops between a frame and the last that predicts it: 32 ms, in which speech predicts itself
TAPS = 20  # frames that predict, at most, of each microphone
PREDICTORS = 70  # at most, of all microphones together
FRAMES_EACH = 5  # frames there must be for each predictor, or it learns the speech by heart
POWER_FLOOR = 1e-10  # of a frame, as a share of the loudest
LOADING = 1e-5  # of the predictors' covariance: an array of 10 cm is one point at low frequencies.
TINY = 1e-20


def dereverberate(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(M, T) living microphones → (M, T) float32, the same with less of the room's late sound.

    Too little sound to tell one from the other is returned as it is.
    """
    return in_blocks(audio, sample_rate, lambda block: _dereverberate_block(block, sample_rate))


def _dereverberate_block(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    from scipy.signal import ShortTimeFFT, get_window  # half a second, which those without a front-end do not wait

    hop = round(HOP_S * sample_rate)
    taps = min(TAPS, min(PREDICTORS, audio.shape[1] // hop // FRAMES_EACH) // len(audio))
    if not taps:
        return audio
    # Gains mean nothing, and the loudest microphone must not be all that is looked at.
    level = np.sqrt(np.mean(np.square(audio, dtype=np.float64), axis=1, keepdims=True)) + TINY
    transform = ShortTimeFFT(get_window("hann", round(FRAME_S * sample_rate)), hop, sample_rate, phase_shift=None)
    heard = transform.stft(audio / level).swapaxes(0, 1)  # (F, M, N)
    found = np.stack([_without_tail(frequency, taps) for frequency in heard], axis=1)
    return np.asarray(transform.istft(found, k1=audio.shape[1]) * level, dtype=np.float32)


def _without_tail(heard: np.ndarray, taps: int) -> np.ndarray:
    """(M, N) one frequency → (M, N) less its prediction from the past."""
    mics, frames = heard.shape
    past = np.zeros((taps, mics, frames), heard.dtype)
    for tap in range(taps):
        past[tap, :, DELAY + tap :] = heard[:, : frames - DELAY - tap]
    past = past.reshape(taps * mics, frames)  # (P, N)
    power = np.mean(heard.real**2 + heard.imag**2, axis=0)
    weighted = past * (1 / (power + POWER_FLOOR * power.max() + TINY))
    covariance = weighted @ past.conj().T
    covariance += (LOADING * np.trace(covariance).real / len(past) + TINY) * np.eye(len(past))
    predictor = np.linalg.solve(covariance, weighted @ heard.conj().T)  # (P, M)
    return np.asarray(heard - predictor.conj().T @ past)
