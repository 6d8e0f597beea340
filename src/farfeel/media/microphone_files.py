"""One audio file for each microphone of an array: several files that are one recording.

The channels of the recording are the channels of the files, in the order of the files. All files begin at the same
moment. A file that ends a little before the others is continued with silence. A single file is read as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr

from farfeel.media.audio import MAX_SECONDS, AudioInfo, audio_blocks, audio_info, read_audio, resample, unused_audio
from farfeel.support.text import few
from farfeel.types import FarfeelError

SAID_S = 0.02  # A larger difference in length is reported. Coders add less at the end of a file.
MAX_DIFFERENCE_S = 0.5  # A larger difference, in seconds and as a share, means that these are different recordings.
MAX_DIFFERENCE = 0.1


def files_info(files: Sequence[Path]) -> tuple[AudioInfo, list[str]]:
    """The recording that the files are together, at the highest of their sample rates; and notes on their lengths.

    Raises FarfeelError where a file cannot be read, or where the files have very different lengths.
    """
    infos = [audio_info(file) for file in files]
    unused = [info.unused for info in infos if info.unused]
    if len(files) == 1:
        return infos[0], unused
    seconds = [info.seconds for info in infos]
    notes = [*unused, *length_notes(files, seconds)]
    together = AudioInfo(
        max(info.sample_rate for info in infos),
        sum(info.channels for info in infos),
        max(seconds),
        infos[0].subtype,
        any(info.by_ffmpeg for info in infos),
    )
    return together, notes


def read_files(
    files: Sequence[Path], sample_rate: int, start_s: float = 0.0, end_s: float | None = None
) -> tuple[np.ndarray, list[str]]:
    """All channels of all files, (M, T) float32 at `sample_rate` in Hz; and notes on what was changed.

    One of several files may be silent or damaged by NaN: that is a dead microphone, and its channels are zeros. Raises
    FarfeelError as `read_audio` does, and where the files have very different lengths.
    """
    notes = [unused for file in files if (unused := unused_audio(file))]
    if len(files) == 1:
        return read_audio(files[0], sample_rate, start_s, end_s), notes
    found = [_samples(file, sample_rate, start_s, end_s) for file in files]
    notes += length_notes(files, [samples.shape[1] / sample_rate for samples in found])
    for file, samples in zip(files, found, strict=True):
        damaged = ~np.isfinite(samples).all(axis=1)
        if damaged.any():
            notes.append(f"{file} contains NaN or infinite samples; {_channels(damaged)} left out")
            samples[damaged] = 0.0
    longest = max(samples.shape[1] for samples in found)
    return np.concatenate([np.pad(each, ((0, 0), (0, longest - each.shape[1]))) for each in found]), notes


def files_blocks(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """The recording in blocks (M, n) float32, at the sample rate of `files_info`. Raises FarfeelError as it does."""
    if len(files) == 1:
        yield from audio_blocks(files[0])
        return
    rate = files_info(files)[0].sample_rate
    readers = [_Reader(file, rate) for file in files]
    while True:
        for reader in readers:
            reader.fill()
        ready = [reader.waiting.shape[1] for reader in readers if not reader.has_ended]
        size = min(ready) if ready else max(reader.waiting.shape[1] for reader in readers)
        if size:
            yield np.concatenate([reader.take(size) for reader in readers])
        elif not ready:
            return


def named(files: Sequence[Path]) -> str:
    """What messages call the recording."""
    return few(files, 3)


class _Reader:
    """One file at the rate of all.

    waiting: (channels, n), what has been read and not been taken.
    """

    def __init__(self, file: Path, rate: int) -> None:
        info = audio_info(file)
        self.blocks = audio_blocks(file)
        self.channels, self.has_ended = info.channels, False
        self.waiting = np.zeros((info.channels, 0), np.float32)
        self._resampler = None
        if info.sample_rate != rate:
            self._resampler = soxr.ResampleStream(info.sample_rate, rate, info.channels, dtype="float32", quality="VHQ")

    def fill(self) -> None:
        """Read until something is waiting, or the file ends."""
        while not self.has_ended and not self.waiting.shape[1]:
            block = next(self.blocks, None)
            self.has_ended = block is None
            if self._resampler is None:
                new = block
            else:
                given = np.zeros((0, self.channels), np.float32) if block is None else np.ascontiguousarray(block.T)
                new = self._resampler.resample_chunk(given, last=block is None).reshape(-1, self.channels).T
            if new is not None:
                self.waiting = np.concatenate([self.waiting, new], axis=1)

    def take(self, size: int) -> np.ndarray:
        """The next `size` samples. After the end of the file these are zeros."""
        taken, self.waiting = self.waiting[:, :size], self.waiting[:, size:]
        return np.pad(taken, ((0, 0), (0, size - taken.shape[1])))


def _samples(file: Path, sample_rate: int, start_s: float, end_s: float | None) -> np.ndarray:
    """(M, T) of one file, also where it is silent or contains NaN. `read_audio` refuses both."""
    info = audio_info(file)
    blocks, length = [], 0
    for block in audio_blocks(file):
        blocks.append(block)
        length += block.shape[1]
        if end_s is not None and length >= end_s * info.sample_rate:
            break
        if length > (MAX_SECONDS + start_s) * info.sample_rate:
            raise FarfeelError(
                f"{file} lasts more than {MAX_SECONDS / 60:.0f} minutes, expected at most {MAX_SECONDS / 60:.0f}; "
                "cut it into clips or request a timeline"
            )
    stop = length if end_s is None else round(end_s * info.sample_rate)
    samples = np.concatenate(blocks, axis=1)[:, round(start_s * info.sample_rate) : stop]
    return resample(samples, info.sample_rate, sample_rate)


def length_notes(files: Sequence[Path], seconds: Sequence[float]) -> list[str]:
    """A note where the lengths differ. Raises FarfeelError where they differ so much that nothing fits together."""
    longest, shortest = max(seconds), min(seconds)
    long, short = files[seconds.index(longest)], files[seconds.index(shortest)]
    if longest - shortest > max(MAX_DIFFERENCE_S, MAX_DIFFERENCE * longest):
        raise FarfeelError(
            f"{long} lasts {longest:.1f} s, {short} {shortest:.1f} s, expected the same length of all files of one "
            "recording; name the files of one recording, or cut them alike"
        )
    if longest - shortest <= SAID_S:
        return []
    return [f"{short} ends {longest - shortest:.2f} s before {long}; it is continued with silence"]


def _channels(chosen: np.ndarray) -> str:
    if chosen.all():
        return "it is" if len(chosen) == 1 else "all its channels are"
    numbers = np.flatnonzero(chosen)
    return f"its channel{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} {'are' if len(numbers) > 1 else 'is'}"
