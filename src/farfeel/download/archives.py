"""Unpack a zip or tar archive that nobody vouches for.

Only plain files and folders, only below the folder, each name once; and no more entries, bytes, or bytes per packed
byte than data has. What an archive claims of itself is not believed: bytes are counted as they come.
"""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from farfeel.types import FarfeelError

Found = TypeVar("Found")
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz")
MAX_ENTRIES = 200_000
MAX_BYTES = 200 * 10**9
MAX_RATIO = 100  # Speech in WAV files packs to a half; only digital silence comes near this.
ALWAYS_FINE = 10_000_000  # bytes, however well they were packed
_CHUNK = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    UnicodeError, ValueError, OSError,
)  # fmt: skip
Entry = tuple[str, IO[bytes] | None]  # a name and its bytes; None: a folder


def folder_of(name: str) -> str | None:
    """The folder that an archive is unpacked to, named like it; None for a file that is no archive."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    return name[: -len(suffix)] if suffix and len(name) > len(suffix) else None


def is_inside(name: str) -> bool:
    """Whether a name stays below the folder that it is joined to, on any system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        name.startswith("/") or ".." in parts or re.search(r"[\\\x00-\x1f]", name) or re.match(r"[A-Za-z]:", name)
    )


def unpacked_bytes(archive: Path) -> int:
    """Of a zip archive, as it says itself; 0 for others, which would have to be read through."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return sum(entry.file_size for entry in opened.infolist())
    except _DAMAGED:
        return 0


def unpack(archive: Path, folder: Path, go_on: Callable[[], None] = lambda: None) -> dict[str, tuple[int, int]]:
    """An archive → files in an empty folder: path → size in bytes and CRC-32. Raises FarfeelError with one line, and
    what `go_on` raises, which is called all along."""
    allowed = min(MAX_BYTES, max(ALWAYS_FINE, MAX_RATIO * archive.stat().st_size))
    written: dict[str, tuple[int, int]] = {}
    entries = _zip_entries(archive) if archive.name.lower().endswith(".zip") else _tar_entries(archive)
    for count, (name, source) in enumerate(_readable(archive, entries), start=1):
        if count > MAX_ENTRIES:
            raise _refused(archive, f"has more than {MAX_ENTRIES} entries")
        if not is_inside(name):
            raise _refused(archive, f"holds {name!r}, which lies outside of it")
        place = folder / name
        try:
            if source is None:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            file = place.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise _refused(archive, f"holds {name!r} twice") from None
        size, crc = 0, 0
        with file:
            for chunk in _readable(archive, _chunks(source)):
                go_on()
                size, crc, allowed = size + len(chunk), zlib.crc32(chunk, crc), allowed - len(chunk)
                if allowed < 0:
                    raise _refused(archive, f"unpacks to more than {MAX_RATIO} times its size, or {MAX_BYTES} bytes")
                file.write(chunk)
        written[PurePosixPath(name).as_posix()] = size, crc
    if not written:
        raise _refused(archive, "is empty")
    return written


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _readable(archive: Path, pieces: Iterator[Found]) -> Iterator[Found]:
    """The same pieces; what fails while they are read is the archive's fault."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            return
        except _DAMAGED as error:
            raise _refused(archive, f"is damaged ({error or type(error).__name__})") from None
        yield piece


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if entry.flag_bits & 1:
                raise _refused(archive, f"holds {entry.filename!r} encrypted")
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"holds {entry.filename!r}, a link or device")
            if entry.is_dir():
                yield entry.filename, None
            else:
                with opened.open(entry) as source:
                    yield entry.filename, source


def _tar_entries(archive: Path) -> Iterator[Entry]:
    with tarfile.open(archive) as opened:
        for entry in opened:
            if not (entry.isfile() or entry.isdir()):
                raise _refused(archive, f"holds {entry.name!r}, a link or device")
            if entry.name != ".":
                yield entry.name, opened.extractfile(entry)


def _refused(archive: Path, found: str) -> FarfeelError:
    return FarfeelError(
        f"{archive.name} {found}, expected a whole archive of plain files; nothing of it is kept; "
        "tell its host, or try another --mirror"
    )
