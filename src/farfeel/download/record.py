"""What a folder holds of a download: a small JSON file in it, `.farfeel-download.json`.

It names each file that came whole, its checksum and ETag, and what it was unpacked to, with sizes. A later run believes
it as far as the files are there with these sizes; `verify` reads every byte.
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

import pooch

from farfeel.support.files import replacing_file
from farfeel.types import FarfeelError

RECORD = ".farfeel-download.json"
VERSION = 1
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
CHECKSUM = re.compile(r"(git|lfs|md5|sha1|sha256|sha512):[0-9a-f]{32,128}")
_SAVE_EVERY_S = 5.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Item:
    """A file at its host: its name and place under the root, its address (or its path, if it is on this machine), its
    size in bytes (None: not told), and its checksum.

    checksum: algorithm:hex digits, where the algorithm is one of hashlib's; or git, Git's name of a file; or lfs, Git's
    name of the pointer to a file that Git LFS keeps. Empty: the host tells none.
    """

    name: str
    url: str
    size: int | None = None
    checksum: str = ""
    local: bool = False


@dataclass(frozen=True)
class Held:
    """An item that came whole. `checksum` is the host's, or the sha256 that was seen where it tells none. files: path
    under the root → size in bytes, and CRC-32 of what was unpacked (None: the file is the item itself)."""

    checksum: str
    etag: str
    files: Mapping[str, tuple[int, int | None]]


@dataclass
class Record:
    """held: item's name → what came. complete: choices (what was asked for) that were once fulfilled → their items.
    pointers: Git's name of an LFS pointer → sha256 and size of the file."""

    root: Path
    source: str
    held: dict[str, Held] = field(default_factory=dict)
    complete: dict[str, list[str]] = field(default_factory=dict)
    pointers: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._saved_s = float("-inf")

    @classmethod
    def read(cls, root: Path, source: str) -> Record:
        """The record of a folder, empty where there is none. Raises FarfeelError where it is damaged, or of another
        source."""
        path = Path(root) / RECORD
        if not path.is_file():
            return cls(Path(root), source)
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            found, version = known["source"], known["version"]
            held = {
                name: Held(
                    one["checksum"], one["etag"], {file: (size, crc) for file, (size, crc) in one["files"].items()}
                )
                for name, one in known["held"].items()
            }
            pointers = {blob: (sha256, size) for blob, (sha256, size) in known["pointers"].items()}
            for one in held.values():
                if not CHECKSUM.fullmatch(one.checksum):
                    raise ValueError(f"checksum {one.checksum}")
            record = cls(Path(root), source, held, known["complete"], pointers)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise FarfeelError(
                f"{path} cannot be read ({error!r}), expected a record of farfeel download; delete it, and what is "
                "there is checked anew"
            ) from None
        if version != VERSION or found != source:
            raise FarfeelError(
                f"{root} holds a download of {found} (record version {version}), expected {source} ({VERSION}); "
                "choose another --root"
            )
        return record

    def keep(self, name: str, held: Held, at_once: bool) -> None:
        """Note an item. A record of thousands is not written thousands of times: what a kill takes from it is found
        again by its checksum."""
        with self._lock:
            self.held[name] = held
            if at_once or time.monotonic() - self._saved_s > _SAVE_EVERY_S:
                self._save()

    def save(self) -> None:
        with self._lock:
            self._save()

    def _save(self) -> None:
        known = {
            "version": VERSION,
            "source": self.source,
            "complete": self.complete,
            "pointers": self.pointers,
            "held": {name: asdict(held) for name, held in self.held.items()},
        }
        with replacing_file(self.root / RECORD) as partial:
            partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
        self._saved_s = time.monotonic()

    def is_intact(self, name: str) -> bool:
        """Whether all files of an item are there with their sizes."""
        return name in self.held and all(
            _size(self.root / file) == size for file, (size, _) in self.held[name].files.items()
        )

    def verify(self, advance: Callable[[int, int], None]) -> list[str]:
        """Read every file again; those that are no longer what came."""
        wrong, done = [], 0
        total = sum(len(held.files) for held in self.held.values())
        for held in self.held.values():
            for file, (size, crc) in held.files.items():
                path = self.root / file
                same = _size(path) == size and (
                    digest(path, held.checksum) == held.checksum if crc is None else _crc(path) == crc
                )
                wrong += [] if same else [file]
                done += 1
                advance(done, total)
        return wrong


def digest(path: Path, like: str) -> str:
    """The checksum of a file by the same algorithm as another."""
    algorithm = like.partition(":")[0]
    if algorithm == "git":
        return f"git:{git_name(path)}"
    if algorithm == "lfs":
        pointer = LFS_POINTER.format(pooch.file_hash(str(path), "sha256"), path.stat().st_size).encode()
        return f"lfs:{git_name_of(pointer)}"
    return f"{algorithm}:{pooch.file_hash(str(path), algorithm)}"


def git_name(path: Path) -> str:
    hashed = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def git_name_of(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
