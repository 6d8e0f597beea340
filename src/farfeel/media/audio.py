"""Audio files: read, resampled, and checked for damage. All channels are kept, and so are the delays between them.

Samples are float32 in [-1, 1], shape (M, T), channel first. libsndfile (soundfile) decodes the formats that state their
length exactly. FFmpeg decodes all others: audio tracks of videos, MP3, AAC. A file is read to its end, whatever length
its header contains. Resampling uses soxr.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from farfeel.media.audio_track import audio_track_blocks, audio_track_info, read_header
from farfeel.media.container import is_complete
from farfeel.media.isolation import isolated
from farfeel.media.sound_headers import MAX_SHORTFALL, is_for_libsndfile, is_sound_only, require_whole_mp3
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
STATED_BYTES = re.compile(r"^ *(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""In libsndfile's log: the bytes that a WAV, AIFF or W64 header states, and the bytes that the file contains."""
UNKNOWN_BYTES = 2**31 - 2**16  # Recorders that write to a pipe do not know the length. They state this many or more.
UNKNOWN_FRAMES = 2**48  # libsndfile states more if a FLAC header does not contain the length.
OGG_CHANNELS = 2  # libsndfile cannot decode Opus with more.
LOUDEST = 2.0**31  # Integers that were stored as floats reach it. A larger number is damage, as infinity is.
MAX_SAMPLES = 2**29  # of all channels of one clip: 2 GiB


@dataclass(frozen=True)
class AudioInfo:
    """Description of an audio file.

    sample_rate: In hertz.
    channels: Number of channels, M.
    seconds: Duration. It is counted where the header does not contain it exactly.
    subtype: libsndfile's name of the sample format ("PCM_16"), or FFmpeg's name of the codec ("AAC").
    by_ffmpeg: Whether FFmpeg reads the file, not libsndfile.
    unused: What of the file's audio is not read, as a sentence. Empty: nothing.
    """

    sample_rate: int
    channels: int
    seconds: float
    subtype: str
    by_ffmpeg: bool = False
    unused: str = ""


def files_in(folder: Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[Path]:
    """All files under a folder that have one of the suffixes, sorted. See `files_under` for what is passed over."""
    return sorted(path for path in files_under(folder) if path.suffix.lower() in suffixes and path.is_file())


def audio_info(path: Path) -> AudioInfo:
    """Describe an audio file, or the audio track of a video.

    Raises:
        FarfeelError: The file cannot be read, contains no audio, or is shorter than its header states.
    """
    info = _exact_info(path)
    if info is None:
        track = audio_track_info(path)
        if track is None:
            raise FarfeelError(f"{path} has video but no audio, expected an audio track; use a file with audio")
        if track.codec.startswith("mp3"):
            require_whole_mp3(path)
        codec = track.codec.upper()
        return AudioInfo(track.sample_rate, track.channels, track.seconds, codec, by_ffmpeg=True, unused=track.unused)
    return info


def sound_info(path: Path) -> AudioInfo | None:
    """Describe a file whose format cannot contain a video and which libsndfile reads. Returns None for all others."""
    try:
        return _exact_info(path) if is_sound_only(Path(path)) else None
    except (FarfeelError, OSError, ValueError):
        return None


def unused_audio(path: Path) -> str:
    """What of the audio in a file `read_audio` does not read, as a sentence. Empty: nothing.

    Raises:
        FarfeelError: The file cannot be read.
    """
    if _exact_info(path) is not None:
        return ""
    header = read_header(path)
    return header.unused if header else ""


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
        FarfeelError: The file is missing, unreadable, empty, cut off, too short, too long, silent or 8-bit PCM, or each
            of its channels contains NaN or infinity. A channel that does, beside others, becomes silence.
    """
    samples, own_rate = _clip_samples(path, start_s, end_s)
    damaged = ~np.isfinite(samples).all(axis=1)
    samples = np.where(damaged[:, None], np.float32(0), samples) if damaged.any() else samples
    if damaged.all():
        raise FarfeelError(f"{path} contains NaN or infinite samples, expected finite numbers; export it again")
    if np.abs(samples).max() < 10 ** (SILENCE_DB / 20):
        raise FarfeelError(f"{path} is silent (peak below {SILENCE_DB:.0f} dB), expected speech; check the recording")
    return resample(samples, own_rate, sample_rate)


def audio_blocks(path: Path) -> Iterator[np.ndarray]:
    """Read a file of any length in blocks, at its own sample rate (see `audio_info`).

    Yields:
        (M, n) float32, of BLOCK_S seconds or less.

    Raises:
        FarfeelError: As `read_audio` does, but not for silence, NaN or infinity.
    """
    info = audio_info(path)
    _require_bits(path, info.subtype)
    _require_seconds(path, info.seconds)
    if info.by_ffmpeg:
        yield from (_without_damage(block) for block, _ in audio_track_blocks(path))
        return
    samples_read = 0
    samples = round(info.seconds * info.sample_rate)
    for block in _sndfile_blocks(path, 0, samples):
        samples_read += block.shape[1]
        yield _without_damage(block)
    _require_whole(path, samples_read, samples)


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


def _exact_info(path: Path) -> AudioInfo | None:
    """What libsndfile reads in the header of a file.

    None: FFmpeg has to read the file, because libsndfile cannot, or because the header does not contain the length.
    """
    path = Path(path)
    try:
        str(path).encode()
        if not is_for_libsndfile(path):
            return None
        with _sound_file(path) as file:
            form, log = file.format, file.extra_info
            info = AudioInfo(file.samplerate, file.channels, file.frames / file.samplerate, file.subtype)
            frames = file.frames
    except UnicodeEncodeError:
        raise FarfeelError(f"the file name {str(path)!r} is not valid UTF-8; rename the file") from None
    except soundfile.LibsndfileError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    for stated, actual in ((int(match[1]), int(match[2])) for match in STATED_BYTES.finditer(log)):
        if actual < (1 - MAX_SHORTFALL) * stated and stated < UNKNOWN_BYTES:
            raise FarfeelError(f"{path} is cut off: {actual} of {stated} bytes; copy the file again")
    if form == "OGG" and info.channels > OGG_CHANNELS:
        return None
    # A recorder that was stopped wrote no length, and neither does one that writes to a pipe.
    return info if 0 < frames < UNKNOWN_FRAMES else None


def _clip_samples(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    """The samples of a clip (M, T) and their sample rate, checked for length and for a missing end."""
    info = _exact_info(path)
    if info is None:
        return _clip_by_ffmpeg(path, start_s, end_s)
    _require_bits(path, info.subtype)
    end_s = info.seconds if end_s is None else min(end_s, info.seconds)
    _require_seconds(path, end_s - start_s)
    if end_s - start_s > MAX_SECONDS:
        raise _too_long(path, f"{(end_s - start_s) / 60:.0f} minutes")
    # Both ends are rounded, not the length. So adjacent spans share no sample and lose none.
    start, stop = round(start_s * info.sample_rate), round(end_s * info.sample_rate)
    with closing(_sndfile_blocks(path, start, stop)) as blocks:
        samples = _joined(path, blocks, info.channels, info.sample_rate)
    _require_whole(path, samples.shape[1], stop - start)
    return samples, info.sample_rate


@isolated
def _clip_by_ffmpeg(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    header = read_header(path)
    if header is None:
        raise FarfeelError(f"{path} has video but no audio, expected an audio track; use a file with audio")
    _require_bits(path, header.codec.upper())
    if header.codec.startswith("mp3"):
        require_whole_mp3(path)
    with closing(audio_track_blocks(path, start_s, end_s)) as blocks:
        first, rate = next(blocks)
        samples = _joined(path, (block for block, _ in blocks), len(first), rate)
    if header.stated_s is not None:
        # The header of a video may only state the length of the whole file. The audio may end earlier.
        expected = round((min(header.stated_s, end_s or math.inf) - start_s) * rate)
        if samples.shape[1] < (1 - MAX_SHORTFALL) * expected and not is_complete(path):
            _require_whole(path, samples.shape[1], expected)
    _require_seconds(path, samples.shape[1] / rate)
    return samples, rate


def _joined(path: Path, blocks: Iterator[np.ndarray], channels: int, sample_rate: int) -> np.ndarray:
    """All blocks as one clip (M, T). A clip that is too long is refused as soon as its limit is read."""
    kept, length = [], 0
    for block in blocks:
        length += block.shape[1]
        if length > MAX_SECONDS * sample_rate:
            raise _too_long(path, f"more than {MAX_SECONDS / 60:.0f} minutes")
        if length * channels > MAX_SAMPLES:
            raise FarfeelError(
                f"{path} has more than {MAX_SAMPLES} samples in {channels} channels, expected fewer; cut it into clips"
            )
        kept.append(_without_damage(block))
    return np.concatenate([np.zeros((channels, 0), np.float32), *kept], axis=1)


def _without_damage(block: np.ndarray) -> np.ndarray:
    """A block (M, n) with infinity instead of numbers that no recorder writes."""
    return (
        np.where(np.abs(block) > LOUDEST, np.float32(np.inf), block)
        if np.abs(block).max(initial=0) > LOUDEST
        else block
    )


def _too_long(path: Path, found: str) -> FarfeelError:
    return FarfeelError(
        f"{path} lasts {found}, expected at most {MAX_SECONDS / 60:.0f}; cut it into clips or request a timeline"
    )


def _require_whole(path: Path, samples: int, expected: int) -> None:
    if samples < (1 - MAX_SHORTFALL) * expected:
        raise FarfeelError(f"{path} is cut off: {samples} of {expected} samples; copy the file again")


def _require_bits(path: Path, subtype: str) -> None:
    if subtype in ("PCM_S8", "PCM_U8"):  # The noise floor of -50 dB is louder than speech at a distance.
        raise FarfeelError(f"{path} is 8-bit audio, expected 16 bits or more; record or export it with 16 bits")


def _require_seconds(path: Path, seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise FarfeelError(
            f"{path} has {max(seconds, 0) * 1000:.1f} ms of audio, expected at least {MIN_SECONDS * 1000:.0f} ms; "
            "record a longer clip"
        )


@contextmanager
def _sound_file(path: Path) -> Iterator[soundfile.SoundFile]:
    """A file open for libsndfile, without its name: its suffix shall not decide how it is read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with soundfile.SoundFile(descriptor, closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _sndfile_blocks(path: Path, start: int, stop: int) -> Generator[np.ndarray]:
    """(M, n) float32 samples from `start` to `stop`, read by libsndfile. The first short block is the last one."""
    try:
        with _sound_file(path) as file:
            if start:
                file.seek(start)
            left = stop - start
            while left > 0:
                size = min(left, round(BLOCK_S * file.samplerate))
                block = file.read(size, dtype="float32", always_2d=True)
                left -= len(block)
                if len(block):
                    yield block.T
                if len(block) < size:
                    return
    except (soundfile.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None


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
        f"{path} cannot be read as audio ({reason}); expected WAV, FLAC, OGG, MP3, M4A or a video; "
        "copy it again or convert it"
    )
