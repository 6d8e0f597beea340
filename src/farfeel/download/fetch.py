"""From a host's list to checked files under a root.

Transfers go on in `.farfeel-download.partial` in the root, and what a kill leaves there is gone on with. A file takes
its place when its checksum is right; an archive is unpacked into a folder named like it, which takes its place whole.
Nothing that was there before is overwritten.
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
from farfeel.download.record import Held, Item, Record, digest
from farfeel.download.sources import Advance, Choice, Source, list_items
from farfeel.download.web import Web, forget, in_parallel
from farfeel.support.files import FULL, replacing_folder
from farfeel.types import FarfeelError

WORK = ".farfeel-download.partial"
_MARGIN = 50_000_000  # bytes that a disk should have left

pooch.get_logger().setLevel("ERROR")  # It tells of every file; here is a bar for that.


@dataclass(frozen=True)
class Plan:
    """items: all that is asked for, none where the record says that all is there; todo: those to be fetched."""

    root: Path
    choice: Choice
    record: Record
    items: tuple[Item, ...] = ()
    todo: tuple[Item, ...] = ()
    licence: str = ""

    @property
    def bytes_todo(self) -> int:
        return sum(item.size or 0 for item in self.todo)


def make_plan(source: Source, root: Path, choice: Choice, web: Web, clone: Path | None, advance: Advance) -> Plan:
    """Compare the host's list with what is under the root; nothing is written.

    Raises FarfeelError where something else is in the place of a file.
    """
    root = _require_place(root)
    record = Record.read(root, source.name)
    if choice.key in record.complete and all(record.is_intact(name) for name in record.complete[choice.key]):
        return Plan(root, choice, record)
    listing = list_items(source, choice, web, clone, record.pointers, advance)
    items = tuple(_as_seen(item, record) for item in listing.items)
    todo = tuple(item for item in items if not _is_there(item, root, record))
    return Plan(root, choice, record, items, todo, listing.licence)


def require_room(plan: Plan) -> int:
    """Free bytes where the root is, or will be. Raises FarfeelError where what is to come does not fit: all files, and
    the largest archive a second time, unpacked."""
    there = next(folder for folder in (plan.root, *plan.root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    twice = max((item.size or 0 for item in plan.todo if folder_of(item.name)), default=0)
    begun = sum(file.stat().st_size for file in (plan.root / WORK).rglob("*") if file.is_file())
    needed = plan.bytes_todo + twice - begun + _MARGIN
    if plan.todo and free < needed:
        raise FarfeelError(
            f"{there} has {free / 1e9:.1f} GB free, expected at least {needed / 1e9:.1f} GB; free some space or choose "
            "another --root"
        )
    return free


def fetch(plan: Plan, web: Web, keep_archives: bool, advance: Advance) -> None:
    """Fetch, check, unpack. `advance` is told of kilobytes. Raises FarfeelError; what came whole stays."""
    made = not plan.root.exists()
    plan.root.mkdir(parents=True, exist_ok=True)
    with _alone(plan.root):
        fetching = _Fetching(plan, web, keep_archives, advance)
        try:
            in_parallel(web, fetching.bring, plan.todo)
            plan.record.complete[plan.choice.key] = [item.name for item in plan.items]
            shutil.rmtree(plan.root / WORK, ignore_errors=True)
        finally:
            if plan.record.held:
                plan.record.save()
            _remove_empty(plan.root / WORK)
            if made:
                _remove_empty(plan.root)


class _Fetching:
    """One run: what it was told, and how far it is."""

    def __init__(self, plan: Plan, web: Web, keep_archives: bool, advance: Advance) -> None:
        self._root, self._record, self._web, self._keep = plan.root, plan.record, web, keep_archives
        self._advance, self._total, self._lock = advance, plan.bytes_todo, threading.Lock()
        self._came: Counter[str] = Counter()  # bytes of each item
        self._done = 0  # their sum
        self._etags: dict[str, str] = {}

    def bring(self, item: Item) -> None:
        """One item, from its host to its place."""
        try:
            own = self._root / item.name  # an archive that the user has put there
            is_own = folder_of(item.name) is not None and own.is_file()
            whole = own if is_own else self._retrieve(item)
            if folder_of(item.name):
                self._unpack(item, whole, is_own)
            else:
                self._place(item, whole)
        except OSError as error:
            remedy = "free some space" if error.errno in FULL else "check the path and its permissions"
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise FarfeelError(
                f"{self._root / item.name} cannot be written ({reason}); what came is kept; {remedy} and run the same "
                "command again"
            ) from error

    def _retrieve(self, item: Item) -> Path:
        """The item, whole and checked, in the working folder. A wrong one is fetched once more, from its beginning."""
        known = None if item.checksum.startswith(("git:", "lfs:")) else item.checksum or None
        partial = self._root / WORK / item.name
        partial = partial.with_name(f".{partial.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)  # pooch fails where another thread makes it at that moment

        def transfer(url: str, output: str, _: object) -> None:
            self._transfer(item, partial)
            _hand_over(partial, Path(output))

        for is_last in (item.local, True):
            try:
                whole = Path(
                    pooch.retrieve(item.url, known, fname=item.name, path=self._root / WORK, downloader=transfer)
                )
                if known is None and item.checksum and (found := digest(whole, item.checksum)) != item.checksum:
                    whole.unlink()
                    raise ValueError(f"expected {item.checksum} but got {found}")
                forget(partial)
                return whole
            except ValueError as error:  # pooch's word for a wrong checksum
                forget(partial)
                if is_last:
                    said = str(error).partition(". ")[0]
                    remedy = "run git lfs pull in the clone" if item.local else "try later, or another --mirror"
                    raise FarfeelError(
                        f"{item.url} is not the published file: {said}; nothing is kept; {remedy}"
                    ) from None
                self._gained(item, -self._came[item.name])
        raise AssertionError("the last try returns or raises")

    def _transfer(self, item: Item, partial: Path) -> None:
        if item.local:
            forget(partial)
            _link_or_copy(Path(item.url), partial)
            self._gained(item, item.size or 0)
        else:
            gained = functools.partial(self._gained, item)
            self._etags[item.name] = self._web.fetch(item.url, item.size, partial, bool(item.checksum), gained)

    def _place(self, item: Item, whole: Path) -> None:
        place = self._root / item.name
        _require_free(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        held = self._held(item, whole, {item.name: (whole.stat().st_size, None)})
        os.replace(whole, place)
        self._record.keep(item.name, held, at_once=False)

    def _unpack(self, item: Item, whole: Path, is_own: bool) -> None:
        name = str(folder_of(item.name))
        _require_free(self._root / name)
        needed, free = unpacked_bytes(whole), shutil.disk_usage(self._root).free
        if free < needed:
            raise FarfeelError(
                f"{self._root} has {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} GB to unpack {item.name}; "
                "free some space and run the same command again"
            )
        with replacing_folder(self._root / name) as partial:
            try:
                unpacked = unpack(whole, partial, self._web.go_on)
            except FarfeelError:
                if not is_own:
                    whole.unlink()
                raise
            # Noted before the move: files that are noted and not there are fetched again, those that are there and not
            # noted would be taken for the user's.
            files = {f"{name}/{file}": size_and_crc for file, size_and_crc in unpacked.items()}
            self._record.keep(item.name, self._held(item, whole, files), at_once=True)
        if is_own:
            self._gained(item, item.size or 0)
        elif self._keep:
            os.replace(whole, self._root / item.name)
        else:
            whole.unlink()

    def _held(self, item: Item, whole: Path, files: Mapping[str, tuple[int, int | None]]) -> Held:
        return Held(item.checksum or digest(whole, "sha256"), self._etags.get(item.name, ""), files)

    def _gained(self, item: Item, count: int) -> None:
        with self._lock:
            self._came[item.name] += count
            self._done += count
            self._advance(max(self._done, 0) // 1000, self._total // 1000)


def _require_place(root: Path) -> Path:
    """The root, absolute: a folder, or a free place for one."""
    place = Path(root).resolve()
    above = next(entry for entry in (place, *place.parents) if entry.exists())
    if not above.is_dir():
        raise FarfeelError(f"{above} is a file, expected a folder for the download; choose another --root")
    return place


def _as_seen(item: Item, record: Record) -> Item:
    """Where the host tells no checksum, the file should be what it was when it came first."""
    held = record.held.get(item.name)
    return replace(item, checksum=held.checksum) if held and not item.checksum else item


def _is_there(item: Item, root: Path, record: Record) -> bool:
    """Whether an item need not be fetched. Raises FarfeelError where something else has its place."""
    held = record.held.get(item.name)
    if held and record.is_intact(item.name) and item.checksum == held.checksum:
        return True
    folder = folder_of(item.name)
    if folder and os.path.lexists(root / folder):
        found = "is changed or lacks files" if held else "was not unpacked by this command"
        raise FarfeelError(
            f"{root / folder} {found}, expected what {item.name} holds, or a free place; nothing is overwritten: move "
            "it away, or choose another --root"
        )
    place = root / item.name
    if not os.path.lexists(place):
        return False
    is_right = place.is_file() and item.size in (None, place.stat().st_size)
    if not is_right or (item.checksum and digest(place, item.checksum) != item.checksum):
        raise FarfeelError(
            f"{place} is not the published file (expected {item.size} bytes, {item.checksum}); nothing is overwritten: "
            "move it away, or choose another --root"
        )
    if folder is None:
        record.held[item.name] = Held(
            item.checksum or digest(place, "sha256"), "", {item.name: (place.stat().st_size, None)}
        )
    return folder is None  # an archive that is there is still to be unpacked


def _require_free(place: Path) -> None:
    if os.path.lexists(place):
        raise FarfeelError(f"{place} has appeared meanwhile, expected a free place; move it away and run this again")


def _hand_over(partial: Path, output: Path) -> None:
    """A link and not a move: a kill while the checksum is computed should not cost the transfer."""
    output.unlink(missing_ok=True)
    try:
        os.link(partial, output)
    except OSError:
        os.replace(partial, output)


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


def _remove_empty(folder: Path) -> None:
    """The folder and those in it, as far as they hold no file."""
    inside = sorted((entry for entry in folder.rglob("*") if entry.is_dir()), reverse=True)
    for entry in (*inside, folder):
        with suppress(OSError):
            entry.rmdir()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Lock the folder itself, which leaves no file behind. Where a system or disk cannot, nobody is kept out."""
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
                f"another farfeel download is writing into {root}, expected one at a time; wait for it"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(opened)
