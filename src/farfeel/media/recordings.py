"""Which files of a folder are recordings: by their suffix or, where that says nothing, by their first bytes.

A file that is no recording is counted and named, never opened with a decoder. Pictures are no recordings here: a folder
of recordings often holds covers and previews.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from farfeel.media.audio import SPEECH_SUFFIXES
from farfeel.media.video import VIDEO_SUFFIXES
from farfeel.support.folders import files_under

_HEAD = 1024  # bytes that are read to recognise a format
_TS_PACKET, _M2TS_PACKET = 188, 192
_AUDIO_MARKS = (
    b"fLaC", b"OggS", b"ID3", b"#!AMR", b"caff", b".snd", b"wvpk", b"NIST_1A", b"Creative Voice File", b"MAC ", b"TTA1",
    b"riff\x2e\x91\xcf\x11", b"\x0b\x77",
)  # fmt: skip
_VIDEO_MARKS = (
    b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u\x8ef\xcf\x11", b".RMF", b"DKIF",
    b"YUV4MPEG2", b"nut/multimedia", b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", b"\x00\x00\x00\x01\x67",
    b"\x00\x00\x00\x01\x40\x01",
)  # fmt: skip
_VIDEO_FORMS = (b"AVI ",)  # of a RIFF file; any other form of RIFF that is listed here is audio
_AUDIO_FORMS = (b"WAVE", b"AIFF", b"AIFC")


@dataclass(frozen=True)
class FolderContent:
    """recordings: in sorted order. others: files that are no recordings. unread: folders that cannot be read."""

    recordings: tuple[Path, ...]
    others: tuple[Path, ...]
    unread: tuple[tuple[Path, str], ...]


def folder_content(folder: Path) -> FolderContent:
    """The files under a folder, divided. `files_under` says what is passed over."""
    unread: list[tuple[Path, str]] = []
    found = sorted(files_under(folder, lambda inner, reason: unread.append((inner, reason))))
    kinds = {path: kind_of(path) for path in found}
    return FolderContent(
        tuple(path for path in found if kinds[path]),
        tuple(path for path in found if not kinds[path]),
        tuple(unread),
    )


def kind_of(path: Path) -> str:
    """video: a recording that may hold video. audio: one that holds audio only. Empty: no recording."""
    suffix = path.suffix.lower()
    if suffix in SPEECH_SUFFIXES:
        return "audio"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "" if is_other(path) else _kind_of_content(path)


def is_other(path: Path) -> bool:
    """Whether the suffix names something that is no recording: a text, a table, a picture."""
    return path.suffix.lower() in _OTHERS


def _kind_of_content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"FORM"):
        return "video" if head[8:12] in _VIDEO_FORMS else "audio" if head[8:12] in _AUDIO_FORMS else ""
    if head.startswith(_AUDIO_MARKS):
        return "audio"
    is_transport = any(
        len(head) > start + 2 * size and head[start] == head[start + size] == head[start + 2 * size] == 0x47
        for start, size in ((0, _TS_PACKET), (4, _M2TS_PACKET))
    )
    is_mp4 = head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"heic", b"heix", b"mif1", b"msf1")
    return "video" if is_mp4 or is_transport or head.startswith(_VIDEO_MARKS) else ""


_OTHERS = (
    ".csv", ".tsv", ".txt", ".md", ".json", ".yaml", ".yml", ".xml", ".html", ".htm", ".log", ".pdf", ".py", ".parquet",
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".srt", ".vtt", ".textgrid", ".lab", ".cue",
    ".m3u", ".m3u8", ".zip", ".gz", ".tar", ".npy", ".npz", ".mat", ".onnx", ".safetensors",
)  # fmt: skip
"""Suffixes whose files are not opened to recognise them."""
