"""What a corpus is: where it comes from, and how its file names become clips.

The module of a corpus decodes one file name. Everything else is here, for all corpora: walking through the folder,
order, joining audio with video, and counting a copied file once. No recording is opened: `scan` reads the headers.
Where labels are in files (IEMOCAP), the module finds these files from the recording's path.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farfeel.support.files import require_folder
from farfeel.support.folders import files_under
from farfeel.support.text import nfc
from farfeel.types import Clip

SURROGATE = "-surrogate"
"""The end of the name of a corpus with surrogate videos: `ravdess-surrogate` is split like `ravdess`."""
LOSSY_SUFFIXES = (
    ".mp3",
    ".ogg",
)  # Where the same audio is there in another form too, these files are the surplus copies.


@dataclass(frozen=True)
class Listing:
    """What is under a folder.

    clips: by speaker and id. Composed and decomposed characters in a name are one name (NFC). skipped: reason → files
    of the corpus that are left out. duplicates: surplus copies. foreign: files that are not of this corpus.
    """

    clips: tuple[Clip, ...]
    skipped: dict[str, int]
    duplicates: tuple[Path, ...]
    foreign: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Vote:
    """What listeners or viewers found in a clip.

    emotion: the one that most of them named; "" where two or more tie. share: of the people who named it, 0 to 1.
    """

    emotion: str
    share: float


def _sex_unknown(speaker: str) -> str:
    return ""


def _alone(speaker: str) -> str:
    return speaker


@dataclass(frozen=True)
class Corpus:
    """A published set of emotional speech.

    name: what recipes and options call it. title, source, citation, licence: for people. emotions: those of its clips.
    example: the name of one of its files.
    decode: a file's path → its Clip; or the reason why it is left out; or None where the name is not this corpus's.
    speakers: all speakers of the whole corpus; () where they are not known.
    expected: the ids of all its clips, where they follow from the rules of its names.
    sex: speaker → "female", "male", or "" where it is not known.
    together: speaker → a group. Speakers of one group talk to each other, and no split separates them.
    perceived: clips and what was presented (audio, video, both) → id → vote; None where the corpus has no votes.
    labelled: clips → id → emotion of all clips that the files beside them label; None where `expected` has them.
    people: clips → a line about their speakers, from a table beside them; None where there is no such table.
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
        """The clips in `root` and all folders in it, by speaker and id. Raises FarfeelError where root is no folder."""
        yield from self.listing(root).clips

    def listing(self, root: Path) -> Listing:
        """As `clips`, with what was left out. Raises FarfeelError where root is no folder."""
        require_folder(root, f"the folder of {self.title}", f"get it from {self.source} or correct --root")
        skipped: Counter[str] = Counter()
        files_of: dict[str, list[Clip]] = defaultdict(list)
        foreign: list[Path] = []
        unread: list[tuple[Path, str]] = []
        for path in files_under(root, lambda folder, reason: unread.append((folder, reason))):
            decoded = self.decode(path)
            if isinstance(decoded, str):
                skipped[decoded] += 1
            elif decoded is None:
                foreign.append(path)
            else:
                decoded = replace(decoded, id=nfc(decoded.id), speaker=nfc(decoded.speaker))
                files_of[decoded.id].append(decoded)
        for folder, reason in unread:
            skipped[f"the folder {folder} cannot be read ({reason})"] += 1
        joined = [_join(files) for files in files_of.values()]
        clips = sorted((clip for clip, _ in joined), key=lambda clip: (clip.speaker, clip.id))
        duplicates = sorted(path for _, copies in joined for path in copies)
        return Listing(tuple(clips), dict(sorted(skipped.items())), tuple(duplicates), tuple(foreign))


def _join(files: list[Clip]) -> tuple[Clip, list[Path]]:
    """Files of one utterance → one clip with the best audio and the best video, and the surplus copies."""
    files = sorted(files, key=lambda clip: clip.audio is not None and clip.audio.suffix.lower() in LOSSY_SUFFIXES)
    first: dict[tuple[bool, bool], Clip] = {}
    copies = []
    for clip in files:
        kind = (clip.audio is not None, clip.video is not None)
        if kind in first:
            copies += [path for path in {clip.audio, clip.video} if path is not None]
        else:
            first[kind] = clip
    audio, both, video = first.get((True, False)), first.get((True, True)), first.get((False, True))
    joined = audio or both or video or files[0]
    with_video = both or video
    if with_video:
        video_of = {name: getattr(with_video, name) for name in ("video", "video_offset_s", "face")}
        joined = replace(joined, **video_of)
    return joined, copies
