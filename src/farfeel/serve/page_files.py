"""The files of the page: they have names, a limited total size, and a limited time."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from farfeel.serve.limits import Limits, Refusal

LIFETIME_S = 270.0  # Together with SWEEP_INTERVAL_S it is less than the five minutes stated on the page.
SWEEP_INTERVAL_S = 20.0
YOUNG_S = 30.0  # A file is kept for so long in any case, so that its user can press the button.
SMALLEST_BYTES = 2**16  # Each file counts for at least so much, because every file also takes an entry of the disk.
FOLDER = "farfeel-page-"  # followed by the process id of the server and random characters
RETRY_S = 30


@dataclass(frozen=True)
class _File:
    written_s: float
    bytes: int
    path: Path


class PageFiles:
    """The folder with the uploads and the examples of the page. Gradio needs names for them.

    When all uploads together become too large, the oldest ones are deleted.

    Args:
        limits: The limits of the server.

    Attributes:
        folder: The folder.
        examples: Files that are never deleted.
        bytes: Size of all files that were uploaded since the last look at the folder, and of those that it had then.
    """

    def __init__(self, limits: Limits) -> None:
        self.limit_bytes = limits.stored_bytes
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
        self.examples: set[Path] = set()
        self.bytes = 0

    async def add(self, count: int) -> None:
        """Count bytes of an upload. Delete the oldest files if there is no room for them.

        Raises:
            Refusal: There is no room, and all files are new (429).
        """
        self.bytes += count
        if self.bytes > self.limit_bytes:
            self.bytes = await asyncio.to_thread(self.make_room)
        if self.bytes > self.limit_bytes:
            raise Refusal(
                429,
                f"the page has {self.bytes / 2**20:.0f} MB of uploads, this server keeps {self.limit_bytes / 2**20:g} "
                f"MB; try again in {RETRY_S} s",
                RETRY_S,
            )

    async def look(self) -> None:
        """Measure the folder, and delete the oldest files if they are too large together."""
        self.bytes = await asyncio.to_thread(self.make_room)

    def make_room(self) -> int:
        """Delete the oldest files until all are small enough together → the size of the others."""
        files = sorted(self._uploads(), key=lambda file: file.written_s)
        total = sum(file.bytes for file in files)
        for file in files:
            if total <= self.limit_bytes or file.written_s > time.time() - YOUNG_S:
                break
            file.path.unlink(missing_ok=True)
            total -= file.bytes
        return total

    def sweep(self, age_s: float = LIFETIME_S) -> None:
        """Delete files that were not written for so many seconds, and folders that are empty for so long."""
        oldest_s = time.time() - age_s
        for file in self._uploads():
            if file.written_s < oldest_s:
                file.path.unlink(missing_ok=True)
        for path in sorted(self.folder.rglob("*"), reverse=True):  # A folder comes after what it contains.
            with suppress(OSError):  # It is not empty, or Gradio has moved it.
                if path.is_dir() and path.stat().st_mtime < oldest_s:
                    path.rmdir()

    async def sweep_forever(self) -> None:
        """Delete old files again and again."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            await asyncio.to_thread(self.sweep)
            await self.look()

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _uploads(self) -> list[_File]:
        files = []
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # Gradio may move a file at any time.
                status = path.stat()
                if path.is_file() and path not in self.examples:
                    files.append(_File(status.st_mtime, max(status.st_size, SMALLEST_BYTES), path))
        return files


def remove_leftovers() -> None:
    """Delete the folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        owner = folder.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
