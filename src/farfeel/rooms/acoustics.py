"""What a room does to sound, measured on its impulse response: reverberation time, early decay, DRR, clarity.

Conventions: one response is `taps` (L,); it may begin with any delay and end in recording noise or in padding.

The decay is Schroeder's backward integral. It ends where the decay meets the noise floor; the energy that the decay
would still have had there is added (ISO 3382-1). The search for the floor is a short form of Lundeby's.

Sources: Schroeder, J. Acoust. Soc. Am. 37 (1965); Lundeby, Vigran, Bietz & Vorländer, Acustica 81 (1995);
ISO 3382-1:2009; Zahorik, J. Acoust. Soc. Am. 112 (2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfiltfilt

from farfeel.types import Rir

OCTAVES_HZ = (500.0, 1000.0, 2000.0)  # centres of the bands of speech; together 354 to 2828 Hz
ONSET_DB = -20.0  # ISO 3382-1: a response begins where it first comes within 20 dB of its peak.
DIRECT_PEAK_S = 0.001  # The direct peak is the largest tap within this after the onset; later taps are reflections.
DIRECT_WINDOW_S = 0.0025  # on each side of the direct peak (Zahorik, 2002)
BLOCK_S = 0.005  # Energy is averaged over this before the search for the noise floor.
FLOOR_SHARE = 0.1  # The last tenth of a recording counts as noise until the decay turns out to end earlier.
FLOOR_MARGIN_DB = 10.0  # The decay's slope is measured this far above the floor (Lundeby: 5 to 10 dB).
FILTER_REST_S = 0.05  # silence added before a response, so that the filters start at rest


@dataclass(frozen=True)
class Acoustics:
    """Medians over the microphones: T60 (as T20) and EDT, averaged over OCTAVES_HZ; DRR and C50 of all frequencies."""

    t60_s: float
    edt_s: float
    drr_db: float
    c50_db: float


def measure(rir: Rir) -> Acoustics:
    """Acoustics of a response (M, L). NaN for a quantity that cannot be measured at any microphone."""
    # Without the padding: the filters would ring into it where a response is cut off.
    nonzero = np.flatnonzero(np.any(rir.taps != 0, axis=0))
    responses = rir.taps[:, : nonzero[-1] + 1 if len(nonzero) else 0]
    octaves = [_octave(responses, rir.sample_rate, centre_hz) for centre_hz in OCTAVES_HZ]
    per_mic = []
    for mic, taps in enumerate(responses):
        if not taps.any():  # a dead microphone
            continue
        decays = [decay_db(octave[mic], rir.sample_rate) for octave in octaves]
        per_mic.append(
            (
                np.mean([_decay_time_s(decay, rir.sample_rate, -5.0, -25.0) for decay in decays]),
                np.mean([_decay_time_s(decay, rir.sample_rate, 0.0, -10.0) for decay in decays]),
                drr_db(taps, rir.sample_rate),
                c50_db(taps, rir.sample_rate),
            )
        )
    columns = zip(*per_mic, strict=True) if per_mic else ((), (), (), ())
    return Acoustics(*(_median(column) for column in columns))


def t60_s(taps: np.ndarray, sample_rate: int) -> float:
    """(L,) → reverberation time over all frequencies, as T20: decay from -5 to -25 dB, times three.

    NaN where the response does not decay by 25 dB before its end or its noise floor.
    """
    return _decay_time_s(decay_db(taps, sample_rate), sample_rate, -5.0, -25.0)


def edt_s(taps: np.ndarray, sample_rate: int) -> float:
    """(L,) → early decay time over all frequencies: decay from 0 to -10 dB, times six."""
    return _decay_time_s(decay_db(taps, sample_rate), sample_rate, 0.0, -10.0)


def drr_db(taps: np.ndarray, sample_rate: int) -> float:
    """(L,) → direct-to-reverberant ratio: energy within 2.5 ms of the direct peak over all energy after it."""
    start = onset(taps)
    peak = start + int(np.abs(taps[start : start + round(DIRECT_PEAK_S * sample_rate) + 1]).argmax())
    window = round(DIRECT_WINDOW_S * sample_rate)
    energy = np.square(taps, dtype=np.float64)
    return _ratio_db(energy[max(0, peak - window) : peak + window + 1].sum(), energy[peak + window + 1 :].sum())


def c50_db(taps: np.ndarray, sample_rate: int) -> float:
    """(L,) → clarity: energy in the first 50 ms over the energy after them (ISO 3382-1)."""
    energy = np.square(taps[onset(taps) :], dtype=np.float64)
    early = round(0.05 * sample_rate)
    return _ratio_db(energy[:early].sum(), energy[early:].sum())


def onset(taps: np.ndarray) -> int:
    """(L,) or (M, L) → tap at which the sound reaches the first microphone; 0 for silence."""
    level = np.abs(np.atleast_2d(taps))
    peak = level.max(axis=1, keepdims=True)
    arrived = (level >= peak * 10 ** (ONSET_DB / 20)) & (peak > 0)
    return int(arrived.any(axis=0).argmax())


def remove_common_delay(taps: np.ndarray) -> np.ndarray:
    """(M, L) → (M, L) float32: the sound reaches the nearest microphone at tap 0.

    One delay for all microphones: separate delays would erase the differences of their arrival times.
    """
    delay = onset(taps)
    return np.pad(taps[:, delay:], ((0, 0), (0, delay))).astype(np.float32, copy=False)


def decay_db(taps: np.ndarray, sample_rate: int) -> np.ndarray:
    """(L,) → (K,) Schroeder's decay in dB, 0 at the onset, up to where it meets the noise floor or ends."""
    # Padding is not a noise floor.
    energy = np.square(np.trim_zeros(taps, "b")[onset(taps) :], dtype=np.float64)
    knee, missing = _knee(energy, sample_rate)
    remaining = np.cumsum(energy[:knee][::-1])[::-1] + missing
    return 10 * np.log10(remaining / remaining[0]) if knee else np.zeros(0)


def _knee(energy: np.ndarray, sample_rate: int) -> tuple[int, float]:
    """Energy (L,) → tap at which the decay meets the noise floor, and the energy that the decay still has there.

    Tap 0 where there is no decay.
    """
    block = round(BLOCK_S * sample_rate)
    blocks = energy[: len(energy) // block * block].reshape(-1, block).mean(axis=1)
    if len(blocks) < 3:
        return 0, 0.0
    level_db = 10 * np.log10(blocks + np.finfo(np.float64).tiny)
    start, knee = int(level_db.argmax()), len(blocks)
    slope_db, end_db = 0.0, 0.0
    for _ in range(5):  # Floor and slope depend on each other; two or three rounds are enough.
        noise = blocks[min(knee, round((1 - FLOOR_SHARE) * len(blocks))) :].mean()
        noise_db = 10 * np.log10(noise + np.finfo(np.float64).tiny)
        buried = np.flatnonzero(level_db[start:] < noise_db + FLOOR_MARGIN_DB)
        stop = start + int(buried[0]) if len(buried) else len(blocks)
        if stop - start < 3:
            return 0, 0.0
        slope_db, intercept_db = np.polyfit(np.arange(start, stop), level_db[start:stop], 1)
        if slope_db >= 0:
            return 0, 0.0
        before, knee = knee, int(np.clip(np.ceil((noise_db - intercept_db) / slope_db), start + 3, len(blocks)))
        end_db = intercept_db + slope_db * knee
        if knee == before:
            break
    missing = block * 10 ** (end_db / 10) / (1 - 10 ** (slope_db / 10))  # the rest of a geometric series
    return min(knee * block, len(energy)), float(missing)


def _decay_time_s(decay: np.ndarray, sample_rate: int, from_db: float, to_db: float) -> float:
    """Decay (K,) in dB → time for 60 dB at the slope (least squares) between two levels; NaN where it ends earlier."""
    if not (decay <= to_db).any():
        return float("nan")
    first, last = int((decay <= from_db).argmax()), int((decay <= to_db).argmax())
    if last - first < 2:
        return float("nan")
    slope_db, _ = np.polyfit(np.arange(first, last) / sample_rate, decay[first:last], 1)
    return float(-60.0 / slope_db)


def _octave(taps: np.ndarray, sample_rate: int, centre_hz: float) -> np.ndarray:
    """(M, L) → (M, L') the octave about centre_hz, without delay."""
    band_hz = (centre_hz / 2**0.5, min(centre_hz * 2**0.5, 0.45 * sample_rate))
    at_rest = np.pad(taps, ((0, 0), (round(FILTER_REST_S * sample_rate), 0)))
    return np.asarray(sosfiltfilt(butter(2, band_hz, "bandpass", fs=sample_rate, output="sos"), at_rest))


def _ratio_db(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return float("inf") if numerator > 0 else float("nan")
    return float(10 * np.log10(numerator / denominator)) if numerator > 0 else float("-inf")


def _median(values: tuple[float, ...]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")
