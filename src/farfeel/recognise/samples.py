"""Arrays of samples and pictures, checked where a caller hands them over."""

from __future__ import annotations

from typing import Any

import numpy as np

from farfeel.media.audio import MAX_SECONDS, MIN_SECONDS
from farfeel.types import FarfeelError

MAX_MICS = 64  # More microphones than this are a sign of exchanged axes.
MAX_PEAK = 100.0  # Samples this far above full scale are integers that were not scaled.
INTEGERS = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


def checked_recording(audio: Any, sample_rate: int, what: str) -> np.ndarray:
    """An array that holds a whole recording → (M, T) float32. `what` names it in errors.

    - The longer axis is time. (T, M), as soundfile returns it, is transposed; (T,) is one microphone.
    - Floats are taken as they are, full scale being 1. int16 and int32 are divided by 2^15 and 2^31. Other types are
      refused.
    - NaN, infinity, a peak above MAX_PEAK, more than MAX_MICS microphones, less than 0.1 s and more than 10 minutes
      are refused.
    """
    samples = _as_floats(audio, what)
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or not samples.size:
        raise FarfeelError(
            f"{what} has the shape {np.shape(audio)}, expected (microphones, samples) or (samples,); reshape it"
        )
    if samples.shape[0] > samples.shape[1]:
        samples = samples.T
    mics, length = samples.shape
    if mics > MAX_MICS:
        raise FarfeelError(
            f"{what} has the shape {np.shape(audio)}, which is {mics} microphones, expected {MAX_MICS} or fewer; "
            "check its axes"
        )
    seconds = length / sample_rate
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        remedy = "record a longer one" if seconds < MIN_SECONDS else "cut it, or push it into a stream"
        raise FarfeelError(
            f"{what} has {seconds:.3g} s at {sample_rate} Hz, expected {MIN_SECONDS} s to {MAX_SECONDS:.0f} s; {remedy}"
        )
    if not np.isfinite(samples).all():
        raise FarfeelError(f"{what} contains NaN or infinite samples, expected finite numbers; remove them")
    peak = np.abs(samples).max()
    if peak > MAX_PEAK:
        raise FarfeelError(f"{what} has a peak of {peak:.0f}, expected samples from -1 to 1; divide by full scale")
    return np.ascontiguousarray(samples)


def checked_block(block: Any, mics: int) -> np.ndarray:
    """A block of a stream → (M, n) float32; (n,) where there is one microphone.

    Types are taken as in `checked_recording`. A block may be shorter than it has microphones, so that its axes are
    never exchanged. NaN and infinity become 0: a microphone that sends them is dead, which the stream reports.
    """
    samples = _as_floats(block, "a block")
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or len(samples) != mics:
        turned = samples.ndim == 2 and samples.shape[1] == mics
        remedy = "; transpose it" if turned else "; push all microphones together"
        raise FarfeelError(f"a block has the shape {samples.shape}, expected ({mics}, n){remedy}")
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def checked_picture(pixels: Any) -> np.ndarray:
    """A frame of a camera, (H, W, 3) uint8 RGB."""
    picture = np.asarray(pixels)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise FarfeelError(
            f"a frame has the shape {picture.shape} of {picture.dtype}, expected (height, width, 3) of uint8, RGB; "
            "convert it"
        )
    return picture


def _as_floats(array: Any, what: str) -> np.ndarray:
    """float32, integers scaled. Raises FarfeelError for other types."""
    try:
        samples = np.asarray(array)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths; a tensor on a GPU
        raise FarfeelError(f"{what} is no array ({type(array).__name__}), expected one of NumPy; convert it") from None
    if samples.dtype in INTEGERS:
        return (samples / INTEGERS[samples.dtype]).astype(np.float32)
    if samples.dtype.kind != "f":
        raise FarfeelError(
            f"{what} is of type {samples.dtype}, expected floats from -1 to 1, int16 or int32; convert it"
        )
    return samples.astype(np.float32, copy=False)
