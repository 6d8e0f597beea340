"""Audio files in and out: all channels kept, resampled together so that inter-microphone delays survive.

Samples are float32 in [-1, 1], shape (M, T), channel first. Decoding is libsndfile (soundfile), FFmpeg for what that
does not know (the sound of films, AAC), resampling is soxr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from farfeel.media.container import is_whole
from farfeel.media.video import read_sound, sound_blocks, sound_info
from farfeel.types import FarfeelError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".w64")
SPEECH_SUFFIXES = (*AUDIO_SUFFIXES, ".m4a", ".aac", ".opus", ".wma")  # and what telephones record
TRIM_DB = 40.0  # A frame this far below the loudest is silence; RAVDESS's pauses lie at -55 dB, its speech above -35.
TRIM_FRAME_S = 0.025
TRIM_MARGIN_S = 0.1
MAX_SECONDS = 600.0  # One clip, one answer: nobody feels the same for longer.
BLOCK_S = 10.0
MIN_SECONDS = 0.1  # Shorter than ten mel frames nothing can be told.
SILENCE_DB = -90.0  # Peak below this, relative to full scale: quieter than the last bit of 16-bit audio.
SHORTFALL = 0.01  # Share of its promised length that a file may lack: a last block cut short is no loss.
PROMISE = re.compile(r"^ *(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""In libsndfile's log: the bytes that a WAV, AIFF or W64 header promises, and those that the file holds."""
ENDLESS_BYTES = 2**31 - 2**16  # Recorders that write to a pipe promise this or more, not knowing the length.


@dataclass(frozen=True)
class AudioInfo:
    sample_rate: int
    channels: int
    seconds: float
    subtype: str  # libsndfile's name of the sample format, "PCM_16", or FFmpeg's of the codec, "AAC"
    by_ffmpeg: bool = False  # read by FFmpeg, not by libsndfile


def files_in(folder: Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Files under a folder, any folders deep, in order, told by their suffixes: those of audio."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def audio_info(path: Path) -> AudioInfo:
    """Header of an audio file. Raises FarfeelError where it cannot be read, or promises more than the file holds."""
    try:
        info = soundfile.info(str(path))
    except UnicodeEncodeError:
        raise FarfeelError(f"{str(path)!r} is not a name in UTF-8; rename the file") from None
    except (soundfile.LibsndfileError, OSError) as error:
        return _sound_of_film(Path(path), error)
    for promised, held in ((int(found[1]), int(found[2])) for found in PROMISE.finditer(info.extra_info)):
        if held < (1 - SHORTFALL) * promised and promised < ENDLESS_BYTES:
            raise FarfeelError(f"{path} is cut off: {held} of {promised} bytes; copy the file again")
    return AudioInfo(info.samplerate, info.channels, info.frames / info.samplerate, info.subtype)


def read_audio(path: Path, sample_rate: int, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray:
    """File → (M, T) float32 at `sample_rate`, all channels, from start_s to end_s (None: to the end).

    Raises FarfeelError with one line for a file that is missing, unreadable, empty, too short, too long, silent or
    that holds NaN or infinity, and for 8-bit PCM.
    """
    info = audio_info(path)
    _require_bits(path, info)
    end_s = info.seconds if end_s is None else min(end_s, info.seconds)
    span_s = end_s - start_s
    _require_seconds(path, span_s)
    if span_s > MAX_SECONDS:
        raise FarfeelError(
            f"{path} is {span_s / 60:.0f} minutes long, one clip may have {MAX_SECONDS / 60:.0f}; cut it into clips "
            "or ask for a timeline"
        )
    # Both ends are rounded, not the length: adjacent spans then share no sample and lose none.
    start, stop = round(start_s * info.sample_rate), round(end_s * info.sample_rate)
    samples = read_sound(path, start_s, end_s)[0] if info.by_ffmpeg else _samples(path, start, stop)
    if samples.shape[1] < (1 - SHORTFALL) * (stop - start):
        # Where only the whole film's length is known, its sound may end earlier.
        if not (info.by_ffmpeg and is_whole(path)):
            raise FarfeelError(f"{path} is cut off: {samples.shape[1]} of {stop - start} samples; copy the file again")
        _require_seconds(path, samples.shape[1] / info.sample_rate)
    if not np.isfinite(samples).all():
        raise FarfeelError(f"{path} holds NaN or infinite samples, expected finite numbers; export it again")
    if np.abs(samples).max() < 10 ** (SILENCE_DB / 20):
        raise FarfeelError(f"{path} is silent (peak below {SILENCE_DB:.0f} dB), expected speech; check the recording")
    return resample(samples, info.sample_rate, sample_rate)


def audio_blocks(path: Path) -> Iterator[np.ndarray]:
    """All of a file of any length in pieces (M, n) float32 of BLOCK_S or less, at its own rate (see audio_info). Raises
    FarfeelError as read_audio does, but not for silence, nor for samples that are no numbers."""
    info = audio_info(path)
    _require_bits(path, info)
    _require_seconds(path, info.seconds)
    if info.by_ffmpeg:
        yield from (block for block, _ in sound_blocks(path))
        return
    done = 0
    try:
        for block in soundfile.blocks(str(path), round(BLOCK_S * info.sample_rate), dtype="float32", always_2d=True):
            done += len(block)
            yield block.T
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None
    if done < (1 - SHORTFALL) * info.seconds * info.sample_rate:
        promised = round(info.seconds * info.sample_rate)
        raise FarfeelError(f"{path} is cut off: {done} of {promised} samples; copy the file again")


def speech_span(audio: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """(M, T) → first and last sample: from the first to the last frame within 40 dB of the loudest, with a margin."""
    frame = round(TRIM_FRAME_S * sample_rate)
    frames = audio.shape[1] // frame
    if frames == 0:
        return 0, audio.shape[1]
    energy = np.square(audio[:, : frames * frame].reshape(len(audio), frames, frame)).sum(axis=(0, 2))
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-TRIM_DB / 10))
    if not len(loud):  # digital silence
        return 0, audio.shape[1]
    margin = round(TRIM_MARGIN_S * sample_rate)
    return max(0, int(loud[0]) * frame - margin), min(audio.shape[1], (int(loud[-1]) + 1) * frame + margin)


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """(M, T) at from_rate → (M, T') float32 at to_rate. One linear-phase filter for all channels: delays are kept."""
    if from_rate == to_rate:
        return np.ascontiguousarray(audio, dtype=np.float32)
    return np.ascontiguousarray(soxr.resample(audio.T, from_rate, to_rate, quality="VHQ").T, dtype=np.float32)


def _require_bits(path: Path, info: AudioInfo) -> None:
    if info.subtype in ("PCM_S8", "PCM_U8"):  # Its noise floor, -50 dB, is above what a distant microphone hears.
        raise FarfeelError(f"{path} is 8-bit audio, expected 16 bits or more; record or export it with 16 bits")


def _require_seconds(path: Path, seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise FarfeelError(
            f"{path} has {max(seconds, 0) * 1000:.1f} ms of audio, expected at least {MIN_SECONDS * 1000:.0f} ms; "
            "record a longer clip"
        )


def _samples(path: Path, start: int, stop: int) -> np.ndarray:
    """(M, T) float32 by libsndfile."""
    try:
        return soundfile.read(str(path), start=start, stop=stop, dtype="float32", always_2d=True)[0].T
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None


def _sound_of_film(path: Path, error: Exception) -> AudioInfo:
    """Header of the sound in a container that libsndfile does not know; `error` is what it said."""
    try:
        sound = sound_info(path)
    except FarfeelError:
        raise _unreadable(path, error) from None
    if sound is None:
        raise FarfeelError(f"{path} has no audio (film only), expected a sound track; name a file with sound")
    return AudioInfo(sound.sample_rate, sound.channels, sound.seconds, sound.codec.upper(), by_ffmpeg=True)


def _unreadable(path: Path, error: Exception) -> FarfeelError:
    if not Path(path).exists():
        return FarfeelError(f"{path} does not exist; expected an audio file; check the path")
    if Path(path).is_dir():
        return FarfeelError(f"{path} is a folder, expected an audio file; name the files in it")
    if Path(path).stat().st_size == 0:
        return FarfeelError(f"{path} is empty (0 bytes), expected an audio file; copy it again")
    reason = str(error).split(": ")[-1].strip().rstrip(".")
    return FarfeelError(
        f"{path} cannot be read as audio ({reason}); expected WAV, FLAC, OGG, MP3 or a film; copy or convert it"
    )
