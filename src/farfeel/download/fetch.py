"""Download the files of a host's list into a folder (the root), and check them.

Unfinished transfers lie in `.farfeel-download.partial` inside the root. If the process is killed, the next run resumes
them. A file gets its final name only after its checksum was verified. An archive is unpacked into a folder of the same
name, which appears only when it is complete. Existing files are never overwritten.
"""

from __future__ import annotations

import functools
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pooch

from farfeel.download.archives import folder_of, unpack, unpacked_bytes
from farfeel.download.record import Downloaded, Item, Record, digest
from farfeel.download.sources import Advance, Choice, Source, list_items
from farfeel.download.web import HttpClient, delete_partial, in_parallel
from farfeel.support.files import FULL, replacing_folder
from farfeel.types import FarfeelError

WORK = ".farfeel-download.partial"
_MARGIN = 50_000_000  # bytes that should stay free on the disk

pooch.get_logger().setLevel("ERROR")  # It logs every file. A progress bar shows them here.


@dataclass(frozen=True)
class Plan:
    """What to download.

    root: Folder for the files.
    choice: What the user requested.
    record: What was downloaded before.
    items: All requested files. Empty if the record shows that all of them are there.
    todo: The files that must be downloaded.
    licence: The licence as the host names it.
    """

    root: Path
    choice: Choice
    record: Record
    items: tuple[Item, ...] = ()
    todo: tuple[Item, ...] = ()
    licence: str = ""

    @property
    def bytes_todo(self) -> int:
        """Total size of the files that must be downloaded, as far as the host states it."""
        return sum(item.size or 0 for item in self.todo)


def make_plan(
    source: Source, root: Path, choice: Choice, client: HttpClient, clone: Path | None, advance: Advance
) -> Plan:
    """Compare the host's list with the files in the root. Nothing is written.

    Args:
        source: What to download.
        root: Folder for the files.
        choice: Which part of the source.
        client: Makes the requests.
        clone: A local clone of the source's repository, to copy files from. None: download them.
        advance: Called with the number of requests made and their total.

    Raises:
        FarfeelError: The host's list cannot be read, or the root contains another file of the same name.
    """
    root = _require_folder(root)
    record = Record.read(root, source.name)
    if choice.key in record.complete and all(record.is_intact(name) for name in record.complete[choice.key]):
        return Plan(root, choice, record)
    listing = list_items(source, choice, client, clone, record.pointers, advance)
    items = tuple(_with_known_checksum(item, record) for item in listing.items)
    todo = tuple(item for item in items if not _is_there(item, root, record))
    return Plan(root, choice, record, items, todo, listing.licence)


def require_disk_space(plan: Plan) -> int:
    """Check the disk space. All files must fit, and the largest archive a second time, because it is unpacked.

    Returns:
        Free bytes on the disk of the root.

    Raises:
        FarfeelError: The disk has too little space.
    """
    existing = next(folder for folder in (plan.root, *plan.root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    largest_archive = max((item.size or 0 for item in plan.todo if folder_of(item.name)), default=0)
    transferred = sum(file.stat().st_size for file in (plan.root / WORK).rglob("*") if file.is_file())
    needed = plan.bytes_todo + largest_archive - transferred + _MARGIN
    if plan.todo and free < needed:
        raise FarfeelError(
            f"{existing} has {free / 1e9:.1f} GB free, expected at least {needed / 1e9:.1f} GB; free some space or "
            "choose another --root"
        )
    return free


def fetch(plan: Plan, client: HttpClient, keep_archives: bool, advance: Advance) -> None:
    """Download, check and unpack the files of a plan. Files that are complete are kept after an error.

    Args:
        plan: From `make_plan`.
        client: Makes the requests.
        keep_archives: Keep archives after they are unpacked.
        advance: Called with the kilobytes downloaded and their total.

    Raises:
        FarfeelError: A file cannot be downloaded, checked, unpacked or written.
    """
    is_new_root = not plan.root.exists()
    plan.root.mkdir(parents=True, exist_ok=True)
    with _locked(plan.root):
        download = _Download(plan, client, keep_archives, advance)
        try:
            in_parallel(client, download.fetch_item, plan.todo)
            plan.record.complete[plan.choice.key] = [item.name for item in plan.items]
            shutil.rmtree(plan.root / WORK, ignore_errors=True)
        finally:
            if plan.record.held:
                plan.record.save()
            _remove_empty(plan.root / WORK)
            if is_new_root:
                _remove_empty(plan.root)


class _Download:
    """One run of `fetch`: its options, and the bytes that each item has received."""

    def __init__(self, plan: Plan, client: HttpClient, keep_archives: bool, advance: Advance) -> None:
        self._root, self._record, self._client, self._keep = plan.root, plan.record, client, keep_archives
        self._advance, self._total, self._lock = advance, plan.bytes_todo, threading.Lock()
        self._received: Counter[str] = Counter()  # bytes of each item
        self._received_total = 0  # sum of the above
        self._etags: dict[str, str] = {}

    def fetch_item(self, item: Item) -> None:
        """Download one item, check it, and put it into the root, unpacked if it is an archive."""
        try:
            users_archive = self._root / item.name  # The user may have put the archive there.
            is_users = folder_of(item.name) is not None and users_archive.is_file()
            complete = users_archive if is_users else self._retrieve(item)
            if folder_of(item.name):
                self._unpack(item, complete, is_users)
            else:
                self._move_to_root(item, complete)
        except OSError as error:
            remedy = "free some space" if error.errno in FULL else "check the path and its permissions"
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise FarfeelError(
                f"{self._root / item.name} cannot be written ({reason}); {remedy} and run the same command again: "
                "it resumes"
            ) from error

    def _retrieve(self, item: Item) -> Path:
        """Download an item into the working folder and check it. After a wrong checksum, it is tried once more."""
        known = None if item.checksum.startswith(("git:", "lfs:")) else item.checksum or None
        partial = self._root / WORK / item.name
        partial = partial.with_name(f".{partial.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)  # pooch fails if another thread makes it first

        def transfer(url: str, output: str, _: object) -> None:
            self._transfer(item, partial)
            _link_or_move(partial, Path(output))

        for is_last_try in (item.local, True):
            try:
                complete = Path(
                    pooch.retrieve(item.url, known, fname=item.name, path=self._root / WORK, downloader=transfer)
                )
                if known is None and item.checksum and (actual := digest(complete, item.checksum)) != item.checksum:
                    complete.unlink()
                    raise ValueError(f"expected {item.checksum} but got {actual}")
                delete_partial(partial)
                return complete
            except ValueError as error:  # pooch raises it for a wrong checksum
                delete_partial(partial)
                if is_last_try:
                    reason = str(error).partition(". ")[0]
                    remedy = "run git lfs pull in the clone" if item.local else "try later, or try another --mirror"
                    raise FarfeelError(
                        f"{item.url} is not the published file: {reason}; the file is deleted; {remedy}"
                    ) from None
                self._count(item, -self._received[item.name])
        raise AssertionError("the last try returns or raises")

    def _transfer(self, item: Item, partial: Path) -> None:
        if item.local:
            delete_partial(partial)
            _link_or_copy(Path(item.url), partial)
            self._count(item, item.size or 0)
        else:
            count = functools.partial(self._count, item)
            self._etags[item.name] = self._client.fetch(item.url, item.size, partial, bool(item.checksum), count)

    def _move_to_root(self, item: Item, complete: Path) -> None:
        path = self._root / item.name
        _require_absent(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        downloaded = self._describe(item, complete, {item.name: (complete.stat().st_size, None)})
        os.replace(complete, path)
        self._record.add(item.name, downloaded, at_once=False)

    def _unpack(self, item: Item, archive: Path, is_users: bool) -> None:
        name = str(folder_of(item.name))
        _require_absent(self._root / name)
        needed, free = unpacked_bytes(archive), shutil.disk_usage(self._root).free
        if free < needed:
            raise FarfeelError(
                f"{self._root} has {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} GB to unpack {item.name}; "
                "free some space and run the same command again"
            )
        with replacing_folder(self._root / name) as partial:
            try:
                unpacked = unpack(archive, partial, self._client.check_stopped)
            except FarfeelError:
                if not is_users:
                    archive.unlink()
                raise
            # The record is written before the folder is moved. A file that is recorded but missing is downloaded again.
            # A file that is there but not recorded would be taken for a file of the user.
            files = {f"{name}/{file}": size_and_crc for file, size_and_crc in unpacked.items()}
            self._record.add(item.name, self._describe(item, archive, files), at_once=True)
        if is_users:
            self._count(item, item.size or 0)
        elif self._keep:
            os.replace(archive, self._root / item.name)
        else:
            archive.unlink()

    def _describe(self, item: Item, complete: Path, files: Mapping[str, tuple[int, int | None]]) -> Downloaded:
        return Downloaded(item.checksum or digest(complete, "sha256"), self._etags.get(item.name, ""), files)

    def _count(self, item: Item, count: int) -> None:
        """Count received bytes. The count is negative if received bytes are thrown away."""
        with self._lock:
            self._received[item.name] += count
            self._received_total += count
            self._advance(max(self._received_total, 0) // 1000, self._total // 1000)


def _require_folder(root: Path) -> Path:
    """The absolute path of the root, which must be a folder or not exist yet."""
    path = Path(root).resolve()
    existing = next(entry for entry in (path, *path.parents) if entry.exists())
    if not existing.is_dir():
        raise FarfeelError(f"{existing} is a file, expected a folder for the download; choose another --root")
    return path


def _with_known_checksum(item: Item, record: Record) -> Item:
    """If the host publishes no checksum, the file must still have the checksum of the first download."""
    downloaded = record.held.get(item.name)
    return replace(item, checksum=downloaded.checksum) if downloaded and not item.checksum else item


def _is_there(item: Item, root: Path, record: Record) -> bool:
    """Whether an item need not be downloaded. Raises FarfeelError if another file or folder has its name."""
    downloaded = record.held.get(item.name)
    if downloaded and record.is_intact(item.name) and item.checksum == downloaded.checksum:
        return True
    folder = folder_of(item.name)
    if folder and os.path.lexists(root / folder):
        problem = "is changed or lacks files" if downloaded else "was not unpacked by this command"
        raise FarfeelError(
            f"{root / folder} {problem}, expected the content of {item.name} or nothing; nothing is overwritten: move "
            "it away, or choose another --root"
        )
    path = root / item.name
    if not os.path.lexists(path):
        return False
    has_right_size = path.is_file() and item.size in (None, path.stat().st_size)
    if not has_right_size or (item.checksum and digest(path, item.checksum) != item.checksum):
        raise FarfeelError(
            f"{path} is not the published file (expected {item.size} bytes, {item.checksum}); nothing is overwritten: "
            "move it away, or choose another --root"
        )
    if folder is None:
        files: dict[str, tuple[int, int | None]] = {item.name: (path.stat().st_size, None)}
        record.held[item.name] = Downloaded(item.checksum or digest(path, "sha256"), "", files)
    return folder is None  # An archive still has to be unpacked.


def _require_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise FarfeelError(
            f"{path} was created by another program during the download, expected nothing there; move it away and run "
            "the same command again"
        )


def _link_or_move(partial: Path, output: Path) -> None:
    """Link the file, so that it can be resumed if the process is killed while the checksum is computed."""
    output.unlink(missing_ok=True)
    try:
        os.link(partial, output)
    except OSError:
        os.replace(partial, output)


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or a disk without links
        shutil.copyfile(source, target)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and its subfolders, as far as they contain no file."""
    inside = sorted((entry for entry in folder.rglob("*") if entry.is_dir()), reverse=True)
    for entry in (*inside, folder):
        with suppress(OSError):
            entry.rmdir()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock the folder against other downloads. No file is left behind. Systems and disks without locks have none."""
    if os.name != "posix":
        yield
        return
    import fcntl

    opened = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FarfeelError(
                f"another farfeel download is writing into {root}, expected one at a time; wait until it ends"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(opened)
