"""The ACE corpus (Eaton et al., 2016; doi 10.5281/zenodo.6257551).

    ACE_Corpus_RIRN_<Array>/<Array>/<Room_Name>/<position>/<Array>_<room code>_<position>_RIR.wav

Beside each response are noises of the same room (…_Ambient.wav, …_Fan.wav, …_Babble_….wav). They are skipped. A room
code that is not known is the name of a room.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.rooms.measured import Position, positions_in, responses_at
from farfeel.support.files import require_folder
from farfeel.types import FarfeelError, Rir

ARRAYS = {"Single": 1, "Chromebook": 2, "Mobile": 3, "Crucif": 5, "Lin8Ch": 8, "EM32": 32}  # and their microphones
ROOMS = {
    "508": "Lecture_Room_1",
    "403a": "Lecture_Room_2",
    "503": "Meeting_Room_1",
    "611": "Meeting_Room_2",
    "502": "Office_1",
    "803": "Office_2",
    "EE_lobby": "Building_Lobby",
}
DEFAULT_ARRAY = "Mobile"
_NAME = re.compile(rf"({'|'.join(ARRAYS)})_(.+)_([^_]+)_RIR", re.IGNORECASE)
_OTHERS = re.compile(r".*_(Ambient|Fan|Babble)(_.*)?", re.IGNORECASE)  # the noises


def ace(root: Path, sample_rate: int = 16000, array: str | None = None) -> list[Rir]:
    """ACE corpus: responses of one of its arrays in seven rooms.

    root: the folder of the unpacked archives. sample_rate: in Hz. array: one of ARRAYS; None: Mobile. Returns responses
    with rooms like "Office_1" and positions like "1". Raises FarfeelError with one line.
    """
    array = array or DEFAULT_ARRAY
    if array not in ARRAYS:
        raise FarfeelError(f"array {array} is not one of ACE's: {', '.join(ARRAYS)}; choose one with --array")
    root = require_folder(root, "the ACE corpus (folders ACE_Corpus_RIRN_<Array>)", "name it with --root")
    codes = {code.lower(): room for code, room in ROOMS.items()}
    found: Counter[str] = Counter()  # array → responses

    def position(path: Path) -> Position | None:
        match = _NAME.fullmatch(path.stem)
        if not match:
            return None
        found[match[1]] += 1
        return (codes.get(match[2].lower(), match[2]), match[3]) if match[1].lower() == array.lower() else None

    def passed_over(path: Path) -> bool:
        is_published = bool(_NAME.fullmatch(path.stem) or _OTHERS.fullmatch(path.stem))
        return is_published or path.suffix.lower() not in AUDIO_SUFFIXES

    positions = positions_in(root, position, passed_over)
    if found and not positions:
        others = ", ".join(f"{count} of {name}" for name, count in found.items())
        raise FarfeelError(f"{root} has no ACE response of array {array}, found {others}; choose one with --array")
    rirs = responses_at(root, positions, sample_rate, "ACE response (<Array>_<room>_<position>_RIR.wav)")
    if len(rirs[0].taps) != ARRAYS[array]:  # all have the same
        path = next(path for path, at in positions.items() if at == (rirs[0].room, rirs[0].position))
        raise FarfeelError(
            f"{path} has {len(rirs[0].taps)} channels, ACE's {array} has {ARRAYS[array]}; unpack the archive again"
        )
    return rirs
