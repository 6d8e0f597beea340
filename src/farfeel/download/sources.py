"""The sources of downloads. Each one requests a list of files, with sizes and checksums, from its host.

No file is described here, because the host's own list is requested each time: a Zenodo record, a Dataverse dataset, or
the tree of the newest commit on GitHub with the pointers of Git LFS. The host of EmoDB publishes no list. Its size is
the one that the host states, and its checksum is the one of the first download.
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

from farfeel.corpora import get_corpus
from farfeel.download.archives import is_inside
from farfeel.download.record import CHECKSUM, Item, git_hash
from farfeel.download.web import HttpClient, in_parallel
from farfeel.support.registry import nearest
from farfeel.types import FarfeelError

Advance = Callable[[int, int], None]
Pointers = dict[str, tuple[str, int]]

_CREMA_D = "CheyneyComputerScience/CREMA-D"
_CREMA_D_TABLES = (
    "SentenceFilenames.csv", "VideoDemographics.csv", "finishedResponses.csv", "finishedEmoResponses.csv",
    "processedResults/*.csv", "LICENSE.txt",
)  # fmt: skip
_CREMA_D_AUDIO, _CREMA_D_VIDEO = "AudioWAV/*.wav", "VideoFlash/*.flv"
_POINTER = re.compile(r"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n")


@dataclass(frozen=True)
class Choice:
    """Which part of a source to download.

    videos: Whether to download the videos too.
    actors: Only the videos of these actors. Empty: of all actors.
    only: Only files with names that match one of these patterns. Empty: all files.
    """

    videos: bool = False
    actors: tuple[int, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The choice as text, for the record of downloads."""
        return f"films={self.videos:d} actors={','.join(map(str, self.actors))} only={' '.join(self.only)}"


@dataclass(frozen=True)
class Listing:
    """A host's list of files, and the licence as the host names it (empty: it names none)."""

    items: tuple[Item, ...]
    licence: str = ""


@dataclass(frozen=True)
class Source:
    """A corpus or a collection of room impulse responses that can be downloaded.

    name: As in `farfeel download NAME`.
    title: Full name.
    about: Approximate size. The host states the exact one.
    licence: Name of the licence.
    url: Home page.
    citation: Publication to cite.
    next_command: The farfeel command that reads the download. {root} is replaced by its folder.
    listing: Requests the host's list of files. None: the source is available on request only.
    has_videos: Whether there are videos too.
    has_actors: Whether the videos of single actors can be downloaded.
    """

    name: str
    title: str
    about: str
    licence: str
    url: str
    citation: str
    next_command: str
    listing: Callable[[HttpClient, Choice, Pointers, Advance], Listing] | None = None
    has_videos: bool = False
    has_actors: bool = False


def get_source(name: str) -> Source:
    """The source of a name.

    Raises:
        FarfeelError: There is no such source. The message suggests the most similar name.
    """
    if name in SOURCES:
        return SOURCES[name]
    near = nearest(name, list(SOURCES))
    remedy = f"did you mean {near}?" if near else "choose one of them"
    raise FarfeelError(f"there is no source {name}, expected one of {', '.join(SOURCES)}; {remedy}")


def list_items(
    source: Source, choice: Choice, client: HttpClient, clone: Path | None, pointers: Pointers, advance: Advance
) -> Listing:
    """List the chosen files of a source.

    Args:
        source: What to download.
        choice: Which part of it.
        client: Makes the requests.
        clone: A local clone of CREMA-D, to list instead of the host. None: request the host's list.
        pointers: Git's hash of an LFS pointer → SHA-256 and size of the file. New pointers are added.
        advance: Called with the number of requests made and their total.

    Raises:
        FarfeelError: The list cannot be read, no file matches, or a file name is not safe.
    """
    if source.listing is None:
        raise FarfeelError(f"{source.title} is available on request only; request it at {source.url}")
    listing = _clone_listing(clone, choice) if clone else source.listing(client, choice, pointers, advance)
    for item in listing.items:
        if not is_inside(item.name) or item.name.startswith(".farfeel"):
            raise FarfeelError(
                f"{source.url} lists {item.name!r}, expected a path inside the folder; report it to the host"
            )
    duplicates = [name for name, count in Counter(item.name for item in listing.items).items() if count > 1]
    if duplicates:
        raise FarfeelError(
            f"{source.url} lists {duplicates[0]!r} more than once, expected each name once; report it to the host"
        )
    items = [item for item in listing.items if _matches(item.name, choice.only or ("*",))]
    if not items:
        names = ", ".join(item.name for item in listing.items[:5]) or "nothing"
        raise FarfeelError(
            f"{source.url} has no file that matches {' or '.join(choice.only)}, found {names}; correct --only"
        )
    return Listing(tuple(items), listing.licence)


def require_choice(source: Source, choice: Choice, clone: Path | None) -> None:
    """Check that a source has the chosen files.

    Raises:
        FarfeelError: An option does not fit the source.
    """
    if choice.videos and not source.has_videos:
        raise FarfeelError(f"{source.title} has no videos, --films requests them; remove --films")
    if choice.actors and not (source.has_actors and choice.videos):
        raise FarfeelError(
            "--actors is given, but it works only for the videos of ravdess; add --films, or remove --actors"
        )
    if clone and source.name != "crema-d":
        raise FarfeelError(f"--from is given for {source.name}, but it works only for crema-d; remove --from")


def read_actors(text: str) -> tuple[int, ...]:
    """Numbers of RAVDESS's actors: "1-3,7" → (1, 2, 3, 7).

    Raises:
        FarfeelError: The text is not a list of numbers from 1 to 24.
    """
    actors: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"\s*(\d{1,2})(?:-(\d{1,2}))?\s*", part)
        low, high = (int(span[1]), int(span[2] or span[1])) if span else (0, 0)
        if not 1 <= low <= high <= 24:
            raise FarfeelError(
                f"--actors {text} is not a list of actors, expected numbers from 1 to 24 as in 1-3,7; correct it"
            )
        actors.update(range(low, high + 1))
    return tuple(sorted(actors))


def _zenodo(record: str, patterns_of: Callable[[Choice], Sequence[str]]) -> Callable[..., Listing]:
    """Lists the files of a Zenodo record that match one of the patterns for a choice."""

    def listing(client: HttpClient, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
        url = f"https://zenodo.org/api/records/{record}"
        response = client.json(url)
        with _expecting(url, "a record of Zenodo"):
            items = [
                Item(str(file["key"]), str(file["links"]["self"]), int(file["size"]), _checksum(file["checksum"]))
                for file in response["files"]
            ]
            licence = str((response["metadata"].get("license") or {}).get("id", ""))
        patterns = patterns_of(choice)
        for pattern in patterns:
            if not any(fnmatchcase(item.name, pattern) for item in items):
                raise FarfeelError(f"{url} has no file {pattern}, expected one; open the record in a browser")
        return Listing(tuple(item for item in items if _matches(item.name, patterns)), licence)

    return listing


def _ravdess(choice: Choice) -> Sequence[str]:
    videos = [f"Video_Speech_Actor_{actor:02d}.zip" for actor in choice.actors or range(1, 25)]
    return ["Audio_Speech_Actors_01-24.zip", *(videos if choice.videos else [])]


def _tess(client: HttpClient, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    host = "https://borealisdata.ca/api"
    url = f"{host}/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"
    response, items = client.json(url), []
    with _expecting(url, "a dataset of Dataverse"):
        version = response["data"]["latestVersion"]
        for entry in version["files"]:
            file = entry["dataFile"]
            # Dataverse converts tables. The checksum is the one of the original file.
            is_converted = "originalFileName" in file
            folder = f"{entry['directoryLabel']}/" if entry.get("directoryLabel") else ""
            items.append(
                Item(
                    folder + str(file["originalFileName" if is_converted else "filename"]),
                    f"{host}/access/datafile/{int(file['id'])}" + ("?format=original" if is_converted else ""),
                    int(file["originalFileSize" if is_converted else "filesize"]),
                    _checksum(f"md5:{file['md5']}"),
                )
            )
        licence = str((version.get("license") or {}).get("name", ""))
    return Listing(tuple(items), licence)


def _emodb(client: HttpClient, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    url = "http://emodb.bilderbar.info/download/download.zip"
    return Listing((Item("emodb.zip", url, client.size(url)),))


def _r3vival(client: HttpClient, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    tree = _Tree(client, "facebookresearch/R3VIVAL")
    return Listing(tuple(tree.item(file) for file in tree.files("RIRs/FRL_array") if file[0].endswith(".wav")))


def _crema_d(client: HttpClient, choice: Choice, pointers: Pointers, advance: Advance) -> Listing:
    tree = _Tree(client, _CREMA_D)
    tables = [*tree.files(""), *tree.files("processedResults")]
    media = tree.files("AudioWAV") + (tree.files("VideoFlash") if choice.videos else [])
    patterns = (_CREMA_D_AUDIO, _CREMA_D_VIDEO)
    media = [file for file in media if _matches(file[0], patterns) and _matches(file[0], choice.only or ("*",))]
    unknown = [file for file in media if file[1] not in pointers]
    pointers.update(in_parallel(client, tree.pointer, unknown, lambda count: advance(count, len(unknown))))
    items = [tree.item(file) for file in tables if _matches(file[0], _CREMA_D_TABLES)]
    for path, sha, _ in media:
        sha256, size = pointers[sha]
        url = f"https://media.githubusercontent.com/media/{tree.commit}/{quote(path)}"
        items.append(Item(path, url, size, f"sha256:{sha256}"))
    return Listing(tuple(items))


class _Tree:
    """The files of the newest commit of a GitHub repository. A file is (path, Git's hash, size in bytes)."""

    def __init__(self, client: HttpClient, repository: str) -> None:
        self._client, self._api = client, f"https://api.github.com/repos/{repository}"
        url = f"{self._api}/commits/HEAD"
        response = client.json(url)
        with _expecting(url, "a commit"):
            self.commit = f"{repository}/{_hexadecimal(response['sha'])}"
            self._root = _hexadecimal(response["commit"]["tree"]["sha"])

    def files(self, folder: str) -> list[tuple[str, str, int]]:
        """The files directly in a folder."""
        tree = self._root
        for part in folder.split("/") if folder else []:
            subtrees = [sha for path, kind, sha, _ in self._entries(tree) if (path, kind) == (part, "tree")]
            if not subtrees:
                raise FarfeelError(f"{self._api} has no folder {folder}, expected one; try later")
            tree = subtrees[0]
        prefix = f"{folder}/" if folder else ""
        return [(prefix + path, sha, size) for path, kind, sha, size in self._entries(tree) if kind == "blob"]

    def _entries(self, tree: str) -> list[tuple[str, str, str, int]]:
        url = f"{self._api}/git/trees/{tree}"
        response = self._client.json(url)
        with _expecting(url, "a complete tree of GitHub"):
            if response["truncated"]:
                raise ValueError("truncated")
            return [
                (str(entry["path"]), str(entry["type"]), _hexadecimal(entry["sha"]), int(entry.get("size", 0)))
                for entry in response["tree"]
            ]

    def item(self, file: tuple[str, str, int]) -> Item:
        """A file as an item to download."""
        path, sha, size = file
        return Item(path, self._raw(path), size, f"git:{sha}")

    def pointer(self, file: tuple[str, str, int]) -> tuple[str, tuple[str, int]]:
        """Read a Git LFS pointer → its hash, and the SHA-256 and the size of the file that it names."""
        path, sha, _ = file
        content = self._client.document(self._raw(path))
        pointer = _POINTER.fullmatch(content.decode("utf-8", "replace"))
        if pointer is None or git_hash(content) != sha:
            raise FarfeelError(
                f"{self._raw(path)} differs from its commit, expected a Git LFS pointer; try later, or use --from"
            )
        return sha, (pointer[1], int(pointer[2]))

    def _raw(self, path: str) -> str:
        return f"https://raw.githubusercontent.com/{self.commit}/{quote(path)}"


def _clone_listing(clone: Path, choice: Choice) -> Listing:
    """The files of CREMA-D in a local clone, as listed in Git's index."""
    patterns = (*_CREMA_D_TABLES, _CREMA_D_AUDIO, *([_CREMA_D_VIDEO] if choice.videos else []))
    items = []
    for path, sha in _read_index(clone):
        if _matches(path, patterns):
            file = clone.resolve() / path
            if not file.is_file():
                raise FarfeelError(f"{file} is missing, expected a complete clone; run git checkout . in the clone")
            kind = "lfs" if file.suffix in (".wav", ".flv") else "git"
            items.append(Item(path, str(file), file.stat().st_size, f"{kind}:{sha}", local=True))
    return Listing(tuple(items))


def _read_index(clone: Path) -> Iterator[tuple[str, str]]:
    """Path and Git's hash of each file in the index of a clone. Versions 2 and 3 are supported.

    Source: Git's documentation, gitformat-index.
    """
    index = clone / ".git" / "index"
    try:
        content = index.read_bytes()
        magic, version, count = struct.unpack_from(">4sII", content)
        if magic != b"DIRC" or version not in (2, 3):
            raise ValueError(f"version {version}")
        offset = 12
        for _ in range(count):
            sha, flags = struct.unpack_from(">40x20sH", content, offset)
            begin = offset + (64 if flags & 0x4000 else 62)
            end = content.index(b"\0", begin)
            yield content[begin:end].decode("utf-8"), sha.hex()
            offset += (end - offset) // 8 * 8 + 8  # Entries are padded with one to eight zeros.
    except (OSError, ValueError, struct.error) as error:
        raise FarfeelError(
            f"{index} cannot be read ({error}), expected a clone of {_CREMA_D}; correct --from, or run "
            "git update-index --index-version 2 in the clone"
        ) from None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _checksum(text: object) -> str:
    if not CHECKSUM.fullmatch(str(text)):
        raise ValueError(f"checksum {text}")
    return str(text)


def _hexadecimal(text: object) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", str(text)):
        raise ValueError(f"hash {text}")
    return str(text)


@contextmanager
def _expecting(url: str, what: str) -> Iterator[None]:
    """Turn errors in an unexpected response into a FarfeelError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FarfeelError(
            f"{url} has unexpected content ({error!r}), expected {what}; try later, or try another --mirror"
        ) from None


def _of_corpus(name: str, contents: str, listing: Any = None, **more: bool) -> Source:
    corpus = get_corpus(name)
    command = f"farfeel scan {name} --root {{root}}"
    return Source(
        name, corpus.title, contents, corpus.licence, corpus.source, corpus.citation, command, listing, **more
    )


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        _of_corpus("ravdess", "0.2 GB; videos 13 GB", _zenodo("1188976", _ravdess), has_videos=True, has_actors=True),
        _of_corpus("crema-d", "0.6 GB; videos more", _crema_d, has_videos=True),
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
