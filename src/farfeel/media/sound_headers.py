"""What the first bytes of a sound file show: which decoder reads it exactly, and whether its end is missing.

The content alone decides, never the file's name.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from farfeel.types import FarfeelError

HEADED = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"riff",
    b"FORM",
    b"fLaC",
    b"OggS",
    b"caff",
    b".snd",
    b"dns.",
    b"NIST",
    b"Creative",
)
"""How the formats begin that libsndfile recognises by their content and whose length it knows exactly."""
SOUND_ONLY = tuple(mark for mark in HEADED if mark != b"OggS")
OGG_PAGE = struct.Struct("<4sBBqIIIB")
OGG_BEGINS = 2  # flag of a page that begins a stream
ID3 = struct.Struct(">3sHB4B")
XING_SEARCH_BYTES = 2048  # The Xing header is in the first MPEG frame.
XING_FRAMES, XING_BYTES = 1, 2  # flags
MIN_FRAME_BYTES, MAX_FRAME_BYTES = 24, 2881  # of MPEG audio, from 8 kbit/s at 24 kHz to 320 kbit/s at 8 kHz
MAX_SHORTFALL = 0.01  # Share of its stated length that a file may lack, because a last block is often cut short.


def is_for_libsndfile(path: Path) -> bool:
    """Whether libsndfile reads this file to its end. FFmpeg reads the others, also chained Ogg files.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        begin = file.read(8)
        if not begin.startswith(HEADED):
            return False
        return not (begin.startswith(b"OggS") and _is_chained(file.fileno()))


def is_sound_only(path: Path) -> bool:
    """Whether the format of this file contains no video.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        begin = file.read(12)
    return begin.startswith(SOUND_ONLY) and (not begin.startswith(b"RIFF") or begin.endswith(b"WAVE"))


def require_whole_mp3(path: Path) -> None:
    """Raise FarfeelError if an MP3 lacks bytes that its Xing header counts.

    A header whose counts do not fit each other is ignored.
    """
    with path.open("rb") as file:
        begin = file.read(ID3.size)
        skipped = 0
        if begin.startswith(b"ID3") and len(begin) == ID3.size:
            sizes = ID3.unpack(begin)[3:]
            skipped = ID3.size + sum(size << 7 * i for i, size in enumerate(reversed(sizes)))
        file.seek(skipped)
        frame = file.read(XING_SEARCH_BYTES)
        actual = file.seek(0, 2) - skipped
    mark = max(frame.find(b"Xing"), frame.find(b"Info"))
    if mark < 0 or len(frame) < mark + 16:
        return
    flags, frames, stated = struct.unpack_from(">III", frame, mark + 4)
    if flags & (XING_FRAMES | XING_BYTES) != XING_FRAMES | XING_BYTES or not frames:
        return
    is_plausible = MIN_FRAME_BYTES <= stated / frames <= MAX_FRAME_BYTES
    if is_plausible and actual < (1 - MAX_SHORTFALL) * stated:
        raise FarfeelError(f"{path} is cut off: {actual} of {stated} bytes; copy the file again")


def _is_chained(file: int) -> bool:
    """Whether an Ogg file contains several recordings, one after the other."""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        position = 0
        while position + OGG_PAGE.size <= len(content):
            mark, _, flags, *_, segments = OGG_PAGE.unpack_from(content, position)
            if mark != b"OggS" or not flags & OGG_BEGINS:
                break
            table = content[position + OGG_PAGE.size : position + OGG_PAGE.size + segments]
            position += OGG_PAGE.size + segments + sum(table)
        return any(content.find(b"OggS\0" + bytes([flags]), position) >= 0 for flags in (OGG_BEGINS, OGG_BEGINS | 4))
