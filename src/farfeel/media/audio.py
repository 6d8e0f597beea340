"""Audio files: read, resampled, and checked for damage. All channels are kept, and so are the delays between them.

Samples are float32 in [-1, 1], shape (M, T), channel first. Files are decoded by libsndfile (soundfile). FFmpeg decodes
what libsndfile does not support: audio tracks of videos, and AAC. Resampling uses soxr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from farfeel.media.container import is_complete
from farfeel.media.video import audio_track_blocks, audio_track_info, read_audio_track
from farfeel.support.folders import files_under
from farfeel.types import FarfeelError

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".w64", ".aifc", ".au", ".snd", ".caf", ".sph", ".oga", ".rf64",
    ".bw64", ".bwf", ".voc", ".wave",
)  # fmt: skip
"""What libsndfile reads."""
SPEECH_SUFFIXES = (
    *AUDIO_SUFFIXES, ".m4a", ".aac", ".opus", ".wma", ".amr", ".awb", ".3ga", ".m4b", ".m4r", ".mp2", ".mpa", ".mka",
    ".weba", ".spx", ".wv", ".ape", ".tta", ".ac3", ".eac3", ".dts", ".gsm", ".ra",
)  # fmt: skip
"""What FFmpeg reads, too: recordings of telephones, messengers and cameras."""
TRIM_DB = 40.0  # A frame this far below the loudest is silence. In RAVDESS, pauses are at -55 dB, speech above -35 dB.
TRIM_FRAME_S = 0.025
TRIM_MARGIN_S = 0.1
MAX_SECONDS = 600.0  # A clip gets one prediction, and an emotion does not last longer than this.
BLOCK_S = 10.0
MIN_SECONDS = 0.1  # Ten mel frames. Less audio is not enough for a prediction.
SILENCE_DB = -90.0  # Peak level relative to full scale. Audio below it is quieter than the last bit of 16-bit samples.
MAX_SHORTFALL = 0.01  # Share of its stated length that a file may lack, because a last block is often cut short.
STATED_BYTES = re.compile(r"^ *(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""In libsndfile's log: the bytes that a WAV, AIFF or W64 header states, and the bytes that the file contains."""
UNKNOWN_BYTES = 2**31 - 2**16  # Recorders that write to a pipe do not know the length. They state this many or more.


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file contains.

    sample_rate: In hertz.
    channels: Number of channels, M.
    seconds: Duration.
    subtype: libsndfile's name of the sample format ("PCM_16"), or FFmpeg's name of the codec ("AAC").
    by_ffmpeg: Whether FFmpeg reads the file, not libsndfile.
    """

    sample_rate: int
    channels: int
    seconds: float
    subtype: str
    by_ffmpeg: bool = False


def files_in(folder: Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[Path]:
    """All files under a folder that have one of the suffixes, sorted. See `files_under` for what is passed over."""
    return sorted(path for path in files_under(folder) if path.suffix.lower() in suffixes and path.is_file())


def audio_info(path: Path) -> AudioInfo:
    """Read the header of an audio file, or of the audio track of a video.

    Raises:
        FarfeelError: The file cannot be read, contains no audio, or is shorter than its header states.
    """
    try:
        info = soundfile.info(str(path))
    except UnicodeEncodeError:
        raise FarfeelError(f"the file name {str(path)!r} is not valid UTF-8; rename the file") from None
    except (soundfile.LibsndfileError, OSError) as error:
        return _audio_track_as_file(Path(path), error)
    for stated, actual in ((int(match[1]), int(match[2])) for match in STATED_BYTES.finditer(info.extra_info)):
        if actual < (1 - MAX_SHORTFALL) * stated and stated < UNKNOWN_BYTES:
            raise FarfeelError(f"{path} is cut off: {actual} of {stated} bytes; copy the file again")
    return AudioInfo(info.samplerate, info.channels, info.frames / info.samplerate, info.subtype)


def read_audio(path: Path, sample_rate: int, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray:
    """Read a clip: all channels of an audio file, or of the audio track of a video, resampled.

    Args:
        path: The file.
        sample_rate: Of the result, in hertz.
        start_s: Where to begin, in seconds.
        end_s: Where to end, in seconds. None: the end of the file.

    Returns:
        (M, T) float32 in [-1, 1].

    Raises:
        FarfeelError: The file is missing, unreadable, empty, cut off, too short, too long, silent or 8-bit PCM, or it
            contains NaN or infinity.
    """
    info = audio_info(path)
    _require_bits(path, info)
    end_s = info.seconds if end_s is None else min(end_s, info.seconds)
    span_s = end_s - start_s
    _require_seconds(path, span_s)
    if span_s > MAX_SECONDS:
        raise FarfeelError(
            f"{path} lasts {span_s / 60:.0f} minutes, expected at most {MAX_SECONDS / 60:.0f}; cut it into clips "
            "or request a timeline"
        )
    # Both ends are rounded, not the length. So adjacent spans share no sample and lose none.
    start, stop = round(start_s * info.sample_rate), round(end_s * info.sample_rate)
    samples = read_audio_track(path, start_s, end_s)[0] if info.by_ffmpeg else _read_samples(path, start, stop)
    if samples.shape[1] < (1 - MAX_SHORTFALL) * (stop - start):
        # The header of a video may only state the length of the whole file. The audio may end earlier.
        if not (info.by_ffmpeg and is_complete(path)):
            raise FarfeelError(f"{path} is cut off: {samples.shape[1]} of {stop - start} samples; copy the file again")
        _require_seconds(path, samples.shape[1] / info.sample_rate)
    if not np.isfinite(samples).all():
        raise FarfeelError(f"{path} contains NaN or infinite samples, expected finite numbers; export it again")
    if np.abs(samples).max() < 10 ** (SILENCE_DB / 20):
        raise FarfeelError(f"{path} is silent (peak below {SILENCE_DB:.0f} dB), expected speech; check the recording")
    return resample(samples, info.sample_rate, sample_rate)


def audio_blocks(path: Path) -> Iterator[np.ndarray]:
    """Read a file of any length in blocks, at its own sample rate (see `audio_info`).

    Yields:
        (M, n) float32, of BLOCK_S seconds or less.

    Raises:
        FarfeelError: As `read_audio` does, but not for silence, NaN or infinity.
    """
    info = audio_info(path)
    _require_bits(path, info)
    _require_seconds(path, info.seconds)
    if info.by_ffmpeg:
        yield from (block for block, _ in audio_track_blocks(path))
        return
    samples_read = 0
    try:
        for block in soundfile.blocks(str(path), round(BLOCK_S * info.sample_rate), dtype="float32", always_2d=True):
            samples_read += len(block)
            yield block.T
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None
    if samples_read < (1 - MAX_SHORTFALL) * info.seconds * info.sample_rate:
        expected = round(info.seconds * info.sample_rate)
        raise FarfeelError(f"{path} is cut off: {samples_read} of {expected} samples; copy the file again")


def speech_span(audio: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """Find the silence at both ends of a clip. Silence is TRIM_DB below the loudest frame.

    Args:
        audio: (M, T) samples.
        sample_rate: In hertz.

    Returns:
        (start, stop) sample indices of what remains without the silence, with a margin of TRIM_MARGIN_S seconds.
    """
    frame = round(TRIM_FRAME_S * sample_rate)
    count = audio.shape[1] // frame
    if count == 0:
        return 0, audio.shape[1]
    energy = np.square(audio[:, : count * frame].reshape(len(audio), count, frame)).sum(axis=(0, 2))
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-TRIM_DB / 10))
    if not len(loud):  # digital silence
        return 0, audio.shape[1]
    margin = round(TRIM_MARGIN_S * sample_rate)
    return max(0, int(loud[0]) * frame - margin), min(audio.shape[1], (int(loud[-1]) + 1) * frame + margin)


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample all channels with one linear-phase filter, so that the delays between them are kept.

    Args:
        audio: (M, T) samples.
        from_rate: Sample rate of `audio`, in hertz.
        to_rate: Sample rate of the result, in hertz.

    Returns:
        (M, T') float32.
    """
    if from_rate == to_rate:
        return np.ascontiguousarray(audio, dtype=np.float32)
    return np.ascontiguousarray(soxr.resample(audio.T, from_rate, to_rate, quality="VHQ").T, dtype=np.float32)


def _require_bits(path: Path, info: AudioInfo) -> None:
    if info.subtype in ("PCM_S8", "PCM_U8"):  # The noise floor of -50 dB is louder than speech at a distance.
        raise FarfeelError(f"{path} is 8-bit audio, expected 16 bits or more; record or export it with 16 bits")


def _require_seconds(path: Path, seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise FarfeelError(
            f"{path} has {max(seconds, 0) * 1000:.1f} ms of audio, expected at least {MIN_SECONDS * 1000:.0f} ms; "
            "record a longer clip"
        )


def _read_samples(path: Path, start: int, stop: int) -> np.ndarray:
    """(M, T) float32 samples from `start` to `stop`, read by libsndfile."""
    try:
        return soundfile.read(str(path), start=start, stop=stop, dtype="float32", always_2d=True)[0].T
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None


def _audio_track_as_file(path: Path, error: Exception) -> AudioInfo:
    """Header of a file that FFmpeg may be able to read. `error` is libsndfile's error."""
    try:
        track = audio_track_info(path)
    except FarfeelError:
        raise _unreadable(path, error) from None
    if track is None:
        raise FarfeelError(f"{path} has video but no audio, expected an audio track; use a file with audio")
    return AudioInfo(track.sample_rate, track.channels, track.seconds, track.codec.upper(), by_ffmpeg=True)


def _unreadable(path: Path, error: Exception) -> FarfeelError:
    """What to report about a file that cannot be read. `error` is libsndfile's error."""
    if not Path(path).exists():
        return FarfeelError(f"{path} does not exist; expected an audio file; check the path")
    if Path(path).is_dir():
        return FarfeelError(f"{path} is a folder, expected an audio file; use the files in it")
    if Path(path).stat().st_size == 0:
        return FarfeelError(f"{path} is empty (0 bytes), expected an audio file; copy it again")
    reason = str(error).split(": ")[-1].strip().rstrip(".")
    return FarfeelError(
        f"{path} cannot be read as audio ({reason}); expected WAV, FLAC, OGG, MP3 or a video; "
        "copy it again or convert it"
    )
