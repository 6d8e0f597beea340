"""Several microphones, one talker: what comes from elsewhere is taken away, without knowing where anything is.

    (M, T) -- STFT --> (F, N, M) -- covariances (F, M, M) of the loud frames and of the quiet ones
           -- MVDR, once for each reference microphone --> (M, T)

Blind: no geometry, no calibration, no training, any number of microphones. Each output is what the beamformer hears
with that microphone as its reference: its level, its colour, its delay, less noise; so whatever took M microphones
takes these. The talker is who is loud; what is heard while he pauses is noise, and goes on while he speaks.

Source: minimum variance distortionless response (Capon, 1969), steered by covariance whitening (Markovich, Gannot and
Cohen, 2009).

Letters: M microphones, T samples, F frequencies, N frames.
"""

from __future__ import annotations

import numpy as np

from farfeel.media.blocks import in_blocks

FRAME_S = 0.032
LOUDNESS_HZ = (200.0, 5000.0)  # where the loudness of a frame is measured
QUIET, LOUD = 0.25, 0.5  # quantiles of the frames' loudness below which there is noise, above which there is the talker
NOISE_LOADING = 1e-3  # of the noise's covariance: an array of 10 cm is one point at low frequencies.
TALKER_LOADING = 1e-2  # the same as a share of the talker's power: what is 20 dB below him is not worth a distortion.
ENOUGH_DB = 25.0  # Noise this far below the talker, or further, is left alone: there is nothing to win.
TINY = 1e-12


def beamform(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(M, T) living microphones → (M, T) float32, the same with less of what does not come from the talker.

    One microphone, or less sound than a few frames, is returned as it is.
    """
    return in_blocks(audio, sample_rate, lambda block: _beamform_block(block, sample_rate))


def _beamform_block(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    from scipy.signal import ShortTimeFFT, get_window  # half a second, which those without a beamformer do not wait

    frame = 2 * round(FRAME_S * sample_rate / 2)
    if len(audio) < 2 or audio.shape[1] < 4 * frame:
        return audio
    # Gains mean nothing, and the loudest microphone must not be all that directions are made of.
    level = np.sqrt(np.mean(np.square(audio, dtype=np.float64), axis=1, keepdims=True)) + TINY
    transform = ShortTimeFFT(get_window("hann", frame), frame // 2, sample_rate, phase_shift=None)
    heard = transform.stft(audio / level).transpose(1, 2, 0)  # (F, N, M)
    level_db = _loudness_db(heard, transform.f)
    quiet, loud = np.quantile(level_db, (QUIET, LOUD))
    filters = gated_mvdr(_covariance(heard[:, level_db >= loud]), _covariance(heard[:, level_db <= quiet]))
    found = (heard @ filters.conj()).transpose(2, 0, 1)
    return np.asarray(transform.istft(found, k1=audio.shape[1]) * level, dtype=np.float32)


def gated_mvdr(talker: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """`mvdr` in frequencies with noise, the microphones as they are in those without, and a mean of both between."""
    of_talker, of_rest = (np.trace(each, axis1=1, axis2=2).real for each in (talker, rest))
    needed = 1 / (1 + of_talker / (10 ** (ENOUGH_DB / 10) * of_rest + TINY))
    needed = needed[:, None, None]
    return np.asarray(needed * mvdr(talker, rest) + (1 - needed) * np.eye(talker.shape[1]))


def mvdr(talker: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Covariances (F, M, M) of talker and rest → filters (F, M, M), one column for each reference microphone.

    What stands out most from the rest is the talker's direction d, the greatest generalised eigenvector times the rest;
    the filter lets d pass unchanged and everything else as little as it can. (Souden's form, rest^-1 talker / trace,
    needs no d, and gives 1/M of a frequency in which talker and rest are alike: a colour that nobody spoke.)
    """
    mics = talker.shape[1]
    of_talker, of_rest = (np.trace(each, axis1=1, axis2=2).real / mics for each in (talker, rest))
    loading = NOISE_LOADING * of_rest + TALKER_LOADING * of_talker + TINY
    root = np.linalg.cholesky(rest + loading[:, None, None] * np.eye(mics))
    whitened = np.linalg.solve(root, np.linalg.solve(root, talker).conj().swapaxes(1, 2))  # L^-1 talker L^-H
    _, vectors = np.linalg.eigh((whitened + whitened.conj().swapaxes(1, 2)) / 2)
    best = vectors[..., -1:]
    direction = root @ best
    filters = np.linalg.solve(root.conj().swapaxes(1, 2), best)  # L^-H v
    return np.asarray(filters * direction.conj().swapaxes(1, 2))


def _covariance(heard: np.ndarray) -> np.ndarray:
    """(F, N, M) → (F, M, M) mean of x x^H."""
    return np.asarray(heard.swapaxes(1, 2) @ heard.conj()) / heard.shape[1]


def _loudness_db(heard: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """(F, N, M) → (N,)"""
    speech = (hz >= LOUDNESS_HZ[0]) & (hz <= LOUDNESS_HZ[1])
    return np.asarray(10 * np.log10(np.mean(np.abs(heard[speech]) ** 2, axis=(0, 2)) + TINY))
