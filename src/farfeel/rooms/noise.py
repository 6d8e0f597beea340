"""Noise at the microphones, (M, T) float32: white, other talkers in the same room, a fan in it, or recorded. Levels
are set later, by `reverb.add_noise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy.fft import irfft, next_fast_len, rfft

from farfeel.media.audio import audio_info, resample
from farfeel.types import FarfeelError


def white_noise(mics: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(M, T) of unit variance, independent between microphones: the noise of microphones and amplifiers."""
    return rng.standard_normal((mics, samples), dtype=np.float32)


def fan(taps: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Response (M, L) of a place in the room → (M, T): steady pink noise from there, as of a fan or a projector."""
    length = int(next_fast_len(samples + taps.shape[1], real=True))
    spectrum = rfft(rng.standard_normal(length, dtype=np.float32))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum), dtype=np.float32), 1))  # Power falls by 3 dB an octave.
    return _in_room(irfft(spectrum, length), taps, samples, rng)


def babble(
    talkers: Sequence[np.ndarray], taps: Sequence[np.ndarray], samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Dry talkers (T_k,), responses (M, L_k) of their places in the room → (M, T): all talk at once, equally loud.

    Each begins anywhere in its speech and repeats it. Silent talkers are left out.
    """
    mixed = np.zeros((len(taps[0]), samples), dtype=np.float32)
    for talker, response in zip(talkers, taps, strict=True):
        loudness = float(np.sqrt(np.mean(np.square(talker, dtype=np.float64)))) if len(talker) else 0.0
        if loudness > 0:
            mixed += _in_room(talker / loudness, response, samples, rng)
    return mixed


def recorded_noise(
    path: Path,
    mics: int,
    sample_rate: int,
    samples: int,
    taps: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """A random stretch of a noise file as (M, T); a shorter file is repeated.

    A file with at least `mics` channels is used as it is: its channels know their room. Otherwise its first channel
    sounds through the response `taps` (M, L). Raises FarfeelError where there is none, or the file cannot be read.
    """
    channels = audio_info(path).channels
    if channels >= mics:
        return _stretch(_read_stretch(path, sample_rate, samples, rng)[:mics], samples, rng)
    if taps is None:
        raise FarfeelError(
            f"{path} has {channels} channels, {mics} microphones hear it; give noise with {mics} channels or a room"
        )
    reach = samples + taps.shape[1] - 1
    return _in_room(_read_stretch(path, sample_rate, reach, rng)[0], taps, samples, rng)


def _in_room(dry: np.ndarray, taps: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(T',), (M, L) → (M, T): a stretch of the sound through the response, begun early enough to fill the room."""
    before = taps.shape[1] - 1
    length = int(next_fast_len(samples + before, real=True))
    spectrum = rfft(np.asarray(_stretch(dry[None], samples + before, rng), np.float32), length)
    # The convolution is circular: what goes round falls on the samples before the room is filled.
    heard = irfft(spectrum * rfft(np.asarray(taps, np.float32), length), length)
    return np.asarray(heard[:, before : before + samples], dtype=np.float32)


def _stretch(audio: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(M, T') → (M, T) from a random place; a shorter sound begins anywhere and goes round."""
    surplus = audio.shape[1] - samples
    if surplus >= 0:
        start = int(rng.integers(surplus + 1))
        return audio[:, start : start + samples]
    places = (int(rng.integers(audio.shape[1])) + np.arange(samples)) % audio.shape[1]
    return audio[:, places]


def _read_stretch(path: Path, sample_rate: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(channels, T') from a random place in the file; T' is `samples` where the file has as many.

    Read here, not by `media.audio.read_audio`: noise may be hours long, and may pause.
    """
    info = audio_info(path)
    frames, wanted = round(info.seconds * info.sample_rate), -(-samples * info.sample_rate // sample_rate) + 1
    start = int(rng.integers(frames - wanted + 1)) if frames > wanted else 0
    try:
        audio, _ = soundfile.read(str(path), start=start, frames=wanted, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise FarfeelError(f"{path} cannot be read as audio ({error}); convert it or take it out") from None
    if not len(audio) or not np.isfinite(audio).all():
        raise FarfeelError(f"{path} is empty or holds NaN, expected noise; take it out of the noise folder")
    return resample(audio.T, info.sample_rate, sample_rate)
