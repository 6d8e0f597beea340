"""The command download: fetch published corpora and measured rooms, and check them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import Command, require_at_least
from farfeel.support.console import note, progress
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from farfeel.download.fetch import Plan
    from farfeel.download.record import Item
    from farfeel.download.sources import Source

_MOST_LINES = 40  # of a list of files; a longer list shows folders


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="what to download; example: ravdess (default: show the list of names)")
    parser.add_argument(
        "--list", action="store_true", help="list everything that can be downloaded, with size, licence and citation"
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="folder to download into; files that are already there are not downloaded again",
    )
    parser.add_argument("--films", action="store_true", help="download the videos too; for ravdess and crema-d")
    parser.add_argument(
        "--actors", metavar="N,N", help="with --films: videos of these actors only; for ravdess; example: 1-3,7"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="only files whose names match a pattern; example: '*_Mobile*'",
    )
    parser.add_argument(
        "--from",
        dest="clone",
        type=Path,
        metavar="FOLDER",
        help="for crema-d: copy from a clone of its repository, made with git lfs pull, instead of downloading",
    )
    parser.add_argument(
        "--accept-licence", action="store_true", help="confirm that you have read the licence and accept it"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files and download nothing")
    parser.add_argument(
        "--verify", action="store_true", help="read every downloaded file again and compare its checksum"
    )
    parser.add_argument(
        "--keep-archives", action="store_true", help="keep archives after unpacking (default: delete them)"
    )
    parser.add_argument(
        "--jobs", type=int, default=4, metavar="N", help="files to download at the same time (default 4)"
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="download from this host instead of the publisher's; example: https://mirror.org",
    )


def _download(args: argparse.Namespace) -> None:
    from farfeel.download.sources import Choice, get_source, read_actors, require_choice

    if args.name is None or args.list:
        print(_table())
        return
    source = get_source(args.name)
    require_at_least(1, jobs=args.jobs)
    choice = Choice(args.films, read_actors(args.actors) if args.actors is not None else (), tuple(args.only))
    require_choice(source, choice, args.clone)
    if args.root is None:
        raise FarfeelError(f"download {source.name} needs a folder to download into; add --root FOLDER")
    if source.listing is None:
        _check_own_copy(source, args.root)
        return

    from farfeel.download.fetch import fetch, make_plan, require_disk_space
    from farfeel.download.web import HttpClient

    if args.verify:
        _verify(source, args.root)
    client = HttpClient(args.mirror, args.jobs)
    many_requests = source.name == "crema-d" and args.clone is None  # thousands of pointers
    with progress("reading the host's list", "files") if many_requests else nullcontext(_ignore) as advance:
        plan = make_plan(source, args.root, choice, client, args.clone, advance)
    if plan.items:
        print(_list_of(source, plan))
        print(f"{require_disk_space(plan) / 1e9:.1f} GB free")
        if args.dry_run:
            return
        if plan.todo:
            _require_licence(source, plan, args.accept_licence)
        with progress(source.title, "kB") if plan.todo else nullcontext(_ignore) as advance:
            fetch(plan, client, args.keep_archives, advance)
        for item in plan.todo:
            if not item.checksum:
                note(f"{item.name}: the host gives no checksum; recorded {plan.record.held[item.name].checksum}")
    command = source.next_command.format(root=shlex.quote(str(args.root)))
    print(f"{source.title} is in {args.root}; next step:\n  {command}")


def _ignore(done: int, total: int) -> None:
    """Show no progress."""


def _table() -> str:
    from farfeel.download.sources import SOURCES

    head = ("name", "title", "size, about", "licence", "source")
    rows = [(one.name, one.title, one.about, one.licence, one.url) for one in SOURCES.values()]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, head, widths)).rstrip()]
    for row, one in zip(rows, SOURCES.values(), strict=True):
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip(), f"{'':{widths[0]}}  {one.citation}"]
    return "\n".join(lines)


def _list_of(source: Source, plan: Plan) -> str:
    host_licence = f" (the host says: {plan.licence})" if plan.licence else ""
    present = len(plan.items) - len(plan.todo)
    return "\n".join(
        [
            f"{source.title}, {source.url}",
            *_lines_of(plan.items),
            f"{len(plan.items)} files, {_size(plan.items)}; {present} already there, {_size(plan.todo)} to download",
            f"licence: {source.licence}{host_licence}",
            f"citation: {source.citation}",
        ]
    )


def _lines_of(items: Sequence[Item]) -> list[str]:
    """A line for each file, or for each folder if there are many files."""
    if len(items) <= _MOST_LINES:
        return [f"  {item.name}  {_size([item])}" for item in items]
    folders: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        folders[item.name.rpartition("/")[0] or "."].append(item)
    return [f"  {folder}/  {len(inside)} files, {_size(inside)}" for folder, inside in folders.items()]


def _size(items: Sequence[Item]) -> str:
    if any(item.size is None for item in items):
        return "size unknown"
    count = sum(item.size or 0 for item in items)
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count} bytes"


def _require_licence(source: Source, plan: Plan, is_accepted: bool) -> None:
    if not is_accepted and sys.stdin.isatty() and sys.stdout.isatty():
        try:
            answer = input(f"Do you accept the licence of {source.title}, {source.licence}? [y/N] ")
        except EOFError:
            answer = ""
        is_accepted = answer.strip().lower() in ("y", "yes")
    if not is_accepted:
        raise FarfeelError(
            f"the licence of {source.title} ({source.licence}) is not accepted, so nothing was downloaded; read it at "
            f"{source.url} and add --accept-licence"
        )


def _verify(source: Source, root: Path) -> None:
    from farfeel.download.record import Record
    from farfeel.support.text import few

    with progress("verifying", "files") as advance:
        wrong = Record.read(root, source.name).verify(advance)
    if wrong:
        raise FarfeelError(
            f"{root}: {len(wrong)} files are missing or changed since the download ({few(wrong)}), expected them "
            "unchanged; move them away (of an unpacked archive: the whole folder) and run download again"
        )


def _check_own_copy(source: Source, root: Path) -> None:
    """Check the user's copy of a corpus that its owner gives only on request."""
    from farfeel.corpora import get_corpus
    from farfeel.corpora.scan import scan

    if not root.is_dir() or not any(root.iterdir()):
        raise FarfeelError(
            f"{source.title} cannot be downloaded freely ({source.licence}), and {root} holds none of it; request it "
            f"at {source.url}, unpack it into that folder and run the same command again to check it"
        )
    with progress("reading headers", "files") as advance:
        report = scan(get_corpus(source.name), root, progress=advance)
    print(f"{source.title} ({source.licence})\n{source.url}\n\n{report.summary()}")


COMMANDS = (
    Command("download", "Download a published corpus or measured rooms, and check the files.", _arguments, _download),
)
