"""Write files so that a killed command leaves no file that looks complete.

A file is written under a temporary name in the same folder, `.<name>.<writer>.partial`, and gets its own name when it
is complete. The writer is `<process id>-<host>-<start time>`: the name itself is the lock, and both appear at once.

What a killed process left under such a name is removed by the next process that writes there. A folder may be shared
with other machines and containers, where the same process id means another process. So a leftover is removed only if
its writer is certainly dead: it was on this host, and no process has its id and start time. Otherwise it is removed
when nothing in it has changed for a day.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from farfeel.types import FarfeelError

DEAD_AFTER_S = 24 * 3600.0
LONGEST_NAME = 200  # bytes of a name in a temporary name; 255 are legal, and the writer takes up to 50
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # error numbers of a full disk


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any failure it is removed.

    Raises FarfeelError where no file can be written at `path`, or the disk is full.
    """
    path = require_writable_file(path)
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

    A whole folder is replaced by two moves. A process killed between them leaves the old one as `.<name>.<writer>.old`,
    which the next writer puts back. Raises FarfeelError where no folder can be written at `path`, or the disk is full.
    """
    path = require_writable_folder(path)
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


def require_writable_file(path: Path) -> Path:
    """The path, absolute and with links followed, if a file can be written there. Else raises FarfeelError."""
    file = _resolved(path)
    if file.exists() and not file.is_file():
        kind = "is a folder" if file.is_dir() else "is no file on a disk"
        raise FarfeelError(f"{path} {kind}, expected a file or a new name; choose another --out")
    return file


def require_writable_folder(path: Path) -> Path:
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
    folder = require_writable_folder(path)
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
    pid = os.getpid()
    return path.with_name(f".{_short(path.name)}.{pid}-{_host()}-{_start_of(pid) or 0}.{kind}")


def _short(name: str) -> str:
    """The name, shortened where a longer one with what is added to it would not be legal."""
    held = os.fsencode(name)
    if len(held) <= LONGEST_NAME:
        return name
    return f"{held[: LONGEST_NAME - 9].decode(errors='ignore')}~{hashlib.sha256(held).hexdigest()[:8]}"


@functools.cache
def _host() -> str:
    """A short name of this host until it is started again. A container is a host of its own."""
    facts = [socket.gethostname()]
    for fact in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with suppress(OSError):  # not on every system
            facts.append(fact())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since the host did; None where it cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _to_disk(file: Path) -> None:
    """Wait until the bytes are on the disk. Else a power cut could leave zeros under the final name."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _clear_leftovers(path: Path) -> None:
    """Remove what killed processes left beside `path`; put back an old folder that was not replaced."""
    pattern = re.compile(
        rf"\.{re.escape(_short(path.name))}\.(\d{{1,9}})(?:-([0-9a-f]{{8}})-(\d{{1,20}}))?\.(partial|old)"
    )
    for entry in path.parent.iterdir():
        left = pattern.fullmatch(entry.name)
        if left is None or not (_is_dead(int(left[1]), left[2], left[3]) or _is_old(entry)):
            continue
        if left[4] == "old" and not path.exists():
            os.replace(entry, path)
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_dead(pid: int, host: str | None, start: str | None) -> bool:
    """Whether a writer has certainly ended. Versions before this one did not write down host and start time."""
    if host != _host() or start is None:
        return False
    if not _is_running(pid):
        return True
    now = _start_of(pid)
    return now is not None and int(start) not in (now, 0)  # Another process has the id by now.


def _is_old(entry: Path) -> bool:
    """Whether nothing in a file or folder has changed for a day."""
    try:
        newest = max(each.lstat().st_mtime for each in (entry, *entry.rglob("*")))
    except OSError:  # Somebody is writing or removing it.
        return False
    return time.time() - newest > DEAD_AFTER_S


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
