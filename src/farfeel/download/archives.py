"""Unpack an untrusted zip or tar archive.

Only plain files and folders are accepted, only inside the target folder, and each name only once. The number of
entries, the total size and the compression ratio are limited. The sizes stated in an archive are not trusted: bytes are
counted while they are unpacked.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from farfeel.support.reading import damage
from farfeel.types import FarfeelError

T = TypeVar("T")
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz")
MAX_ENTRIES = 200_000
MAX_BYTES = 200 * 10**9
MAX_RATIO = 100  # Unpacked to packed bytes. It is 2 for speech in WAV files, and close to 100 for digital silence.
MIN_ALLOWED_BYTES = 10_000_000  # So many bytes may be unpacked at any compression ratio.
_CHUNK = 1 << 20
_MOST_HEADER = 1 << 20  # bytes of a tar's description of one entry: of long names, and of the pax format
_DECODERS = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ": lzma.LZMAFile}  # by first bytes
Entry = tuple[str, IO[bytes] | None]  # The name of an entry and its content. None: it is a folder.


def folder_of(name: str) -> str | None:
    """Name of the folder that an archive is unpacked to: its name without suffix. None if a file is no archive."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    return name[: -len(suffix)] if suffix and len(name) > len(suffix) else None


def is_inside(name: str) -> bool:
    """Whether a path stays inside the folder that it is joined to, on every operating system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        name.startswith("/") or ".." in parts or re.search(r"[\\\x00-\x1f]", name) or re.match(r"[A-Za-z]:", name)
    )


def unpacked_bytes(archive: Path) -> int:
    """Unpacked size in bytes that a zip archive states. 0 for other archives, which would have to be read for it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return sum(entry.file_size for entry in opened.infolist())
    except Exception:  # Damage has many kinds, and unpack reports it.
        return 0


def unpack(archive: Path, folder: Path, check_stopped: Callable[[], None] = lambda: None) -> dict[str, tuple[int, int]]:
    """Unpack an archive into an empty folder.

    Args:
        archive: A zip or tar file.
        folder: An empty folder.
        check_stopped: Called often. It may raise an exception to stop.

    Returns:
        Path of each file in the folder → its size in bytes and its CRC-32.

    Raises:
        FarfeelError: The archive is damaged, exceeds a limit, or contains something else than plain files.
    """
    allowed = min(MAX_BYTES, max(MIN_ALLOWED_BYTES, MAX_RATIO * archive.stat().st_size))
    written: dict[str, tuple[int, int]] = {}
    entries = _zip_entries(archive) if archive.name.lower().endswith(".zip") else _tar_entries(archive)
    for count, (name, source) in enumerate(_readable(archive, entries), start=1):
        if count > MAX_ENTRIES:
            raise _refused(archive, f"has more than {MAX_ENTRIES} entries")
        if not is_inside(name):
            raise _refused(archive, f"contains {name!r}, which lies outside the target folder")
        path = folder / name
        try:
            if source is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise _refused(archive, f"contains {name!r} twice") from None
        size, crc = 0, 0
        with file:
            for chunk in _readable(archive, _chunks(source)):
                check_stopped()
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


def _readable(archive: Path, pieces: Iterator[T]) -> Iterator[T]:
    """Pass the pieces on. An error while they are read is reported as damage of the archive."""
    while True:
        with damage(lambda reason: str(_refused(archive, f"is damaged ({reason})"))):
            try:
                piece = next(pieces)
            except StopIteration:
                return
        yield piece


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if entry.flag_bits & 1:
                raise _refused(archive, f"contains {entry.filename!r}, which is encrypted")
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"contains {entry.filename!r}, a link or device")
            if entry.is_dir():
                yield entry.filename, None
            else:
                with opened.open(entry) as source:
                    yield entry.filename, source


def _tar_entries(archive: Path) -> Iterator[Entry]:
    with archive.open("rb") as file:
        first = file.read(6)
        file.seek(0)
        decoder = next((decoder for begin, decoder in _DECODERS.items() if first.startswith(begin)), None)
        source: Any = _Bounded(decoder(file) if decoder else file)
        with tarfile.open(fileobj=source, mode="r:") as opened:
            for entry in opened:
                if not (entry.isfile() or entry.isdir()):
                    raise _refused(archive, f"contains {entry.name!r}, a link or device")
                if entry.name != ".":
                    yield entry.name, opened.extractfile(entry)


class _Bounded:
    """A decoded tar, from which nothing reads more than _MOST_HEADER at once.

    tarfile reads the description of an entry at once, with the length that the archive states: 1 kB of a compressed
    archive could fill the memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise ValueError(f"the description of an entry has {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _refused(archive: Path, problem: str) -> FarfeelError:
    return FarfeelError(
        f"{archive.name} {problem}, expected a complete archive of plain files; none of its files are kept; "
        "report it to the host, or try another --mirror"
    )
