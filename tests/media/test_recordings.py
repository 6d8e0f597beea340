"""Laws of which files are recordings: by suffix or by content, never a text or a picture."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from farfeel.media.audio import read_audio
from farfeel.media.recordings import folder_content, kind_of

RATE = 48000
FORMS = {  # suffix → FFmpeg's names of a container and a codec
    ".m4a": ("mp4", "aac"), ".3gp": ("3gp", "aac"), ".caf": ("caf", "pcm_s16le"), ".oga": ("ogg", "libopus"),
    ".wv": ("wv", "wavpack"), ".au": ("au", "pcm_s16be"), ".mka": ("matroska", "aac"), ".ac3": ("ac3", "ac3"),
    ".mp2": ("mp2", "mp2"), ".MTS": ("mpegts", "ac3"), ".vob": ("vob", "mp2"), ".aac": ("adts", "aac"),
    ".flv": ("flv", "aac"), ".webm": ("webm", "libopus"), ".w64": ("w64", "pcm_s16le"), ".aiff": ("aiff", "pcm_s16be"),
    ".wav": ("wav", "pcm_s16le"), ".flac": ("flac", "flac"), ".mp3": ("mp3", "libmp3lame"),
}  # fmt: skip


def recorded(path: Path, container: str, codec: str, seconds: float = 1.0) -> Path:
    """A voice-like sound in this container and codec."""
    rng = np.random.default_rng(1)
    samples = (3000 * rng.standard_normal((1, round(seconds * RATE)))).astype(np.int16)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(format=stream.codec_context.format or "s16", layout="mono", rate=RATE)
        fifo = av.AudioFifo()
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            piece.pts = None
            fifo.write(piece)
        size = stream.codec_context.frame_size or 1024
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            piece.pts = None
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", FORMS)
def test_a_recording_is_known_by_its_suffix_and_by_its_content(tmp_path: Path, suffix: str) -> None:
    path = recorded(tmp_path / f"clip{suffix}", *FORMS[suffix])
    assert read_audio(path, 16000).shape[1] == pytest.approx(16000, abs=2000)
    assert kind_of(path) in ("audio", "video")
    bare = path.rename(tmp_path / "clip")
    if suffix not in (".mp2", ".aac", ".mp3"):  # these may begin without any mark
        assert kind_of(bare) == ("video" if kind_of(path) == "video" or suffix in (".m4a", ".mka") else "audio")


def test_a_wav_under_any_suffix_is_a_recording_and_bare_samples_are_none(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "called.wav", samples, 16000)
    (tmp_path / "called.wav").rename(tmp_path / "called.raw")
    (tmp_path / "bare.raw").write_bytes((samples * 30000).astype("<i2").tobytes())
    assert (kind_of(tmp_path / "called.raw"), kind_of(tmp_path / "bare.raw")) == ("audio", "")


@pytest.mark.parametrize("name", ["notes.txt", "clips.csv", "cover.jpg", "README", "log", "talk.TextGrid", "a.json"])
def test_texts_tables_and_pictures_are_no_recordings(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"RIFF is a format of files\n" * 100)
    assert kind_of(tmp_path / name) == ""


def test_a_folder_is_divided_and_every_file_is_counted_once(tmp_path: Path) -> None:
    recordings = [
        recorded(tmp_path / f"{number}{suffix}", *form) for number, (suffix, form) in enumerate(FORMS.items())
    ]
    others = [tmp_path / name for name in ("a.txt", "b.csv", "bare.raw")]
    for path in others:
        path.write_bytes(b"0123456789" * 100)
    (tmp_path / "._clip.wav").write_bytes(b"litter")
    content = folder_content(tmp_path)
    assert content.recordings == tuple(sorted(recordings))
    assert content.others == tuple(others)
