"""Which microphones of a recording can be used, window by window.

A microphone is left out where it is silent, constant or not finite while others record, and where it carries steady
noise alone (an input without a microphone: hiss, hum) while another carries sound that comes and goes, as speech does.
A far microphone that is quiet is kept, if what it records rises and falls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRAME_S = 0.03
LOW_HZ = 20.0  # Below are offsets and rumble.
EMPTY_DB = -120.0  # A frame below this is digital silence or a constant; the noise of 16 bits is at -98 dB.
SILENCE_DB = -90.0  # A microphone records nothing if none of its frames is louder.
ACTIVE_DB = 25.0  # A frame is active where some microphone is within this of the loudest frame of all.
MISSING = 0.1  # share of the active frames in which a microphone may be silent more than the best one
MOVING_DB = 15.0  # range of levels of a microphone that records something that comes and goes
STEADY_DB = 3.0  # range of levels of a microphone that records steady noise alone
FAINT_DB = 30.0  # A microphone this far below the loudest one is steady already with the next range.
FAINT_STEADY_DB = 6.0
BLOCK = 2000  # frames in one Fourier transform: bounds the memory of a long recording
STRETCH = 30  # frames that are searched for a sound at a time


def frame_levels(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """The level of each frame of FRAME_S above LOW_HZ, without any constant part.

    audio: (M, T) float; NaN and infinity count as silence. Returns (M, F) in dB of full scale, EMPTY_DB or less where
    nothing is recorded; at least one frame.
    """
    length = max(1, round(FRAME_S * sample_rate))
    mics, samples = audio.shape
    count = max(1, samples // length)
    frames = np.zeros((mics, count * length), np.float32)
    kept = min(samples, count * length)
    frames[:, :kept] = np.nan_to_num(audio[:, :kept], nan=0.0, posinf=0.0, neginf=0.0)
    frames = frames.reshape(mics, count, length)
    window = np.hanning(length + 2)[1:-1].astype(np.float32)
    first = int(np.ceil(LOW_HZ * length / sample_rate))
    scale = 2.0 / (length * float(np.sum(window**2)))
    levels = np.empty((mics, count))
    for start in range(0, count, BLOCK):
        block = frames[:, start : start + BLOCK]
        spectrum = np.fft.rfft((block - block.mean(axis=2, keepdims=True)) * window, axis=2)[..., first:]
        power = scale * np.sum(spectrum.real**2 + spectrum.imag**2, axis=2)
        levels[:, start : start + BLOCK] = 10 * np.log10(np.maximum(power, 1e-14))
    return levels


def is_silent(audio: np.ndarray, sample_rate: int) -> bool:
    """Whether none of the microphones records anything: `judged` then finds none that can be used.

    audio: (M, T), as `frame_levels` takes it. A recording is read only up to its first sound.
    """
    length = max(1, round(FRAME_S * sample_rate))
    frames = max(1, audio.shape[1] // length)
    stretches = (
        audio[:, first * length : min(first + STRETCH, frames) * length] for first in range(0, frames, STRETCH)
    )
    return all(frame_levels(stretch, sample_rate).max() <= SILENCE_DB for stretch in stretches)


@dataclass(frozen=True)
class Microphones:
    """What is known of M microphones in a stretch of a recording: (M,) bool each."""

    silent: np.ndarray
    only_noise: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """(M,) bool; none of them where all are silent."""
        return ~(self.silent | self.only_noise)

    def fault(self, mic: int) -> str:
        """Why a microphone is left out; "" where it is used."""
        if self.silent[mic]:
            return "is silent and left out"
        return "records only steady noise and is left out" if self.only_noise[mic] else ""


def judged(levels: np.ndarray, before: Microphones | None = None) -> Microphones:
    """Judge the microphones by the levels of their frames.

    levels: (M, F) of `frame_levels`. before: what was known of them earlier, or of the whole recording. It counts where
    nothing in this stretch rises and falls: there, a microphone cannot be told from an input without one.
    """
    empty = levels <= EMPTY_DB
    quiet, loud = np.percentile(np.maximum(levels, EMPTY_DB), [10, 95], axis=1)
    silent = np.asarray(levels.max(axis=1) <= SILENCE_DB)
    if (~silent).sum() < 2:
        return Microphones(silent, np.zeros_like(silent))
    active = levels.max(axis=0) >= levels.max() - ACTIVE_DB
    missing = empty[:, active].mean(axis=1)
    silent = np.asarray(silent | (missing > missing[~silent].min() + MISSING), dtype=bool)
    moving = ~silent & (loud - quiet >= MOVING_DB)
    if not moving.any():
        known = np.zeros_like(silent) if before is None else before.only_noise & ~silent
        some_left = not (known | silent).all()
        return Microphones(silent, known if some_left else np.zeros_like(silent))
    faint = loud < loud[moving].max() - FAINT_DB
    return Microphones(silent, ~silent & (loud - quiet < np.where(faint, FAINT_STEADY_DB, STEADY_DB)))
