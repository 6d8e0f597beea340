"""Measured room responses: ACE, R3VIVAL, or any folder of multi-channel WAV or FLAC files.

ACE (Eaton et al., 2016; doi 10.5281/zenodo.6257551), its own folders and names:
    ACE_Corpus_RIRN_<Array>/<Array>/<Room_Name>/<position>/<Array>_<room code>_<position>_RIR.wav
    beside each response lie noises of the same room (…_Ambient.wav, …_Fan.wav, …_Babble_….wav), which are skipped.
R3VIVAL (Meta; one laboratory with 0, 50 or 100 % of its absorption panels open, a 7-channel array):
    RLRVarAcLab_Absorptive_<panels>_S<azimuth>-<distance cm>_R1_FRL10cm.<wav|flac>, or SBG1…4, sources in the corners.
    The place of the array in its room is not published, so `geometry` stays None.

All channels are resampled by one filter; levels and delays between them are kept. As in any resampled recording, a
response keeps the height of its waveform and not the gain of its filter: that changes by the ratio of the rates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from farfeel.media.audio import AUDIO_SUFFIXES, SILENCE_DB, audio_info, files_in, resample
from farfeel.rooms.acoustics import measure
from farfeel.support.files import require_folder
from farfeel.types import FarfeelError, Rir

ACE_ARRAYS = {"Single": 1, "Chromebook": 2, "Mobile": 3, "Crucif": 5, "Lin8Ch": 8, "EM32": 32}  # and microphones
ACE_ROOMS = {
    "508": "Lecture_Room_1",
    "403a": "Lecture_Room_2",
    "503": "Meeting_Room_1",
    "611": "Meeting_Room_2",
    "502": "Office_1",
    "803": "Office_2",
    "EE_lobby": "Building_Lobby",
}
ACE_NAME = re.compile(rf"({'|'.join(ACE_ARRAYS)})_({'|'.join(ACE_ROOMS)})_(\d+)_RIR", re.IGNORECASE)
R3VIVAL_NAME = re.compile(r"RLRVarAcLab_Absorptive_(\d+)_(S\d+-\d+|SBG\d)_R\d+_FRL10cm")
MAX_RESPONSE_S = 20.0  # Longer than any hall's; a longer file is a recording of something else.

Place = tuple[str, str]  # room, position


def import_ace(root: Path, array: str = "Mobile", sample_rate: int = 16000) -> list[Rir]:
    """Responses of one ACE array; room "Office_1", position "1". Raises FarfeelError with one line."""
    if array not in ACE_ARRAYS:
        raise FarfeelError(f"array {array} is not one of ACE's: {', '.join(ACE_ARRAYS)}; choose one with --array")
    root = require_folder(root, "the ACE corpus (folders ACE_Corpus_RIRN_<Array>)", "name it with --root")
    codes = {code.lower(): room for code, room in ACE_ROOMS.items()}
    arrays: Counter[str] = Counter()
    places: dict[Path, Place] = {}
    for path in sorted(root.rglob("*.wav")):
        if match := ACE_NAME.fullmatch(path.stem):
            arrays[match[1]] += 1
            if match[1].lower() == array.lower():
                places[path] = (codes[match[2].lower()], match[3])
    if arrays and not places:
        found = ", ".join(f"{count} of {name}" for name, count in arrays.items())
        raise FarfeelError(f"{root} has no ACE response of array {array}, found {found}; choose one with --array")
    rirs = _import(root, places, sample_rate, "ACE response (<Array>_<room>_<position>_RIR.wav)")
    for path, rir in zip(places, rirs, strict=True):
        if len(rir.taps) != ACE_ARRAYS[array]:
            raise FarfeelError(
                f"{path} has {len(rir.taps)} channels, ACE's {array} has {ACE_ARRAYS[array]}; unpack the archive again"
            )
    return rirs


def import_r3vival(root: Path, sample_rate: int = 16000) -> list[Rir]:
    """Responses of R3VIVAL; room "r3vival_050", position "S000-150" or "SBG1". Raises FarfeelError with one line."""
    root = require_folder(root, "R3VIVAL responses", "name their folder with --root")

    def place(path: Path) -> Place | None:
        match = R3VIVAL_NAME.fullmatch(path.stem)
        return (f"r3vival_{match[1]}", match[2]) if match else None

    places = _places(root, place)
    return _import(root, places, sample_rate, "R3VIVAL response (RLRVarAcLab_Absorptive_…_FRL10cm)")


def import_folder(root: Path, sample_rate: int = 16000) -> list[Rir]:
    """All audio files below a folder; the room is the file's folder, or its own name where it lies in the root."""
    root = require_folder(root, "a folder of room responses", "name it with --root")

    def place(path: Path) -> Place:
        return ("_".join(path.parent.relative_to(root).parts) or path.stem, path.stem)

    return _import(root, _places(root, place), sample_rate, f"room response ({', '.join(AUDIO_SUFFIXES)})")


def read_response(path: Path, sample_rate: int) -> np.ndarray:
    """File → (M, L) float32, all channels resampled together.

    Read here, not by `media.audio.read_audio`, whose bounds are those of speech. Raises FarfeelError for a file that
    cannot be read, is empty, silent or longer than any response, or holds NaN or infinity.
    """
    info = audio_info(path)
    if info.seconds > MAX_RESPONSE_S:
        raise FarfeelError(
            f"{path} lasts {info.seconds:.0f} s, a room response at most {MAX_RESPONSE_S:.0f} s; "
            "take recordings of speech or noise out of the folder"
        )
    try:
        samples, _ = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise FarfeelError(f"{path} cannot be read as audio ({error}); copy it again") from None
    if not np.isfinite(samples).all():
        raise FarfeelError(f"{path} holds NaN or infinite samples, expected finite numbers; export it again")
    if not len(samples) or np.abs(samples).max() < 10 ** (SILENCE_DB / 20):
        raise FarfeelError(f"{path} is silent (below {SILENCE_DB:.0f} dB), expected a room response; export it again")
    return resample(samples.T, info.sample_rate, sample_rate)


def _places(root: Path, place: Callable[[Path], Place | None]) -> dict[Path, Place]:
    return {path: found for path in files_in(root) if (found := place(path)) is not None}


def _import(root: Path, places: dict[Path, Place], sample_rate: int, kind: str) -> list[Rir]:
    """Files and their places → responses of one length, with their acoustics."""
    if not places:
        suffixes = Counter(path.suffix.lower() or "no suffix" for path in root.rglob("*") if path.is_file())
        found = ", ".join(f"{count} {suffix} files" for suffix, count in suffixes.most_common(3)) or "no file"
        raise FarfeelError(f"{root} has no {kind}, found {found}; name the folder that holds them with --root")
    seen: dict[Place, Path] = {}
    for path, place in places.items():
        if place in seen:
            raise FarfeelError(f"{seen[place]} and {path} are one response ({'/'.join(place)}); keep one under --root")
        seen[place] = path
    responses = {path: read_response(path, sample_rate) for path in places}
    _require_same_microphones(responses)
    longest = max(taps.shape[1] for taps in responses.values())
    rirs = []
    for path, (room, position) in places.items():
        taps = np.pad(responses[path], ((0, 0), (0, longest - responses[path].shape[1])))
        rir = Rir(taps, sample_rate, room, position, origin="measured")
        acoustics = measure(rir)
        rirs.append(replace(rir, t60_s=acoustics.t60_s, drr_db=acoustics.drr_db))
    return rirs


def _require_same_microphones(responses: dict[Path, np.ndarray]) -> None:
    first = next(iter(responses))
    for path, taps in responses.items():
        if len(taps) != len(responses[first]):
            raise FarfeelError(
                f"{first} has {len(responses[first])} microphones, {path} {len(taps)}, a bank has one kind; "
                "import them from separate folders (ACE: choose one --array)"
            )
