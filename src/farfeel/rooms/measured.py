"""Reading measured room responses: the code that all layouts in `farfeel.rooms.importers` share.

One filter resamples all channels, so levels and delays between them are kept. As in any resampled recording, a response
keeps the height of its waveform and not the gain of its filter: the gain changes by the ratio of the rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from farfeel.media.audio import AUDIO_SUFFIXES, SILENCE_DB, audio_info, resample
from farfeel.rooms.acoustics import measure
from farfeel.support.console import note
from farfeel.support.folders import files_under
from farfeel.support.text import few, nfc
from farfeel.types import FarfeelError, Rir

MOST_NAMED = 20  # files that a note names
MAX_RESPONSE_S = 20.0  # Longer than in any hall: a longer file is a recording of something else.

Position = tuple[str, str]
"""A room and a source position in it, by their names."""


def positions_in(
    root: Path, position: Callable[[Path], Position | None], passed_over: Callable[[Path], bool] = lambda path: False
) -> dict[Path, Position]:
    """The audio files under a folder that are responses, and where each was measured. Other files are noted.

    position: a file's path → its position; None where the file is no response. passed_over: a file's path → whether it
    belongs to the published files and is not noted.
    """
    found: dict[Path, Position] = {}
    others = []
    for path in sorted(files_under(root, lambda folder, reason: note(f"{folder} cannot be read ({reason})"))):
        at = position(path) if path.suffix.lower() in AUDIO_SUFFIXES else None
        if at is not None:
            found[path] = (nfc(at[0]), nfc(at[1]))
        elif not passed_over(path):
            others.append(path)
    if found and others:
        names = few([path.relative_to(root) for path in others])
        note(f"left out: {len(others)} of {len(found) + len(others)} files are no responses: {names}")
    return found


def responses_at(root: Path, positions: dict[Path, Position], sample_rate: int, kind: str) -> list[Rir]:
    """Files and their positions → responses of one length, with their acoustics, in the same order.

    root: the folder, for errors. sample_rate: in Hz, of the result. kind: what was looked for, for errors. A file that
    cannot be used is left out, and a note names it. Raises FarfeelError where no file can be used, where two files are
    one response, or where files have different numbers of microphones.
    """
    if not positions:
        suffixes = Counter(path.suffix.lower() or "no suffix" for path in files_under(root))
        found = ", ".join(f"{count} {suffix} files" for suffix, count in suffixes.most_common(3)) or "no file"
        raise FarfeelError(f"{root} has no {kind}, found {found}; name the folder that holds them with --root")
    first_at: dict[Position, Path] = {}
    for path, position in positions.items():
        if position in first_at:
            raise FarfeelError(
                f"{first_at[position]} and {path} are one response ({'/'.join(position)}); keep one under --root"
            )
        first_at[position] = path
    responses = _usable_responses(positions, sample_rate)
    _require_same_microphones(responses)
    longest = max(taps.shape[1] for taps in responses.values())
    rirs = []
    for path, response in responses.items():
        room, position_name = positions[path]
        taps = np.pad(response, ((0, 0), (0, longest - response.shape[1])))
        rir = Rir(taps, sample_rate, room, position_name, origin="measured")
        acoustics = measure(rir)
        rirs.append(replace(rir, t60_s=acoustics.t60_s, drr_db=acoustics.drr_db))
    return rirs


def _usable_responses(positions: Mapping[Path, Position], sample_rate: int) -> dict[Path, np.ndarray]:
    """File → response; files that cannot be used are noted. Raises FarfeelError where there is no other."""
    responses: dict[Path, np.ndarray] = {}
    bad: list[FarfeelError] = []
    for path in positions:
        try:
            responses[path] = read_response(path, sample_rate)
        except FarfeelError as error:  # the others are still worth importing
            bad.append(error)
    if not responses:
        more = f" (and {len(bad) - 1} more files cannot be used)" if len(bad) > 1 else ""
        raise FarfeelError(f"{bad[0]}{more}")
    if bad:
        note(f"left out: {len(bad)} of {len(positions)} responses cannot be used: {few(bad, MOST_NAMED)}")
    return responses


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
