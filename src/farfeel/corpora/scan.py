"""What is in a corpus folder, from the headers of its files; and the manifest, a Parquet table with one row per clip.

A manifest has the columns of `Clip`, in that order. Files under the root are stored relative to it. The audio files of
one recording, one for each microphone, are one entry, separated by ";". The root and the version of the format are in
the table's metadata. So data and manifest can be moved to another machine.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from farfeel.corpora import Corpus, get_corpus
from farfeel.corpora.readers.folder import FOLDER, SEPARATOR, is_unknown, nothing_here, speaker_note
from farfeel.media.audio import MIN_SECONDS, audio_info
from farfeel.media.microphone_files import length_notes
from farfeel.media.recordings import is_other
from farfeel.media.video import media_info
from farfeel.support.files import replacing_file, require_folder
from farfeel.support.reading import damage, read_json, read_parquet, require_fields
from farfeel.support.registry import nearest
from farfeel.support.text import few, nfc
from farfeel.types import EMOTIONS, FACES, Clip, FarfeelError
from farfeel.variants import CORPORA

MANIFEST_VERSION = 2
_METADATA_KEY = b"farfeel.manifest"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("emotion", pa.string(), nullable=False),
        pa.field("audio", pa.string()),
        pa.field("video", pa.string()),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("intensity", pa.string(), nullable=False),
        pa.field("video_offset_s", pa.float64(), nullable=False),
        pa.field("face", pa.string(), nullable=False),
    ]
)
_MOST_CLIPS, _MOST_BYTES = 5_000_000, 1 << 32  # of a manifest that is read
_READERS = 4  # Reading headers waits for the disk, not for the processor.
_MOST_ROWS = 100  # of a table of speakers; CREMA-D has 91
_MOST_LINES = 20  # of unreadable files
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_JPEG, _PNG = (b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")
_STILLS = {".jpg": _JPEG, ".jpeg": _JPEG, ".png": _PNG}
"""First and last bytes of a whole picture. To check them takes seconds; to decode all pictures would take minutes."""
_ROUNDING_S = 0.05  # Times are given to a tenth of a second or less, and a video may end later than its last frame.
_STILL_END = 64  # Some programs append a few bytes.


@dataclass(frozen=True)
class _Header:
    """What a file holds. video_s: None for a still or for no video. channels: 0 for no audio. has_video: of a file that
    was taken for a video."""

    video_s: float | None = None
    audio_s: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    has_video: bool = True


@dataclass(frozen=True)
class ScanReport:
    """What a folder holds of one corpus.

    clips: those that can be used. Their `end_s` is the length of their audio, or of their video where there is no audio
    (a still has no length). A clip with unreadable audio is left out. A clip with unreadable video is used without it.
    seconds: length of all clips. sample_rates, channels: value → clips with audio. absent_speakers: speakers of the
    whole corpus without a clip here. missing: ids of expected clips that are not here, of the speakers that are.
    unreadable: file and reason. skipped: reason → files. duplicates: files that repeat a clip. people: a line about the
    speakers, where the corpus has one. foreign: files that are not of this corpus. remarks: lines about clips whose
    files have slightly different lengths.
    """

    corpus: str
    root: Path
    clips: tuple[Clip, ...]
    seconds: float
    sample_rates: dict[int, int]
    channels: dict[int, int]
    absent_speakers: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: tuple[tuple[Path, str], ...]
    skipped: dict[str, int]
    duplicates: tuple[Path, ...]
    people: str = ""
    foreign: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Emotion → speaker → clips."""
        counted = Counter((clip.emotion, clip.speaker) for clip in self.clips)
        speakers = sorted({clip.speaker for clip in self.clips})
        emotions = [emotion for emotion in EMOTIONS if any(clip.emotion == emotion for clip in self.clips)]
        return {emotion: {speaker: counted[emotion, speaker] for speaker in speakers} for emotion in emotions}

    def summary(self) -> str:
        """A plain-text table, speakers by emotions, and a line for each thing that was noticed.

        Where there are very many speakers, those with the same name up to a hyphen share a row.
        """
        counts = self.counts
        speakers = sorted({clip.speaker for clip in self.clips})
        row_of = {
            speaker: speaker.partition("-")[0] if len(speakers) > _MOST_ROWS or is_unknown(speaker) else speaker
            for speaker in speakers
        }
        counted = Counter((row_of[clip.speaker], clip.emotion) for clip in self.clips)
        rows = [["speaker", *counts, "all"]]
        for name in dict.fromkeys(row_of.values()):
            row = [counted[name, emotion] for emotion in counts]
            rows.append([name, *map(str, row), str(sum(row))])
        totals = [sum(counts[emotion].values()) for emotion in counts]
        rows.append(["all", *map(str, totals), str(sum(totals))])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines = [*lines, ""] if self.clips else []
        length = f", {self.seconds / 60:.1f} minutes" if self.seconds else ""
        known = sum(not is_unknown(speaker) for speaker in speakers)
        who = f"{known} speakers" if known == len(speakers) else f"{known} known speakers and unknown ones"
        lines += [f"{len(self.clips)} clips of {who}{length}", *([self.people] if self.people else [])]
        lines += [f"{clips} clips at {rate} Hz" for rate, clips in self.sample_rates.items()]
        lines += [f"{clips} clips with {_counted(channels, 'channel')}" for channels, clips in self.channels.items()]
        if videos := sum(clip.video is not None for clip in self.clips):
            lines.append(f"{videos} clips with video")
            if videos < len(self.clips):
                lines.append(f"{len(self.clips) - videos} clips without video")
        if mute := sum(clip.audio is None for clip in self.clips):
            lines.append(f"{mute} clips without audio")
        if self.absent_speakers:
            lines.append(f"absent speakers: {', '.join(self.absent_speakers)}")
        if self.missing:
            lines.append(f"{_counted(len(self.missing), 'missing clip')}: {few(self.missing)}")
        if self.duplicates:
            lines.append(f"{_counted(len(self.duplicates), 'duplicate file')} left out: {few(self.duplicates)}")
        lines += [f"{_counted(files, 'file')} left out: {reason}" for reason, files in self.skipped.items()]
        if self.foreign:
            names = few([path.relative_to(self.root) for path in self.foreign])
            lines.append(f"{_counted(len(self.foreign), 'file')} left out, not of this corpus: {names}")
        lines += self.remarks[:_MOST_LINES]
        lines += [f"unreadable: {reason}" for _, reason in self.unreadable[:_MOST_LINES]]
        if len(self.unreadable) > _MOST_LINES:
            lines.append(f"unreadable: {len(self.unreadable) - _MOST_LINES} more")
        if unknown := speaker_note(self.clips):
            lines.append(unknown)
        return "\n".join(lines)


def scan(
    corpus: Corpus,
    root: Path,
    emotions: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScanReport:
    """Read the headers of all clips under `root`.

    emotions: those to look for; None: all. progress: called with the number of headers read and of all headers. A file
    that cannot be read is in the report. Raises FarfeelError where root is no folder, holds no clip of this corpus, or
    no clip of these emotions.
    """
    root = Path(root)
    wanted = _known_emotions(emotions)
    listing = corpus.listing(root)
    if not listing.clips:
        raise _nothing_here(corpus, root, listing.skipped)
    skipped = Counter(listing.skipped)
    chosen = [clip for clip in listing.clips if clip.emotion in wanted]
    skipped.update(f"{clip.emotion} not requested" for clip in listing.clips if clip.emotion not in wanted)
    if not chosen:
        found = ", ".join(f"{files} files: {reason}" for reason, files in skipped.items())
        raise FarfeelError(
            f"{root} holds no usable clip of {corpus.title} ({found}); expected clips of {', '.join(wanted)}; "
            f"choose among {', '.join(corpus.emotions)} or correct --root"
        )

    headers: dict[Path, _Header | str] = {}  # each file once: a video may hold many clips
    videos = {clip.video for clip in chosen if clip.video}
    files = sorted(videos | {file for clip in chosen for file in clip.audio_files})
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda file: _header(file, file in videos), files)
        for done, (file, header) in enumerate(zip(files, read, strict=True), start=1):
            headers[file] = header
            if progress:
                progress(done, len(files))
    readable = {file: header for file, header in headers.items() if isinstance(header, _Header)}
    clips, audios, lengths_s, beyond = [], [], [], []
    remarks: list[str] = []
    for clip in chosen:
        try:
            audio = _of_clip(clip, readable, remarks)
        except FarfeelError as error:
            beyond.append((clip.audio or root, str(error)))
            continue
        video = readable.get(clip.video) if clip.video else None
        video = video if video and video.has_video else None
        if audio is None or not (audio.channels or video):
            continue
        file_s = audio.audio_s if audio.channels else video.video_s if video else None
        if file_s is not None and max(clip.start_s + MIN_SECONDS, clip.end_s or 0.0) > file_s + _ROUNDING_S:
            beyond.append((clip.audio or clip.video or root, _beyond(clip, file_s)))
            continue
        end_s = file_s if clip.end_s is None or file_s is None else min(clip.end_s, file_s)
        lengths_s.append((end_s or 0.0) - clip.start_s)
        if audio.channels:
            audios.append(audio)
        with_audio, with_video = clip.audio if audio.channels else None, clip.video if video else None
        more_audio = clip.more_audio if with_audio else ()
        clips.append(replace(clip, audio=with_audio, more_audio=more_audio, video=with_video, end_s=end_s))

    present = {clip.speaker for clip in listing.clips}
    return ScanReport(
        corpus=corpus.name,
        root=root,
        clips=tuple(clips),
        seconds=sum(lengths_s),
        sample_rates=dict(sorted(Counter(audio.sample_rate for audio in audios).items())),
        channels=dict(sorted(Counter(audio.channels for audio in audios).items())),
        absent_speakers=tuple(speaker for speaker in corpus.speakers if speaker not in present),
        missing=_missing(corpus, listing.clips, present, wanted),
        unreadable=(*((file, header) for file, header in headers.items() if isinstance(header, str)), *beyond),
        skipped=dict(sorted(skipped.items())),
        duplicates=listing.duplicates,
        people=corpus.people(clips) if corpus.people and clips else "",
        foreign=listing.foreign,
        remarks=tuple(remarks),
    )


def write_manifest(clips: Sequence[Clip], path: Path, root: Path) -> None:
    """Clips → the Parquet file `path`; files under `root` are stored relative to it."""
    root = Path(root).resolve()
    columns = {name: [getattr(clip, name) for clip in clips] for name in _SCHEMA.names}
    columns["audio"] = [SEPARATOR.join(_relative(file, root) for file in clip.audio_files) or None for clip in clips]
    columns["video"] = [None if clip.video is None else _relative(Path(clip.video), root) for clip in clips]
    facts = {"version": MANIFEST_VERSION, "root": root.as_posix()}
    table = pa.table(columns, schema=_SCHEMA.with_metadata({_METADATA_KEY: json.dumps(facts).encode()}))
    with replacing_file(Path(path)) as partial:
        pq.write_table(table, partial)


def read_manifest(path: Path, root: Path | None = None) -> list[Clip]:
    """A manifest → its clips. Their files are under `root`, or under the root that the manifest names.

    Raises FarfeelError for a file that is no manifest, is of another version, lacks a column, or has unknown emotions.
    """
    path = Path(path)
    if not path.is_file():
        raise FarfeelError(f"{path} does not exist; expected a manifest; write one with farfeel scan CORPUS --out FILE")
    message = f"{path} cannot be read as Parquet"
    with damage(lambda reason: f"{message} ({reason}); expected a manifest; write it again with farfeel scan"):
        table = read_parquet(path, _MOST_CLIPS, _MOST_BYTES)
        facts = require_fields(read_json((table.schema.metadata or {}).get(_METADATA_KEY, b"{}")), {})
    if facts.get("version") != MANIFEST_VERSION:
        found = facts.get("version", "none")
        raise FarfeelError(
            f"{path} has manifest version {found}, expected {MANIFEST_VERSION}; write it again with farfeel scan"
        )
    if table.schema.remove_metadata() != _SCHEMA:
        lacking = [name for name in _SCHEMA.names if name not in table.column_names]
        found = f"lacks the columns {', '.join(lacking)}" if lacking else "has columns of other types or order"
        raise FarfeelError(f"{path} {found}; expected {', '.join(_SCHEMA.names)}; write it again with farfeel scan")
    with damage(lambda reason: f"{path} is no whole manifest ({reason}); write it again with farfeel scan"):
        folder = Path(root or require_fields(facts, {"root": str})["root"])
        rows = table.to_pylist()
        for row in rows:
            _require_usable(row)
    for what, known in (("emotion", EMOTIONS), ("face", FACES)):
        if unknown := sorted({row[what] for row in rows} - set(known)):
            raise FarfeelError(
                f"{path} holds the {what}s {', '.join(unknown)}, expected those of {', '.join(known)}; rename them"
            )
    if rows:
        require_folder(folder, f"the folder that the files of {path.name} are in", "name it with --root")
    for row in rows:
        row["video"] = None if row["video"] is None else folder / row["video"]
        row["audio"], *row["more_audio"] = _audio_of(row["audio"], folder)
        row |= {"more_audio": tuple(row["more_audio"]), "id": nfc(row["id"]), "speaker": nfc(row["speaker"])}
    return [Clip(**row) for row in rows]


def _audio_of(entry: str | None, folder: Path) -> list[Path | None]:
    """The audio files of an entry of a manifest, which are separated by ";" if they are several."""
    if entry is None:
        return [None]
    if SEPARATOR not in entry or os.path.isfile(folder / entry):  # a name may contain the separator
        return [folder / entry]
    return [folder / name for name in entry.split(SEPARATOR)]


def _require_usable(row: dict[str, Any]) -> None:
    """Raise ValueError where a row of a manifest has no times, or a name that no file can have."""
    times = [row["start_s"], row["video_offset_s"], *([] if row["end_s"] is None else [row["end_s"]])]
    if not all(math.isfinite(each) for each in times) or row["start_s"] < 0:
        raise ValueError(f"the clip {row['id'][:60]} lies from {row['start_s']} to {row['end_s']} s")
    if any("\0" in (row[name] or "") for name in ("audio", "video")):
        raise ValueError(f"the clip {row['id'][:60]} names a file with a zero byte")


def load_clips(
    name_or_manifest: str, root: Path | None = None, on_unreadable: Callable[[str], None] | None = None
) -> list[Clip]:
    """The usable clips of a corpus under `root`, or of a manifest file.

    on_unreadable: called with a line for everything that is left out, and for speakers that are not known. Raises
    FarfeelError where there is no usable clip.
    """
    notes: list[str] = []
    if _is_manifest(name_or_manifest):
        clips = read_manifest(Path(name_or_manifest), root)
    else:
        corpus = get_corpus(name_or_manifest)
        if root is None:
            raise FarfeelError(
                f"corpus {corpus.name} needs its folder; name it with --root DIR, or give a manifest file instead"
            )
        report = scan(corpus, root)
        if not report.clips:
            raise FarfeelError(
                f"none of {len(report.unreadable)} files in {root} can be used: {report.unreadable[0][1]}"
            )
        clips = list(report.clips)
        notes += [f"left out: {reason}" for _, reason in report.unreadable]
        notes += [f"left out: {_counted(files, 'file')}: {reason}" for reason, files in report.skipped.items()]
        unknown_files = [path.relative_to(root) for path in report.foreign if not is_other(path)]
        if corpus is FOLDER and unknown_files:
            what = _counted(len(unknown_files), "file")
            notes.append(f"left out: {what}, not known to be recordings: {few(unknown_files)}")
        notes += report.remarks
    if unknown := speaker_note(clips):
        notes.append(unknown)
    if on_unreadable:
        for line in notes:
            on_unreadable(line)
    return clips


def corpora_of(name_or_manifest: str, root: Path | None = None) -> list[str]:
    """The names of the corpora that `load_clips` would read clips of."""
    if _is_manifest(name_or_manifest):
        return sorted({clip.corpus for clip in read_manifest(Path(name_or_manifest), root)})
    return [get_corpus(name_or_manifest).name]


def _is_manifest(name: str) -> bool:
    return name not in CORPORA and (Path(name).is_file() or Path(name).suffix == ".parquet")


def load_corpora(
    sources: Sequence[tuple[str, Path | None]], on_unreadable: Callable[[str], None] | None = None
) -> list[Clip]:
    """The usable clips of several corpora or manifests, each under a root of its own, one after the other.

    Raises FarfeelError where two sources hold the same corpus: their speakers have the same names.
    """
    clips: list[Clip] = []
    for name, root in sources:
        found = load_clips(name, root, on_unreadable)
        if twice := {clip.corpus for clip in found} & {clip.corpus for clip in clips}:
            raise FarfeelError(
                f"{name} holds clips of {min(twice)}, and so does a corpus named before it; expected each corpus once; "
                "put its files under one root, or name it once"
            )
        clips += found
    return clips


def named_with_corpus(clips: Sequence[Clip]) -> list[Clip]:
    """The clips with their corpus in ids and speakers, such as ravdess/03: two corpora may each have a speaker 03.

    To be called after the split, which uses the speakers' own names.
    """
    return [replace(clip, id=f"{clip.corpus}/{clip.id}", speaker=f"{clip.corpus}/{clip.speaker}") for clip in clips]


def _header(file: Path, is_video: bool) -> _Header | str:
    """What a file holds; or one line that says why it cannot be used."""
    try:
        if file.suffix.lower() in _STILLS:
            return _still_header(file)
        return _video_header(file) if is_video else _audio_header(file)
    except FarfeelError as error:
        return _pointer_line(file) or str(error)


def _of_clip(clip: Clip, headers: dict[Path, _Header], remarks: list[str]) -> _Header | None:
    """What the audio files of a clip hold together; None where one of them cannot be read. Adds to the remarks.

    Raises FarfeelError where the files have very different lengths.
    """
    found = [headers.get(file) for file in clip.audio_files]
    read = [header for header in found if header is not None]
    if len(found) < 2:
        return _Header() if not found else found[0]
    if len(read) < len(found):
        return None
    lengths_s = [header.audio_s for header in read]
    remarks += length_notes(clip.audio_files, lengths_s)
    channels = sum(header.channels for header in read)
    return _Header(None, max(lengths_s), max(header.sample_rate for header in read), channels)


def _beyond(clip: Clip, file_s: float) -> str:
    span = f"{clip.start_s:g} s to " + ("its end" if clip.end_s is None else f"{clip.end_s:g} s")
    return f"{clip.id} is from {span}, the file lasts {file_s:.2f} s; correct the times"


def _audio_header(file: Path) -> _Header:
    info = audio_info(file)
    _require_length(file, "audio", info.seconds)
    return _Header(audio_s=info.seconds, sample_rate=info.sample_rate, channels=info.channels)


def _video_header(file: Path) -> _Header:
    info = media_info(file)
    if info.video is None and info.audio is not None:  # An MP4 or WebM file may hold a voice alone.
        _require_length(file, "audio", info.audio.seconds)
        return _Header(None, info.audio.seconds, info.audio.sample_rate, info.audio.channels, has_video=False)
    if info.video is None:
        raise FarfeelError(f"{file} has no picture, expected a video; copy or convert it again")
    video_s = None if info.video.is_still else info.video.seconds
    if video_s is not None:
        _require_length(file, "video", video_s)
    if info.audio is None:
        return _Header(video_s=video_s)
    return _Header(video_s, info.audio.seconds, info.audio.sample_rate, info.audio.channels)


def _still_header(file: Path) -> _Header:
    begin, end = _STILLS[file.suffix.lower()]
    try:
        held = file.read_bytes()
    except OSError as error:
        raise FarfeelError(f"{file} cannot be read ({error.strerror}); check its permissions") from None
    if not held.startswith(begin) or end not in held[-_STILL_END:]:
        found = f"a damaged picture ({len(held)} bytes)" if held else "empty (0 bytes)"
        raise FarfeelError(f"{file} is {found}, expected a whole JPEG or PNG; copy it again")
    return _Header()


def _require_length(file: Path, what: str, seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise FarfeelError(
            f"{file} has {seconds * 1000:.1f} ms of {what}, expected at least {MIN_SECONDS * 1000:.0f} ms; "
            "copy it again"
        )


def _pointer_line(file: Path) -> str:
    """What to do about a file that Git has not fetched; "" where it is no such file."""
    try:
        with file.open("rb") as opened:
            is_pointer = opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return ""
    return f"{file} is a Git LFS pointer, expected the recording; fetch it with git lfs pull" if is_pointer else ""


def _missing(corpus: Corpus, clips: Sequence[Clip], present: set[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    found = {clip.id for clip in clips}
    if corpus.labelled:
        labelled = corpus.labelled(clips)
        return tuple(sorted(id_ for id_, emotion in labelled.items() if id_ not in found and emotion in wanted))
    suffix = Path(corpus.example).suffix
    expected = [corpus.decode(Path(id_ + suffix)) for id_ in corpus.expected if id_ not in found]
    return tuple(
        clip.id for clip in expected if isinstance(clip, Clip) and clip.speaker in present and clip.emotion in wanted
    )


def _known_emotions(emotions: Sequence[str] | None) -> tuple[str, ...]:
    if emotions is None:
        return EMOTIONS
    for emotion in emotions:
        if emotion not in EMOTIONS:
            near = nearest(emotion, EMOTIONS)
            remedy = f"did you mean {near}?" if near else "choose among them"
            raise FarfeelError(f"emotion {emotion} is not one of {', '.join(EMOTIONS)}; {remedy}")
    return tuple(emotions)


def _nothing_here(corpus: Corpus, root: Path, skipped: dict[str, int]) -> FarfeelError:
    """The error about a folder without a clip: what was expected, and what the folder holds."""
    others = [name for name in CORPORA if name != corpus.name and _holds_clips(name, root)]
    if corpus is FOLDER and not others:
        return nothing_here(root, skipped)
    archives = sorted(root.rglob("*.zip"))
    if others:
        remedy = f"the files there are those of {' and '.join(others)}: name that corpus"
    elif skipped:
        found = " and ".join(f"{files} files of {reason}" for reason, files in skipped.items())
        remedy = f"there are only {found}, which farfeel leaves out: get the rest from {corpus.source}"
    elif archives:
        remedy = f"unpack {few([archive.name for archive in archives])} there first"
    else:
        remedy = f"correct --root, or get the files from {corpus.source}"
    return FarfeelError(
        f"{root} holds no clip of {corpus.title}; expected files named like {corpus.example}, in any sub-folder; "
        f"{remedy}"
    )


def _holds_clips(name: str, root: Path) -> bool:
    try:
        return bool(get_corpus(name).listing(root).clips)
    except FarfeelError:  # a table with a fault, or a plug-in that cannot be imported
        return False


def _relative(file: Path, root: Path) -> str:
    file = file.resolve()
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
