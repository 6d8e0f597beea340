"""Reading measured room responses: the code that all layouts in `farfeel.rooms.importers` share.

One filter resamples all channels, so levels and delays between them are kept. As in any resampled recording, a response
keeps the height of its waveform and not the gain of its filter: the gain changes by the ratio of the rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from farfeel.media.audio import SILENCE_DB, audio_info, files_in, resample
from farfeel.rooms.acoustics import measure
from farfeel.types import FarfeelError, Rir

MAX_RESPONSE_S = 20.0  # Longer than in any hall: a longer file is a recording of something else.

Position = tuple[str, str]
"""A room and a source position in it, by their names."""


def positions_in(root: Path, position: Callable[[Path], Position | None]) -> dict[Path, Position]:
    """The audio files under a folder that are responses, and where each was measured.

    position: a file's path → its position; None where the file is no response.
    """
    return {path: found for path in files_in(root) if (found := position(path)) is not None}


def responses_at(root: Path, positions: dict[Path, Position], sample_rate: int, kind: str) -> list[Rir]:
    """Files and their positions → responses of one length, with their acoustics, in the same order.

    root: the folder, for errors. sample_rate: in Hz, of the result. kind: what was looked for, for errors. Raises
    FarfeelError where there is no file, where two files are one response, where files have different numbers of
    microphones, or where one cannot be read.
    """
    if not positions:
        suffixes = Counter(path.suffix.lower() or "no suffix" for path in root.rglob("*") if path.is_file())
        found = ", ".join(f"{count} {suffix} files" for suffix, count in suffixes.most_common(3)) or "no file"
        raise FarfeelError(f"{root} has no {kind}, found {found}; name the folder that holds them with --root")
    first_at: dict[Position, Path] = {}
    for path, position in positions.items():
        if position in first_at:
            raise FarfeelError(
                f"{first_at[position]} and {path} are one response ({'/'.join(position)}); keep one under --root"
            )
        first_at[position] = path
    responses = {path: read_response(path, sample_rate) for path in positions}
    _require_same_microphones(responses)
    longest = max(taps.shape[1] for taps in responses.values())
    rirs = []
    for path, (room, position_name) in positions.items():
        taps = np.pad(responses[path], ((0, 0), (0, longest - responses[path].shape[1])))
        rir = Rir(taps, sample_rate, room, position_name, origin="measured")
        acoustics = measure(rir)
        rirs.append(replace(rir, t60_s=acoustics.t60_s, drr_db=acoustics.drr_db))
    return rirs


def read_response(path: Path, sample_rate: int) -> np.ndarray:
    """An audio file → its response (M, L) float32 at sample_rate (Hz), all channels resampled together.

    Not read by `media.audio.read_audio`, which has the limits of speech. Raises FarfeelError for a file that cannot be
    read, is empty, silent or longer than any response, or holds NaN or infinity.
    """
    info = audio_info(path)
    if info.seconds > MAX_RESPONSE_S:
        raise FarfeelError(
            f"{path} lasts {info.seconds:.0f} s, a room response at most {MAX_RESPONSE_S:.0f} s; "
            "remove recordings of speech or noise from the folder"
        )
    try:
        samples, _ = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise FarfeelError(f"{path} cannot be read as audio ({error}); copy it again") from None
    if not np.isfinite(samples).all():
        raise FarfeelError(f"{path} contains NaN or infinite samples, expected finite numbers; export it again")
    if not len(samples) or np.abs(samples).max() < 10 ** (SILENCE_DB / 20):
        raise FarfeelError(f"{path} is silent (below {SILENCE_DB:.0f} dB), expected a room response; export it again")
    return resample(samples.T, info.sample_rate, sample_rate)


def _require_same_microphones(responses: dict[Path, np.ndarray]) -> None:
    first = next(iter(responses))
    for path, taps in responses.items():
        if len(taps) != len(responses[first]):
            raise FarfeelError(
                f"{first} has {len(responses[first])} microphones, {path} {len(taps)}, a bank has one kind; "
                "import them from separate folders (ACE: choose one --array)"
            )
