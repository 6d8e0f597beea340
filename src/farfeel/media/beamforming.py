"""Blind MVDR beamforming: several microphones suppress everything that does not come from the talker.

    (M, T) -- STFT --> (F, N, M) -- covariances (F, M, M) of the loud frames and of the quiet frames
           -- MVDR, once for each reference microphone --> (M, T)

The beamformer is blind. It needs no array geometry, no calibration and no training, and it accepts any number of
microphones. It returns one output for each microphone. Output m has the level, the spectrum and the delay of microphone
m, with less noise. So the output can be used wherever the M microphones can be used.

Loud frames are taken as the talker. Quiet frames, in which the talker pauses, are taken as noise. The noise is assumed
to continue while the talker speaks.

Source: minimum variance distortionless response (Capon, 1969), steered by covariance whitening (Markovich, Gannot and
Cohen, 2009).

Letters: M microphones, T samples, F frequencies, N frames.
"""

from __future__ import annotations

import numpy as np

from farfeel.media.blocks import in_blocks

FRAME_S = 0.032
LOUDNESS_HZ = (200.0, 5000.0)  # The loudness of a frame is measured in this band.
# Quantiles of the frames' loudness: frames below the first are noise, frames above the second are the talker.
QUIET_QUANTILE, LOUD_QUANTILE = 0.25, 0.5
# Diagonal loading of the noise covariance. At low frequencies an array of 10 cm acts like a single point.
NOISE_LOADING = 1e-3  # as a share of the noise power
TALKER_LOADING = 1e-2  # as a share of the talker's power: noise 20 dB below the talker is not worth a distortion
CLEAN_SNR_DB = 25.0  # At this SNR the beamformed and the original signal are mixed half and half.
TINY = 1e-12


def beamform(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Suppress noise and other talkers. A single microphone, or less than four frames of audio, is returned unchanged.

    Args:
        audio: (M, T) samples of M working microphones. Dead microphones must be removed before.
        sample_rate: In hertz.

    Returns:
        (M, T) float32, one output for each microphone, in the same order.
    """
    return in_blocks(audio, sample_rate, lambda block: _beamform_block(block, sample_rate))


def _beamform_block(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    from scipy.signal import ShortTimeFFT, get_window  # The import takes half a second.

    frame = 2 * round(FRAME_S * sample_rate / 2)
    if len(audio) < 2 or audio.shape[1] < 4 * frame:
        return audio
    # All microphones are brought to one level: otherwise the loudest alone would decide about the directions.
    level = np.sqrt(np.mean(np.square(audio, dtype=np.float64), axis=1, keepdims=True)) + TINY
    transform = ShortTimeFFT(get_window("hann", frame), frame // 2, sample_rate, phase_shift=None)
    spectrum = transform.stft(audio / level).transpose(1, 2, 0)  # (F, N, M)
    loudness_db = _loudness_db(spectrum, transform.f)
    quiet_db, loud_db = np.quantile(loudness_db, (QUIET_QUANTILE, LOUD_QUANTILE))
    talker, noise = _covariance(spectrum[:, loudness_db >= loud_db]), _covariance(spectrum[:, loudness_db <= quiet_db])
    filters = gated_mvdr(talker, noise)
    beamformed = (spectrum @ filters.conj()).transpose(2, 0, 1)
    return np.asarray(transform.istft(beamformed, k1=audio.shape[1]) * level, dtype=np.float32)


def gated_mvdr(talker: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`mvdr` filters at noisy frequencies, identity filters at clean ones, and a weighted mean of both in between.

    Args:
        talker: (F, M, M) covariances of the frames with the talker.
        noise: (F, M, M) covariances of the frames without.

    Returns:
        (F, M, M) complex filters, one column for each reference microphone.
    """
    talker_power, noise_power = (np.trace(each, axis1=1, axis2=2).real for each in (talker, noise))
    weight = 1 / (1 + talker_power / (10 ** (CLEAN_SNR_DB / 10) * noise_power + TINY))
    weight = weight[:, None, None]
    return np.asarray(weight * mvdr(talker, noise) + (1 - weight) * np.eye(talker.shape[1]))


def mvdr(talker: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """MVDR filters. They pass the talker's direction unchanged and suppress everything else as far as possible.

    The direction is the principal generalised eigenvector of the two covariances, multiplied by the noise covariance.
    Souden's form (noise^-1 talker / trace) needs no direction. But it attenuates a frequency to 1/M where talker and
    noise have the same covariance, which changes the talker's spectrum.

    Args:
        talker: (F, M, M) covariances of the frames with the talker.
        noise: (F, M, M) covariances of the frames without.

    Returns:
        (F, M, M) complex filters, one column for each reference microphone.
    """
    mics = talker.shape[1]
    talker_power, noise_power = (np.trace(each, axis1=1, axis2=2).real / mics for each in (talker, noise))
    loading = NOISE_LOADING * noise_power + TALKER_LOADING * talker_power + TINY
    root = np.linalg.cholesky(noise + loading[:, None, None] * np.eye(mics))
    whitened = np.linalg.solve(root, np.linalg.solve(root, talker).conj().swapaxes(1, 2))  # L^-1 talker L^-H
    _, vectors = np.linalg.eigh((whitened + whitened.conj().swapaxes(1, 2)) / 2)
    principal = vectors[..., -1:]
    direction = root @ principal
    filters = np.linalg.solve(root.conj().swapaxes(1, 2), principal)  # L^-H v
    return np.asarray(filters * direction.conj().swapaxes(1, 2))


def _covariance(spectrum: np.ndarray) -> np.ndarray:
    """(F, N, M) → (F, M, M), the mean of x x^H over frames."""
    return np.asarray(spectrum.swapaxes(1, 2) @ spectrum.conj()) / spectrum.shape[1]


def _loudness_db(spectrum: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """(F, N, M) spectrum and its (F,) frequencies → (N,) loudness of each frame."""
    in_band = (hz >= LOUDNESS_HZ[0]) & (hz <= LOUDNESS_HZ[1])
    return np.asarray(10 * np.log10(np.mean(np.abs(spectrum[in_band]) ** 2, axis=(0, 2)) + TINY))
