"""What a corpus is: where it comes from, and how its file names become clips.

A corpus module decodes one file name; everything else (walking the folder, order, joining sound with film, counting a
copied file once) is here, once for all. No recording is opened: `scan` reads headers. Where labels are in files
(IEMOCAP), the module finds them from the recording's path.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farfeel.support.files import require_folder
from farfeel.types import Clip

SURROGATE = "-surrogate"
"""Ends the name of a corpus whose films were made for it: `ravdess-surrogate` is split like `ravdess`."""
LOSSY_SUFFIXES = (".mp3", ".ogg")  # Where the same sound is there in another form too, these are the surplus copies.


@dataclass(frozen=True)
class Listing:
    """The clips under a folder, by speaker and id; files of the corpus left out, by reason; surplus copies."""

    clips: tuple[Clip, ...]
    skipped: dict[str, int]
    duplicates: tuple[Path, ...]


@dataclass(frozen=True)
class Vote:
    """What listeners or viewers found in a clip: the emotion that most of them named, empty where two or more tie; and
    the share of them who named it."""

    emotion: str
    share: float


def _sex_unknown(speaker: str) -> str:
    return ""


def _alone(speaker: str) -> str:
    return speaker


@dataclass(frozen=True)
class Corpus:
    """A published set of emotional speech.

    decode: a file's path → its Clip; or the reason why it is left out; or None where the name is not this corpus's.
    speakers and expected: those of the whole corpus, and the ids of all its clips, where names tell them.
    sex: speaker → "female", "male", or "" where it is not known.
    together: speaker → a name that speakers who talk to each other share: no split parts them.
    perceived: clips and what was presented (audio, video, both) → id → vote; None where nobody was asked.
    labelled: clips → id → emotion of all that the files beside them label; None where names tell (`expected`).
    people: clips → a line on who speaks in them, from a table beside them; None where there is no more than `sex`.
    """

    name: str
    title: str
    source: str
    citation: str
    licence: str
    emotions: tuple[str, ...]
    example: str
    decode: Callable[[Path], Clip | str | None]
    speakers: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    sex: Callable[[str], str] = _sex_unknown
    together: Callable[[str], str] = _alone
    perceived: Callable[[Sequence[Clip], str], dict[str, Vote]] | None = None
    labelled: Callable[[Sequence[Clip]], dict[str, str]] | None = None
    people: Callable[[Sequence[Clip]], str] | None = None

    def clips(self, root: Path) -> Iterator[Clip]:
        """The clips under `root`, any folders deep, by speaker and id. Raises FarfeelError where root is no folder."""
        yield from self.listing(root).clips

    def listing(self, root: Path) -> Listing:
        """As `clips`, with what was left out."""
        require_folder(root, f"the folder of {self.title}", f"get it from {self.source} or correct --root")
        skipped: Counter[str] = Counter()
        files_of: dict[str, list[Clip]] = defaultdict(list)
        for path in media_files(root):
            found = self.decode(path)
            if isinstance(found, str):
                skipped[found] += 1
            elif found is not None:
                files_of[found.id].append(found)
        joined = [_join(files) for files in files_of.values()]
        clips = sorted((clip for clip, _ in joined), key=lambda clip: (clip.speaker, clip.id))
        duplicates = sorted(path for _, copies in joined for path in copies)
        return Listing(tuple(clips), dict(sorted(skipped.items())), tuple(duplicates))


def few(names: Sequence[object], limit: int = 5) -> str:
    """The first of them, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def media_files(root: Path) -> Iterator[Path]:
    """All files under `root` in sorted order, hidden ones (unfinished writes, macOS's `._` files) left out."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


def _join(files: list[Clip]) -> tuple[Clip, list[Path]]:
    """Files of one utterance → one clip with the best sound and the best film, and the surplus copies."""
    files = sorted(files, key=lambda clip: clip.audio is not None and clip.audio.suffix.lower() in LOSSY_SUFFIXES)
    first: dict[tuple[bool, bool], Clip] = {}
    copies = []
    for clip in files:
        kind = (clip.audio is not None, clip.video is not None)
        if kind in first:
            copies += [path for path in {clip.audio, clip.video} if path is not None]
        else:
            first[kind] = clip
    sound, sound_and_film, film = first.get((True, False)), first.get((True, True)), first.get((False, True))
    heard = sound or sound_and_film or film or files[0]
    seen = sound_and_film or film
    if seen:
        heard = replace(heard, video=seen.video, video_offset_s=seen.video_offset_s, face=seen.face)
    return heard, copies
