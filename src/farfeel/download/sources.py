"""What can be fetched, and from whom: each source asks its host which files there are, their sizes and checksums.

Nothing about a file is written down here: the host's own list is asked for each time (Zenodo's record, Dataverse's
dataset, GitHub's tree of the newest commit and the pointers of Git LFS). EmoDB's host publishes no list: its size is
what it announces, and its checksum what was seen first.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from farfeel.corpora import CORPORA
from farfeel.download.archives import is_inside
from farfeel.download.record import CHECKSUM, Item, git_name_of
from farfeel.download.web import Web, in_parallel
from farfeel.support.registry import nearest
from farfeel.types import FarfeelError

Advance = Callable[[int, int], None]
Pointers = dict[str, tuple[str, int]]

_CREMA_D = "CheyneyComputerScience/CREMA-D"
_CREMA_D_TABLES = (
    "SentenceFilenames.csv", "VideoDemographics.csv", "finishedResponses.csv", "finishedEmoResponses.csv",
    "processedResults/*.csv", "LICENSE.txt",
)  # fmt: skip
_CREMA_D_SOUND, _CREMA_D_FILMS = "AudioWAV/*.wav", "VideoFlash/*.flv"
_POINTER = re.compile(r"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n")


@dataclass(frozen=True)
class Choice:
    """What is asked for of a source: films too, whose (actors, empty: everyone's), and only files whose names match."""

    films: bool = False
    actors: tuple[int, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"films={self.films:d} actors={','.join(map(str, self.actors))} only={' '.join(self.only)}"


@dataclass(frozen=True)
class Listing:
    """A host's list of files, and the licence as it names it (empty: it does not)."""

    items: tuple[Item, ...]
    licence: str = ""


@dataclass(frozen=True)
class Source:
    """Something published. `about` is its size, to plan with: the host tells the true one. `listing` asks for it (None:
    it is given on request only); `then` is the command that reads what came."""

    name: str
    title: str
    about: str
    licence: str
    url: str
    citation: str
    then: str
    listing: Callable[[Web, Choice, Pointers, Advance], Listing] | None = None
    has_films: bool = False
    has_actors: bool = False


def get_source(name: str) -> Source:
    """The source of that name. Raises FarfeelError that names the nearest one."""
    if name in SOURCES:
        return SOURCES[name]
    near = nearest(name, list(SOURCES))
    remedy = f"did you mean {near}?" if near else "choose one of them"
    raise FarfeelError(f"{name} is not one of {', '.join(SOURCES)}; {remedy}")


def list_items(
    source: Source, choice: Choice, web: Web, clone: Path | None, pointers: Pointers, advance: Advance
) -> Listing:
    """What the host has of what is asked for, or a clone on this machine. `pointers` are those known, and are added to.

    Raises FarfeelError where nothing is left, or a name leads out of the root.
    """
    if source.listing is None:
        raise FarfeelError(f"{source.title} is given on request only; ask for it at {source.url}")
    listing = _clone_listing(clone, choice) if clone else source.listing(web, choice, pointers, advance)
    for item in listing.items:
        if not is_inside(item.name) or item.name.startswith(".farfeel"):
            raise FarfeelError(f"{source.url} lists {item.name!r}, expected a name inside the folder; tell the host")
    twice = [name for name, count in Counter(item.name for item in listing.items).items() if count > 1]
    if twice:
        raise FarfeelError(f"{source.url} lists {twice[0]!r} more than once, expected each name once; tell the host")
    chosen = [item for item in listing.items if _matches(item.name, choice.only or ("*",))]
    if not chosen:
        names = ", ".join(item.name for item in listing.items[:5]) or "nothing"
        raise FarfeelError(
            f"{source.url} has no file named like {' or '.join(choice.only)}, found {names}; correct --only"
        )
    return Listing(tuple(chosen), listing.licence)


def require_choice(source: Source, choice: Choice, clone: Path | None) -> None:
    """Raise FarfeelError where a source does not have what is asked for."""
    if choice.films and not source.has_films:
        raise FarfeelError(f"{source.title} has no films, --films asks for them; leave it out")
    if choice.actors and not (source.has_actors and choice.films):
        raise FarfeelError(
            "--actors is for the films of ravdess, which come actor by actor; add --films, or leave it out"
        )
    if clone and source.name != "crema-d":
        raise FarfeelError(f"--from is for a clone of crema-d, not for {source.name}; leave it out")


def read_actors(text: str) -> tuple[int, ...]:
    """ "1-3,7" → 1, 2, 3, 7: actors of RAVDESS."""
    actors: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"\s*(\d{1,2})(?:-(\d{1,2}))?\s*", part)
        low, high = (int(span[1]), int(span[2] or span[1])) if span else (0, 0)
        if not 1 <= low <= high <= 24:
            raise FarfeelError(
                f"--actors {text} is no list of actors, expected numbers of 1 to 24 as in 1-3,7; correct it"
            )
        actors.update(range(low, high + 1))
    return tuple(sorted(actors))


def _zenodo(record: str, wanted: Callable[[Choice], Sequence[str]]) -> Callable[..., Listing]:
    """A record's files that match one of `wanted`."""

    def listing(web: Web, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
        url = f"https://zenodo.org/api/records/{record}"
        answer = web.json(url)
        with _expecting(url, "a record of Zenodo"):
            found = [
                Item(str(file["key"]), str(file["links"]["self"]), int(file["size"]), _checksum(file["checksum"]))
                for file in answer["files"]
            ]
            licence = str((answer["metadata"].get("license") or {}).get("id", ""))
        patterns = wanted(choice)
        for pattern in patterns:
            if not any(fnmatchcase(item.name, pattern) for item in found):
                raise FarfeelError(f"{url} has no file {pattern}, expected it there; look at the record with a browser")
        return Listing(tuple(item for item in found if _matches(item.name, patterns)), licence)

    return listing


def _ravdess(choice: Choice) -> Sequence[str]:
    films = [f"Video_Speech_Actor_{actor:02d}.zip" for actor in choice.actors or range(1, 25)]
    return ["Audio_Speech_Actors_01-24.zip", *(films if choice.films else [])]


def _tess(web: Web, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    host = "https://borealisdata.ca/api"
    url = f"{host}/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"
    answer, items = web.json(url), []
    with _expecting(url, "a dataset of Dataverse"):
        version = answer["data"]["latestVersion"]
        for entry in version["files"]:
            file = entry["dataFile"]
            as_given = "originalFileName" in file  # Dataverse makes other files of tables; the checksum is of the first
            folder = f"{entry['directoryLabel']}/" if entry.get("directoryLabel") else ""
            items.append(
                Item(
                    folder + str(file["originalFileName" if as_given else "filename"]),
                    f"{host}/access/datafile/{int(file['id'])}" + ("?format=original" if as_given else ""),
                    int(file["originalFileSize" if as_given else "filesize"]),
                    _checksum(f"md5:{file['md5']}"),
                )
            )
        licence = str((version.get("license") or {}).get("name", ""))
    return Listing(tuple(items), licence)


def _emodb(web: Web, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    url = "http://emodb.bilderbar.info/download/download.zip"
    return Listing((Item("emodb.zip", url, web.size(url)),))


def _r3vival(web: Web, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    tree = _Tree(web, "facebookresearch/R3VIVAL")
    return Listing(tuple(tree.item(file) for file in tree.files("RIRs/FRL_array") if file[0].endswith(".wav")))


def _crema_d(web: Web, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    tree = _Tree(web, _CREMA_D)
    tables = [*tree.files(""), *tree.files("processedResults")]
    media = tree.files("AudioWAV") + (tree.files("VideoFlash") if choice.films else [])
    patterns = (_CREMA_D_SOUND, _CREMA_D_FILMS)
    media = [file for file in media if _matches(file[0], patterns) and _matches(file[0], choice.only or ("*",))]
    unknown = [file for file in media if file[1] not in pointers]
    pointers.update(in_parallel(web, tree.pointer, unknown, lambda count: advance(count, len(unknown))))
    items = [tree.item(file) for file in tables if _matches(file[0], _CREMA_D_TABLES)]
    for path, name, _ in media:
        sha256, size = pointers[name]
        items.append(
            Item(path, f"https://media.githubusercontent.com/media/{tree.at}/{quote(path)}", size, f"sha256:{sha256}")
        )
    return Listing(tuple(items))


class _Tree:
    """The newest commit of a repository on GitHub. A file is its path, Git's name of it, and its bytes."""

    def __init__(self, web: Web, repository: str) -> None:
        self._web, self._api = web, f"https://api.github.com/repos/{repository}"
        url = f"{self._api}/commits/HEAD"
        answer = web.json(url)
        with _expecting(url, "a commit"):
            self.at = f"{repository}/{_hexadecimal(answer['sha'])}"
            self._root = _hexadecimal(answer["commit"]["tree"]["sha"])

    def files(self, folder: str) -> list[tuple[str, str, int]]:
        """Those directly in a folder."""
        name = self._root
        for part in folder.split("/") if folder else []:
            inside = [sha for path, kind, sha, _ in self._entries(name) if (path, kind) == (part, "tree")]
            if not inside:
                raise FarfeelError(f"{self._api} has no folder {folder}, expected it there; try later")
            name = inside[0]
        prefix = f"{folder}/" if folder else ""
        return [(prefix + path, sha, size) for path, kind, sha, size in self._entries(name) if kind == "blob"]

    def _entries(self, name: str) -> list[tuple[str, str, str, int]]:
        url = f"{self._api}/git/trees/{name}"
        answer = self._web.json(url)
        with _expecting(url, "a whole tree of GitHub"):
            if answer["truncated"]:
                raise ValueError("truncated")
            return [
                (str(entry["path"]), str(entry["type"]), _hexadecimal(entry["sha"]), int(entry.get("size", 0)))
                for entry in answer["tree"]
            ]

    def item(self, file: tuple[str, str, int]) -> Item:
        path, name, size = file
        return Item(path, self._raw(path), size, f"git:{name}")

    def pointer(self, file: tuple[str, str, int]) -> tuple[str, tuple[str, int]]:
        """What a Git LFS pointer says of its file: sha256 and size."""
        path, name, _ = file
        content = self._web.document(self._raw(path))
        found = _POINTER.fullmatch(content.decode("utf-8", "replace"))
        if found is None or git_name_of(content) != name:
            raise FarfeelError(
                f"{self._raw(path)} is no pointer of Git LFS as its commit has it; try later, or use --from"
            )
        return name, (found[1], int(found[2]))

    def _raw(self, path: str) -> str:
        return f"https://raw.githubusercontent.com/{self.at}/{quote(path)}"


def _clone_listing(clone: Path, choice: Choice) -> Listing:
    """CREMA-D's files in a clone, as its index names them."""
    patterns = (*_CREMA_D_TABLES, _CREMA_D_SOUND, *([_CREMA_D_FILMS] if choice.films else []))
    items = []
    for path, name in _read_index(clone):
        if _matches(path, patterns):
            file = clone.resolve() / path
            if not file.is_file():
                raise FarfeelError(f"{file} is missing, expected all files of the clone; run git checkout . there")
            kind = "lfs" if file.suffix in (".wav", ".flv") else "git"
            items.append(Item(path, str(file), file.stat().st_size, f"{kind}:{name}", local=True))
    return Listing(tuple(items))


def _read_index(clone: Path) -> Iterator[tuple[str, str]]:
    """Path and Git's name of each file in a clone's index, versions 2 and 3 (Git's documentation, index-format)."""
    index = clone / ".git" / "index"
    try:
        content = index.read_bytes()
        magic, version, count = struct.unpack_from(">4sII", content)
        if magic != b"DIRC" or version not in (2, 3):
            raise ValueError(f"version {version}")
        at = 12
        for _ in range(count):
            name, flags = struct.unpack_from(">40x20sH", content, at)
            begin = at + (64 if flags & 0x4000 else 62)
            end = content.index(b"\0", begin)
            yield content[begin:end].decode("utf-8"), name.hex()
            at += (end - at) // 8 * 8 + 8  # padded with one to eight zeros
    except (OSError, ValueError, struct.error) as error:
        raise FarfeelError(
            f"{index} cannot be read ({error}), expected a clone of {_CREMA_D}; name its folder with --from, or run "
            "git update-index --index-version 2 there"
        ) from None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _checksum(text: object) -> str:
    if not CHECKSUM.fullmatch(str(text)):
        raise ValueError(f"checksum {text}")
    return str(text)


def _hexadecimal(text: object) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", str(text)):
        raise ValueError(f"name {text}")
    return str(text)


@contextmanager
def _expecting(url: str, what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FarfeelError(
            f"{url} answered something else than {what} ({error!r}); try later, or another --mirror"
        ) from None


def _of_corpus(name: str, about: str, listing: Any = None, **more: bool) -> Source:
    corpus = CORPORA[name]
    then = f"farfeel scan {name} --root {{root}}"
    return Source(name, corpus.title, about, corpus.licence, corpus.source, corpus.citation, then, listing, **more)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        _of_corpus("ravdess", "0.2 GB; films 13 GB", _zenodo("1188976", _ravdess), has_films=True, has_actors=True),
        _of_corpus("crema-d", "0.6 GB; films more", _crema_d, has_films=True),
        _of_corpus("tess", "0.3 GB", _tess),
        _of_corpus("emodb", "0.04 GB", _emodb),
        _of_corpus("iemocap", "on request"),
        Source(
            "ace",
            "ACE corpus",
            "24 GB",
            "CC BY-ND 4.0",
            "https://doi.org/10.5281/zenodo.6257551",
            "Eaton J, Gaubitch ND, Moore AH, Naylor PA (2016). Estimation of Room Acoustic Parameters: The ACE "
            "Challenge. IEEE/ACM Trans. Audio, Speech, and Language Processing 24(10): 1681-1693",
            "farfeel rooms import ace --root {root} --out rooms/ace",
            _zenodo("6257551", lambda choice: ["*"]),
        ),
        Source(
            "r3vival",
            "R3VIVAL",
            "0.4 GB",
            "CC BY 4.0",
            "https://github.com/facebookresearch/R3VIVAL",
            "R3VIVAL, a Repository of Room Responses and 360 Videos of a Variable Acoustics Lab, Meta; its array: "
            "Amengual Garí SV, Arend JM, Calamia PT, Robinson PW (2021). J. Audio Engineering Society 68(12): 959-976",
            "farfeel rooms import r3vival --root {root} --out rooms/r3vival",
            _r3vival,
        ),
    )
}
