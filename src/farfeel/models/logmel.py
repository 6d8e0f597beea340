"""From a waveform to a log-mel spectrogram, as in the reference.

A periodic Hann window of 1024 points, centred frames with reflected edges, the power spectrum, Slaney mel filters with
Slaney area normalisation, and 10 log10 with a floor of 1e-10. It is computed in float32, whatever the precision of the
network: squared magnitudes of quiet far-field speech need the exponent and the mantissa.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from farfeel.recipe import Audio

SPEECH_DB = 30.0  # A frame whose loudest band is further below the recording's is a pause.
POWER_FLOOR = 1e-10  # -100 dB: far below any microphone's noise, and no log of zero.


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Slaney's Auditory Toolbox scale (1998): linear below 1 kHz, logarithmic above (27 steps to a factor 6.4)."""
    hz = np.asarray(hz, dtype=np.float64)
    return np.where(hz < 1000.0, 3.0 * hz / 200.0, 15.0 + 27.0 * np.log(np.maximum(hz, 1e-3) / 1000.0) / np.log(6.4))


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp(np.log(6.4) * (mel - 15.0) / 27.0))


def mel_filters(sample_rate: int, n_fft: int, bands: int, fmin_hz: float, fmax_hz: float) -> np.ndarray:
    """Triangular filters of equal area, (n_fft // 2 + 1, Q) float32. A filter above half the sample rate is empty."""
    bins_hz = np.linspace(0.0, sample_rate / 2.0, n_fft // 2 + 1)
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(fmin_hz), hz_to_mel(fmax_hz), bands + 2))
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - lower) / (centre - lower)
    falling = (upper - bins_hz[:, None]) / (upper - centre)
    triangles = np.clip(np.minimum(rising, falling), 0.0, None)
    return (triangles * 2.0 / (upper - lower)).astype(np.float32)


class LogMel(nn.Module):
    """(B, M, T) waveform → (B, M, Q, F) log-mel in dB, F = T // hop + 1."""

    window: Tensor
    filters: Tensor

    def __init__(self, audio: Audio) -> None:
        super().__init__()
        self.n_fft, self.hop = audio.n_fft, audio.hop
        filters = mel_filters(audio.sample_rate, audio.n_fft, audio.mel_bands, audio.fmin_hz, audio.fmax_hz)
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = torch.stft(
                audio.float().flatten(0, 1),
                self.n_fft,
                self.hop,
                window=self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )  # (B*M, n_fft // 2 + 1, F)
            power = spectrum.real.square() + spectrum.imag.square()
            mels = torch.matmul(self.filters.T, power)
            log_mels = 10.0 * torch.log10(mels.clamp(min=POWER_FLOOR))
        return log_mels.unflatten(0, audio.shape[:2])


def front_end(audio: Tensor, logmel: LogMel, settings: Audio) -> Tensor:
    """(B, M, T) waveforms, at one level if the recipe has `normalise_level` → (B, M, Q, F) log-mels in dB."""
    mels: Tensor = logmel(normalise_level(audio) if settings.normalise_level else audio)
    return mels


def limit_range(mels: Tensor, range_db: float) -> Tensor:
    """(B, M, Q, F) → the same shape, with no value further than range_db below the loudest of its microphone.

    The values below are the noise floor of the recording or the digital silence around a clip. They carry nothing about
    the speaker, and they differ by 60 dB.
    """
    return mels.maximum(mels.amax(dim=(2, 3), keepdim=True) - range_db)


def subtract_mean(mels: Tensor, share: float) -> Tensor:
    """(B, M, Q, F) → the same shape, minus `share` of each band's mean over the frames with speech.

    Those are the frames within SPEECH_DB of the loudest of their microphone. Furui (1981), on log-mels instead of the
    cepstrum.
    """
    loudest = mels.amax(dim=2, keepdim=True)
    speech = (loudest > loudest.amax(dim=3, keepdim=True) - SPEECH_DB).to(mels.dtype)
    mean = (mels * speech).sum(dim=3, keepdim=True) / speech.sum(dim=3, keepdim=True)
    return mels - share * mean


def normalise_level(audio: Tensor) -> Tensor:
    """(B, M, T) → the same shape, each microphone at -26 dB RMS (the usual speech level of ITU-T P.56). The gains of
    microphones differ by 10 dB and more, and carry nothing about the speaker."""
    power = audio.float().square().mean(dim=2, keepdim=True)
    return audio * (10 ** (-26 / 20) / power.clamp(min=1e-12).sqrt())
