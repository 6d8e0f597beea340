"""The record of a download: the small JSON file `.farfeel-download.json` in the download folder.

It lists each complete file with its checksum and ETag, and the files unpacked from it with their sizes. A later run
trusts the record if the files have these sizes. `Record.verify` reads every byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pooch

from farfeel.download.archives import is_inside
from farfeel.support.files import replacing_file
from farfeel.support.reading import damage, read_json, require_fields
from farfeel.types import FarfeelError

RECORD = ".farfeel-download.json"
VERSION = 1
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
CHECKSUM = re.compile(r"(git|lfs|md5|sha1|sha256|sha512):[0-9a-f]{32,128}")
_SAVE_EVERY_S = 5.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Item:
    """A file that can be downloaded.

    name: Its path relative to the root.
    url: Its address, or its path if it is local.
    size: In bytes. None if the host does not state it.
    checksum: "algorithm:hex digits", or empty if the host publishes none. The algorithm is one of hashlib's, or "git"
        for Git's hash of a file, or "lfs" for Git's hash of the pointer to a file in Git LFS.
    local: Whether the file is on this machine.
    """

    name: str
    url: str
    size: int | None = None
    checksum: str = ""
    local: bool = False


@dataclass(frozen=True)
class Downloaded:
    """A complete item.

    checksum: As the host publishes it. If it publishes none, the SHA-256 of the first download.
    etag: The HTTP ETag, or the date of the last change.
    files: Path relative to the root → size in bytes, and CRC-32 of an unpacked file. The CRC-32 is None if the file is
        the item itself.
    """

    checksum: str
    etag: str
    files: Mapping[str, tuple[int, int | None]]


@dataclass
class Record:
    """What was downloaded into a folder.

    root: The folder.
    source: Name of the source.
    held: Name of an item → what was downloaded.
    complete: Key of a choice that was downloaded completely → names of its items.
    pointers: Git's hash of an LFS pointer → SHA-256 and size of the file.
    """

    root: Path
    source: str
    held: dict[str, Downloaded] = field(default_factory=dict)
    complete: dict[str, list[str]] = field(default_factory=dict)
    pointers: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._saved_s = float("-inf")

    @classmethod
    def read(cls, root: Path, source: str) -> Record:
        """Read the record of a folder. It is empty if there is none.

        Raises:
            FarfeelError: The record is damaged, or belongs to another source.
        """
        path = Path(root) / RECORD
        if not path.is_file():
            return cls(Path(root), source)
        message = f"{path} cannot be read"
        expected = "expected a record of farfeel download; delete it, and the next run checks all files again"
        with damage(lambda reason: f"{message} ({reason}), {expected}"):
            stored = require_fields(
                read_json(path.read_text(encoding="utf-8")),
                {"source": str, "version": int, "held": dict, "pointers": dict, "complete": dict},
            )
            stored_source, version = stored["source"], stored["version"]
            held = {name: _downloaded(name, entry) for name, entry in stored["held"].items()}
            pointers = {blob: (str(sha256), int(size)) for blob, (sha256, size) in stored["pointers"].items()}
            complete = {key: [str(name) for name in list(names)] for key, names in stored["complete"].items()}
            record = cls(Path(root), source, held, complete, pointers)
        if version != VERSION or stored_source != source:
            raise FarfeelError(
                f"{root} contains a download of {stored_source} (record version {version}), expected {source} "
                f"({VERSION}); choose another --root"
            )
        return record

    def add(self, name: str, downloaded: Downloaded, at_once: bool) -> None:
        """Add an item. There may be thousands, so the file is written only every few seconds, or `at_once`.

        If the process is killed, items that were not written are recognised by their checksums.
        """
        with self._lock:
            self.held[name] = downloaded
            if at_once or time.monotonic() - self._saved_s > _SAVE_EVERY_S:
                self._save()

    def save(self) -> None:
        """Write the record to its file."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        content = {
            "version": VERSION,
            "source": self.source,
            "complete": self.complete,
            "pointers": self.pointers,
            "held": {name: asdict(entry) for name, entry in self.held.items()},
        }
        with replacing_file(self.root / RECORD) as partial:
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        self._saved_s = time.monotonic()

    def is_intact(self, name: str) -> bool:
        """Whether all files of an item exist with the recorded sizes."""
        return name in self.held and all(
            _size(self.root / file) == size for file, (size, _) in self.held[name].files.items()
        )

    def verify(self, advance: Callable[[int, int], None]) -> list[str]:
        """Read every file again and check it.

        Args:
            advance: Called with the number of files read and their total.

        Returns:
            Paths of the files that are missing or changed, relative to the root.
        """
        changed, count = [], 0
        total = sum(len(downloaded.files) for downloaded in self.held.values())
        for downloaded in self.held.values():
            for file, (size, crc) in downloaded.files.items():
                path = self.root / file
                is_unchanged = _size(path) == size and (
                    digest(path, downloaded.checksum) == downloaded.checksum if crc is None else _crc(path) == crc
                )
                changed += [] if is_unchanged else [file]
                count += 1
                advance(count, total)
        return changed


def _downloaded(name: str, entry: Any) -> Downloaded:
    """An entry of a record. Raises ValueError or TypeError where it is none."""
    require_fields(entry, {"checksum": str, "etag": str, "files": dict})
    if not CHECKSUM.fullmatch(entry["checksum"]):
        raise ValueError(f"checksum {entry['checksum'][:40]}")
    files: dict[str, tuple[int, int | None]] = {}
    for file, (size, crc) in entry["files"].items():
        if not is_inside(file) or type(size) is not int or type(crc) not in (int, type(None)):
            raise ValueError(f"{name[:40]} has the file {file[:40]!r}")
        files[file] = size, crc
    return Downloaded(entry["checksum"], entry["etag"], files)


def digest(path: Path, like: str) -> str:
    """Checksum of a file, by the same algorithm as the checksum `like`."""
    algorithm = like.partition(":")[0]
    if algorithm == "git":
        return f"git:{_git_hash_of_file(path)}"
    if algorithm == "lfs":
        pointer = LFS_POINTER.format(pooch.file_hash(str(path), "sha256"), path.stat().st_size).encode()
        return f"lfs:{git_hash(pointer)}"
    return f"{algorithm}:{pooch.file_hash(str(path), algorithm)}"


def _git_hash_of_file(path: Path) -> str:
    hashed = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def git_hash(content: bytes) -> str:
    """Git's hash (the name of the blob) of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # A name from a damaged record may be longer than the disk allows.
        return None
