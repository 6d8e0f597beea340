"""Your own clips: a folder for each emotion, or a table of files.

Without a table, the folders give emotion and speaker. Deeper folders have no meaning:

    angry/anna/door.wav     the emotion, the speaker, any name
    angry/door.wav          the speaker is not known

An emotion is one of farfeel's eight or its noun (anger, fear, joy …), in upper or lower case. Audio and video of one
name in one folder are one clip, and begin together. The name of a file has no meaning. Recordings are known by their
suffix or, where that says nothing, by their first bytes. "ö" as one character and as two is one letter in names.

Where the root has a `clips.csv` (UTF-8; commas, semicolons or tabs), its rows are the clips. Folders then have no
meaning:

    path             audio or video, relative to the root; several audio files, separated by ";", are one recording
                     with one file for each microphone, as in mic1.wav;mic2.wav
    emotion          as above
    speaker          empty or absent: not known
    start_s, end_s   the clip in its file, in seconds; empty or absent: the whole file
    video            the video of the audio in `path`; both begin together

Where the speaker is not known, each recording counts as a speaker of its own, called `unknown-…`. A single name for all
of them would leave nothing to divide. But one person can then be both in training and in test. `speaker_note` says so
wherever such clips are scanned, trained on or tested with.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farfeel.corpora.corpus import SURROGATE, Corpus, Listing
from farfeel.media.audio import MIN_SECONDS
from farfeel.media.recordings import kind_of
from farfeel.support.files import require_folder
from farfeel.support.folders import files_under
from farfeel.support.registry import nearest
from farfeel.support.text import few, nfc
from farfeel.types import EMOTIONS, Clip, FarfeelError

TABLE = "clips.csv"
UNKNOWN = "unknown"
SEPARATOR = ";"  # between the files of one recording
COLUMNS = ("path", "emotion", "speaker", "start_s", "end_s", "video")
_NOUNS = {
    "neutral": ("neutrality",),
    "calm": ("calmness",),
    "happy": ("happiness", "joy"),
    "sad": ("sadness",),
    "angry": ("anger",),
    "fearful": ("fear",),
    "disgust": ("disgusted",),
    "surprised": ("surprise",),
}
_EMOTION_OF = {name: emotion for emotion in EMOTIONS for name in (emotion, *_NOUNS[emotion])}
_KNOWN = ", ".join(f"{emotion} ({', '.join(_NOUNS[emotion])})" for emotion in EMOTIONS)
_NO_EMOTION = "in the folder "


def _decode(path: Path) -> Clip | None:
    """A path relative to the root → its clip; None where its folder is no emotion."""
    return _decode_as(path, kind_of(path))


def _decode_as(path: Path, kind: str) -> Clip | None:
    emotion = _EMOTION_OF.get(path.parts[0].strip().lower())
    if emotion is None or len(path.parts) < 2 or not kind:
        return None
    return _clip(path, kind, emotion, path.parts[1] if len(path.parts) > 2 else "", path.with_suffix("").as_posix())


def _decode_placed(path: Path, root: Path) -> Clip | str | None:
    """A path under the root → its clip; or the reason why a recording is left out."""
    inside = path.relative_to(root)
    kind = kind_of(path)
    if not kind:
        return None
    clip = _decode_as(inside, kind)
    if clip:
        return replace(clip, audio=path, video=path if clip.video else None)
    if len(inside.parts) < 2:
        return "outside the emotions' folders"
    return f"{_NO_EMOTION}{inside.parts[0]}, which is no emotion"


def _clip(path: Path, kind: str, emotion: str, speaker: str, name: str) -> Clip:
    known = speaker.strip().lower() not in ("", UNKNOWN)
    return Clip(
        id=nfc(name),
        corpus="folder",
        # The name of the file, not of the clip: two stretches of one file may be of one person.
        speaker=nfc(speaker.strip() if known else f"{UNKNOWN}-{path.with_suffix('').as_posix()}"),
        emotion=emotion,
        audio=path,  # videos have audio too
        video=path if kind == "video" else None,
    )


@dataclass(frozen=True)
class OwnClips(Corpus):
    """A corpus whose paths are read relative to its root."""

    def listing(self, root: Path) -> Listing:
        """The clips of the table in `root`, or of its folders. Raises FarfeelError that names the faulty row."""
        root = Path(root)
        require_folder(root, "a folder of your own clips", "correct --root")
        if (root / TABLE).is_file():
            listing = _of_table(root)
        else:
            from_root = replace(self, decode=lambda path: _decode_placed(path, root))
            listing = super(OwnClips, from_root).listing(root)
        _require_one_spelling(listing.clips, root)
        return listing


FOLDER = OwnClips(
    name="folder",
    title="your own clips",
    source="your own recordings",
    citation="none",
    licence="that of your recordings",
    emotions=EMOTIONS,
    example="angry/anna/door.wav",
    decode=_decode,
)


def is_unknown(speaker: str) -> bool:
    """Whether a speaker's name stands for one that is not known."""
    return speaker.startswith(f"{UNKNOWN}-")


def speaker_note(clips: Sequence[Clip]) -> str:
    """What it means that the speakers of some clips are not known; "" where all are known."""
    unknown = sum(clip.corpus.removesuffix(SURROGATE) == "folder" and is_unknown(clip.speaker) for clip in clips)
    if not unknown:
        return ""
    return (
        f"SPEAKERS UNKNOWN: {unknown} of {len(clips)} clips do not name their speaker, so each recording counts as a "
        "speaker of its own. No split is speaker-independent: one person can be in training and in test. Accuracies "
        "are then valid only for the people recorded here, and their intervals are too narrow; name the speakers "
        f"(EMOTION/SPEAKER/clip.wav, or the column speaker of {TABLE})"
    )


def nothing_here(root: Path, skipped: dict[str, int]) -> FarfeelError:
    """The error about a folder without a clip: what was found, and which names are known."""
    folders = [reason.removeprefix(_NO_EMOTION).split(",")[0] for reason in skipped if reason.startswith(_NO_EMOTION)]
    if folders:
        found = f"recordings in the folders {few(folders)}, none of which is an emotion"
    elif skipped:
        found = f"{sum(skipped.values())} recordings outside any folder"
    else:
        found = "no recording"
    return FarfeelError(
        f"{root} holds {found}; expected folders named {_KNOWN}, like {FOLDER.example}, or a table {TABLE}; "
        "rename the folders or write the table"
    )


def _require_one_spelling(clips: Sequence[Clip], root: Path) -> None:
    spelling: dict[str, str] = {}
    for clip in clips:
        if spelling.setdefault(clip.speaker.casefold(), clip.speaker) != clip.speaker:
            raise FarfeelError(
                f"{root} has the speakers {spelling[clip.speaker.casefold()]} and {clip.speaker}, expected one "
                "spelling for each; otherwise one person would be in training and in test; rename one"
            )


def _of_table(root: Path) -> Listing:
    clips: list[Clip] = []
    row_of: dict[str, int] = {}
    for number, row in _rows(root / TABLE):
        where = f"{root / TABLE}, row {number}"
        clip = _read_row(row, root, where)
        if clip.id in row_of:
            raise FarfeelError(
                f"{where}: {clip.id} is also in row {row_of[clip.id]}, expected each clip once; remove one, give them "
                "other times, or name a video in the column video"
            )
        row_of[clip.id] = number
        clips.append(clip)
    if not clips:
        raise FarfeelError(f"{root / TABLE} has no row, expected one for each clip; fill it in or remove it")
    named = {file for clip in clips for file in (*clip.audio_files, clip.video)} | {root / TABLE}
    others = [file for file in files_under(root) if file not in named]
    recordings = [file for file in others if kind_of(file)]
    clips.sort(key=lambda clip: (clip.speaker, clip.id))
    skipped = {f"not in {TABLE}": len(recordings)} if recordings else {}
    return Listing(tuple(clips), skipped, (), tuple(file for file in others if file not in recordings))


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the row (the column names are row 1) and its cells by column; empty rows are skipped."""
    try:
        held = table.read_bytes()
    except OSError as error:
        raise FarfeelError(f"{table} cannot be read ({error.strerror}); check its permissions") from None
    try:
        text = held.decode("utf-8-sig")  # Excel puts a mark before a CSV in UTF-8.
    except UnicodeDecodeError as error:
        row = 1 + held[: error.start].count(b"\n")
        raise FarfeelError(f"{table}, row {row}: not UTF-8, as expected of CSV; save it as CSV in UTF-8") from None
    header = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    columns: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(lines, start=1):
            cells = [cell.strip() for cell in cells]
            if number == 1:
                columns = [cell.lower() for cell in cells]
                _require_columns(table, columns)
            elif any(cells):
                if len(cells) != len(columns):
                    raise FarfeelError(
                        f"{table}, row {number}: {len(cells)} cells, expected {len(columns)} as in row 1; put a cell "
                        "that holds the separator in quotes"
                    )
                yield number, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise FarfeelError(f"{table}, row {number + 1}: no CSV ({error}); save it as CSV in UTF-8") from None
    if not columns:
        raise FarfeelError(f"{table} is empty, expected the columns {', '.join(COLUMNS)}; fill it in or remove it")


def _require_columns(table: Path, columns: list[str]) -> None:
    if lacking := [name for name in COLUMNS[:2] if name not in columns]:
        raise FarfeelError(
            f"{table}, row 1: no column {' and no column '.join(lacking)}, found {few([c[:40] for c in columns])}; "
            f"expected path and emotion, and optionally {', '.join(COLUMNS[2:])}; add it"
        )
    for column in columns:  # If ignored, `start` for start_s would train on whole files.
        if column not in COLUMNS:
            near = nearest(column, COLUMNS)
            remedy = f"did you mean {near}?" if near else "remove it"
            raise FarfeelError(f"{table}, row 1: column {column[:40]!r} is none of {', '.join(COLUMNS)}; {remedy}")
        if columns.count(column) > 1:
            raise FarfeelError(f"{table}, row 1: column {column} is there twice, expected once; remove one")


def _read_row(row: dict[str, str], root: Path, where: str) -> Clip:
    emotion = _EMOTION_OF.get(row["emotion"].lower())
    if emotion is None:
        near = nearest(row["emotion"], tuple(_EMOTION_OF))
        remedy = f"did you mean {near}?" if near else "choose one of them, or remove the row"
        raise FarfeelError(f"{where}: emotion {row['emotion'][:40]!r} is none of {_KNOWN}; {remedy}")
    path, *more = _files(row["path"], root, where)
    start_s = _seconds(row, "start_s", where)
    end_s = _seconds(row, "end_s", where)
    if end_s is not None and end_s - (start_s or 0.0) < MIN_SECONDS:
        raise FarfeelError(
            f"{where}: the clip lasts from {start_s or 0:g} to {end_s:g} s, expected {MIN_SECONDS:g} s or more; "
            "correct start_s or end_s"
        )
    name = path.with_suffix("").as_posix()
    if start_s is not None or end_s is not None:
        name += f"@{start_s or 0:g}" + ("" if end_s is None else f"-{end_s:g}")
    clip = _clip(path, kind_of(root / path), emotion, row.get("speaker", ""), name)
    video = None if more else clip.video
    if row.get("video"):
        video = _file(row["video"], "video", root, where)
    clip = replace(clip, audio=root / path, more_audio=tuple(root / file for file in more))
    return replace(clip, video=None if video is None else root / video, start_s=start_s or 0.0, end_s=end_s)


def _files(cell: str, root: Path, where: str) -> list[Path]:
    """The audio or video file of a cell, or its audio files: one for each microphone."""
    names = [name.strip() for name in cell.split(SEPARATOR)]
    if len(names) == 1 or _named(cell, Path(os.path.abspath(root))) is not None:  # a name may contain the separator
        return [_file(cell, "path", root, where)]
    files = [_file(name, "path", root, where) for name in names if name]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise FarfeelError(f"{where}: path names {twice} twice, expected one file for each microphone; remove one")
    return files


def _file(cell: str, column: str, root: Path, where: str) -> Path:
    """The file that a cell names, relative to the root."""
    if not cell:
        raise FarfeelError(f"{where}: no {column}, expected a file under {root}; fill it in or remove the row")
    base = Path(os.path.abspath(root))
    file = _place(cell, base)
    if not file.is_relative_to(base):
        raise FarfeelError(f"{where}: {column} {cell[:200]} is outside {root}, expected a file in it; move it there")
    found = _named(cell, base)
    if found is None:
        problem = "is a folder" if os.path.isdir(file) else "does not exist"
        raise FarfeelError(f"{where}: {column} {cell[:200]} {problem}; expected a file under {root}; correct the row")
    return found.relative_to(base)


def _place(cell: str, base: Path) -> Path:
    return Path(os.path.normpath(base / cell.replace("\\", "/")))  # a table may come from Windows


def _named(cell: str, base: Path) -> Path | None:
    """The file under `base` that a cell names, whether its letters are composed or decomposed; None: no such file."""
    file = _place(cell, base)
    if os.path.isfile(file):  # Path.is_file raises for a name that is too long, such as one with a missing quote.
        return file
    if not file.is_relative_to(base):
        return None
    found = base
    for part in file.relative_to(base).parts:
        alike = [part] if os.path.exists(found / part) else [name for name in _names(found) if nfc(name) == nfc(part)]
        if not alike:
            return None
        found /= alike[0]
    return found if os.path.isfile(found) else None


@functools.lru_cache(maxsize=64)
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(folder))) if os.path.isdir(folder) else ()


def _seconds(row: dict[str, str], column: str, where: str) -> float | None:
    cell = row.get(column, "")
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise FarfeelError(f"{where}: {column} is {cell[:40]!r}, expected seconds like 12.5, from 0; correct it")
    return seconds
