"""Write files so that a killed command leaves no file that looks complete.

A file is written under a temporary name in the same folder (`.<name>.<pid>.partial`), and gets its own name when it is
complete. What a killed process has left under such a name is removed by the next process that writes there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from farfeel.types import FarfeelError

LONGEST_NAME = 200  # bytes; the rest is for what the temporary name adds
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # error numbers of a full disk


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any failure it is removed.

    Raises FarfeelError where no file can be written at `path`, or the disk is full.
    """
    path = require_file_place(path)
    partial = _beside(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces `path`, on any failure it is removed.

    A whole folder is replaced by two moves. A process killed between them leaves the old one as `.<name>.<pid>.old`,
    which the next writer puts back. Raises FarfeelError where no folder can be written at `path`, or the disk is
    full.
    """
    path = require_folder_place(path)
    partial, old = _beside(path, "partial"), _beside(path, "old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        partial.mkdir()
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _to_disk(file)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def require_file_place(path: Path) -> Path:
    """The path, absolute and with links followed, if a file can be written there. Else raises FarfeelError."""
    file = _resolved(path)
    if file.exists() and not file.is_file():
        kind = "is a folder" if file.is_dir() else "is no file on a disk"
        raise FarfeelError(f"{path} {kind}, expected a file or a new name; choose another --out")
    return file


def require_folder_place(path: Path) -> Path:
    """The path, absolute and with links followed, if a folder can be written there. Else raises FarfeelError."""
    folder = _resolved(path)
    if folder.exists() and not folder.is_dir():
        raise FarfeelError(f"{path} is a file, expected a folder or a new name; choose another --out")
    if folder.exists() and Path.cwd().is_relative_to(folder):
        raise FarfeelError(f"{path} is the folder you are in and cannot be replaced; name one inside it with --out")
    return folder


def require_replaceable(path: Path, names: Sequence[str], what: str) -> Path:
    """The path, absolute and with links followed, if a folder of `what` may be written there: if nothing is there, an
    empty folder, or a folder with files of these names only (patterns). Else raises FarfeelError."""
    folder = require_folder_place(path)
    require_only(path, names, what)
    return folder


def require_only(path: Path, names: Sequence[str], what: str) -> None:
    """Raise FarfeelError where the folder `path` holds anything but `names` (patterns): files that are not ours."""
    path = Path(path)
    inside = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    foreign = [name for name in inside if not any(fnmatch(name, own) for own in names)]
    if foreign:
        raise FarfeelError(
            f"{path} holds {foreign[0]}, which is no part of {what}; expected a new folder or {what} to be replaced; "
            "choose another --out"
        )


def require_folder(path: Path, what: str, remedy: str) -> Path:
    """The path, if it is a folder. Else raises FarfeelError with the expected `what` and the remedy."""
    path = Path(path)
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise FarfeelError(f"{path} {found}; expected {what}; {remedy}")
    return path


def _resolved(path: Path) -> Path:
    if str(path) == "-":
        raise FarfeelError("--out - is standard output, expected a file or folder on a disk; choose another --out")
    absolute = Path(path).resolve()
    above = next(folder for folder in absolute.parents if folder.exists())
    if not above.is_dir():
        raise FarfeelError(f"{above} is a file, {path} would be inside it; choose another --out")
    return absolute


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{_short(path.name)}.{os.getpid()}.{kind}")


def _short(name: str) -> str:
    """The name, or a shorter one with its checksum: a name has at most 255 bytes, the temporary one beside it too."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    return f"{encoded[: LONGEST_NAME - 9].decode(errors='ignore')}-{zlib.crc32(encoded):08x}"


def _to_disk(file: Path) -> None:
    """Wait until the bytes are on the disk. Else a power cut could leave zeros under the final name."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _clear_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path`; put back an old folder that was not replaced."""
    for entry in path.parent.iterdir():
        left = re.fullmatch(rf"\.{re.escape(_short(path.name))}\.(\d{{1,9}})\.(partial|old)", entry.name)
        if left is None or _is_running(int(left[1])):
            continue
        if left[2] == "old" and not path.exists():
            os.replace(entry, path)
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # this process writes to the same path again
    if os.name != "posix":
        return True  # elsewhere signal 0 is not harmless
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unwritten(path: Path, error: OSError) -> FarfeelError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    where = f": {error.filename}" if error.filename else ""
    remedy = "free some space or choose another folder" if error.errno in FULL else "check the path and its permissions"
    return FarfeelError(f"{path} cannot be written ({reason}{where}); nothing half-written is left; {remedy}")
