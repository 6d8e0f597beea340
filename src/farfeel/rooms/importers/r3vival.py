"""R3VIVAL (Meta): one laboratory with 0, 50 or 100 % of its absorption panels open, and an array of 7 microphones.

    RLRVarAcLab_Absorptive_<panels>_S<azimuth>-<distance in cm>_R1_FRL10cm.<wav|flac>

or SBG1 to SBG4 for sources in the corners. Any condition is a room: also one whose name is no number, and one of
another kind than Absorptive. The position of the array in its room is not published, so `geometry` is
None.
"""

from __future__ import annotations

import re
from pathlib import Path

from farfeel.rooms.measured import Position, positions_in, responses_at
from farfeel.support.files import require_folder
from farfeel.types import Rir

_NAME = re.compile(r"RLRVarAcLab_(?:Absorptive_)?(.+)_(S[^_]*)_R(\d+)_FRL10cm", re.IGNORECASE)


def r3vival(root: Path, sample_rate: int = 16000, array: str | None = None) -> list[Rir]:
    """R3VIVAL: a laboratory with variable absorption, 7 microphones.

    root: the folder of the published files. sample_rate: in Hz. array: not used, there is one. Returns responses with
    rooms like "r3vival_050" and positions like "S000-150" or "SBG1". Raises FarfeelError with one line.
    """
    root = require_folder(root, "R3VIVAL responses", "name their folder with --root")
    kind = "R3VIVAL response (RLRVarAcLab_Absorptive_…_FRL10cm)"
    return responses_at(root, positions_in(root, _position), sample_rate, kind)


def _position(path: Path) -> Position | None:
    match = _NAME.fullmatch(path.stem)
    if not match:
        return None
    receiver = "" if match[3] == "1" else f"-R{match[3]}"
    return f"r3vival_{match[1]}", match[2] + receiver
