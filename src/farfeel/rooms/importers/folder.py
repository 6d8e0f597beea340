"""Any folder of audio files with one room response each."""

from __future__ import annotations

from pathlib import Path

from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.rooms.measured import Position, positions_in, responses_at
from farfeel.support.files import require_folder
from farfeel.types import Rir


def folder(root: Path, sample_rate: int = 16000, array: str | None = None) -> list[Rir]:
    """Any folder of multi-channel WAV or FLAC files, one for each response.

    The room is the file's folder, or the file's own name where it is directly in the root. The position is the file's
    name. root: the folder. sample_rate: in Hz. array: not used. Raises FarfeelError with one line.
    """
    root = require_folder(root, "a folder of room responses", "name it with --root")

    def position(path: Path) -> Position:
        return ("_".join(path.parent.relative_to(root).parts) or path.stem, path.stem)

    kind = f"room response ({', '.join(AUDIO_SUFFIXES)})"
    return responses_at(root, positions_in(root, position), sample_rate, kind)
