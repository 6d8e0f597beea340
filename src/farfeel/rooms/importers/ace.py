"""The ACE corpus (Eaton et al., 2016; doi 10.5281/zenodo.6257551).

    ACE_Corpus_RIRN_<Array>/<Array>/<Room_Name>/<position>/<Array>_<room code>_<position>_RIR.wav

Beside each response are noises of the same room (…_Ambient.wav, …_Fan.wav, …_Babble_….wav). They are skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from farfeel.rooms.measured import Position, responses_at
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
_NAME = re.compile(rf"({'|'.join(ARRAYS)})_({'|'.join(ROOMS)})_(\d+)_RIR", re.IGNORECASE)


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
    found: Counter[str] = Counter()
    positions: dict[Path, Position] = {}
    for path in sorted(root.rglob("*.wav")):
        if match := _NAME.fullmatch(path.stem):
            found[match[1]] += 1
            if match[1].lower() == array.lower():
                positions[path] = (codes[match[2].lower()], match[3])
    if found and not positions:
        others = ", ".join(f"{count} of {name}" for name, count in found.items())
        raise FarfeelError(f"{root} has no ACE response of array {array}, found {others}; choose one with --array")
    rirs = responses_at(root, positions, sample_rate, "ACE response (<Array>_<room>_<position>_RIR.wav)")
    for path, rir in zip(positions, rirs, strict=True):
        if len(rir.taps) != ARRAYS[array]:
            raise FarfeelError(
                f"{path} has {len(rir.taps)} channels, ACE's {array} has {ARRAYS[array]}; unpack the archive again"
            )
    return rirs
