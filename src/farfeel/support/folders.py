"""The files under a folder, in sorted order. Links are followed, also links to folders; a loop of links is not.

Passed over: hidden names (unfinished files, macOS's `._` files) and what operating systems put into folders
(`__MACOSX`, `Thumbs.db`). Pipes, sockets and devices are passed over, too: to open one could wait for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

LITTER = (
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
)
"""Names, in lower case, that operating systems and storage servers put into folders. Hidden names are litter too."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.casefold() in LITTER


def files_under(root: Path, on_unread: Callable[[Path, str], None] | None = None) -> Iterator[Path]:
    """All files under `root`: first those of a folder, then those of its sub-folders, each in sorted order.

    A link that leads nowhere is a file too: its reader names it. on_unread: called with each folder that cannot be
    read, and why.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(Path(root), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            about = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if on_unread:
                on_unread(folder, os.strerror(error.errno) if error.errno else str(error))
            continue
        identity = (about.st_dev, about.st_ino)
        if identity in above:  # a link to a folder that holds it
            continue
        folders = []
        for entry in entries:
            if is_litter(entry.name):
                continue
            kind = _kind(entry)
            if kind == "folder":
                folders.append((folder / entry.name, above | {identity}))
            elif kind == "file":
                yield folder / entry.name
        waiting += reversed(folders)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError:  # a link to nothing, or to itself
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "neither"
