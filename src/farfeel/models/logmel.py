"""From a waveform to a log-mel spectrogram, as in the reference.

A periodic Hann window of 1024 points, centred frames with reflected edges, the power spectrum, Slaney mel filters with
Slaney area normalisation, and 10 log10 with a floor of 1e-10. It is computed in float32 with any precision of the
network: squared magnitudes of quiet far-field speech need the exponent and the mantissa.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from farfeel.media.mel import POWER_FLOOR, mel_filters
from farfeel.recipe import Audio

SPEECH_DB = 30.0  # A frame whose loudest band is further below the recording's is a pause.


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
