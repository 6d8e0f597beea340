"""Laws of formats: what FFmpeg reads safely is read, and everything else is one line that lists what is expected."""

import os
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.media.audio import audio_blocks, audio_info, read_audio
from farfeel.media.container import FORMATS
from farfeel.media.video import media_info, read_frames
from farfeel.types import FarfeelError

RATE = 16000
FPS = 25
REFERRING = (
    "hls",
    "dash",
    "concat",
    "image2",
    "sdp",
    "rtsp",
    "svg_pipe",
    "lavfi",
    "imf",
    "vobsub",
    "webm_dash_manifest",
)


def noise(channels: int = 1, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """(M, T) float32 below 3 kHz"""
    rng = np.random.default_rng(3)
    spectrum = np.fft.rfft(rng.uniform(-0.4, 0.4, (channels, round(seconds * rate))))
    spectrum[:, np.fft.rfftfreq(round(seconds * rate), 1 / rate) > 3000] = 0
    return np.fft.irfft(spectrum).astype("f4")


def write_pictures(path: Path, form: str, codec: str, count: int = 30, pix_fmt: str = "yuv420p") -> Path:
    """A video without audio. Frame i has the grey level 7 * i."""
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=FPS, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 48, pix_fmt, 1
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 7 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_audio(path: Path, form: str, codec: str, samples: np.ndarray, rate: int = RATE) -> Path:
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        step = stream.codec_context.frame_size or 1024
        for start in range(0, samples.shape[1], step):
            block = np.ascontiguousarray(samples[:, start : start + step])
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
            for converted in resampler.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return path


VIDEO_STREAMS = {
    "camera.h264": ("h264", "libx264"),
    "camera.hevc": ("hevc", "libx265"),
    "raw.y4m": ("yuv4mpegpipe", "rawvideo"),
    "some.nut": ("nut", "mpeg4"),
    "some.mjpeg": ("mjpeg", "mjpeg"),
    "some.m2v": ("mpeg2video", "mpeg2video"),
    "some.mxf": ("mxf", "mpeg2video"),
}


@pytest.mark.parametrize("name", VIDEO_STREAMS)
def test_videos_of_every_format_are_read_at_their_times(tmp_path: Path, name: str) -> None:
    form, codec = VIDEO_STREAMS[name]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_pictures(tmp_path / name, form, codec, pix_fmt=pix_fmt)
    info = media_info(path)
    assert info.audio is None
    assert info.video is not None
    assert info.video.seconds == pytest.approx(30 / FPS, abs=0.09)
    assert not info.video.is_still
    levels = read_frames(path, [0.0, 0.4, 1.0]).pixels.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [0, 70, 175], atol=10)


@pytest.mark.parametrize(
    ("name", "form", "codec", "rate"),
    [
        *[("a.nut", "nut", "pcm_s16le", RATE), ("b.rm", "rm", "ac3", 48000), ("c.ac3", "ac3", "ac3", 48000)],
        *[("d.mp2", "mp2", "mp2", 48000), ("e.tta", "tta", "tta", RATE), ("f.wv", "wv", "wavpack", RATE)],
        *[("g.caf", "caf", "pcm_s16be", RATE), ("i.eac3", "eac3", "eac3", 48000)],
        *[("j.voc", "voc", "pcm_s16le", RATE), ("l.sox", "sox", "pcm_s32le", RATE)],
    ],
)
def test_audio_of_every_format_is_read_and_no_video_is_missed(
    tmp_path: Path, name: str, form: str, codec: str, rate: int
) -> None:
    samples = noise(seconds=2, rate=rate)
    path = write_audio(tmp_path / name, form, codec, samples, rate)
    assert audio_info(path).seconds == pytest.approx(2, abs=0.1)
    assert read_audio(path, RATE).std() == pytest.approx(samples.std(), rel=0.4)
    assert media_info(path).video is None


@pytest.mark.parametrize("form", ["NIST", "VOC", "AU", "RF64"])
def test_old_sound_formats_are_audio_without_a_video(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"clip.{form.lower()}"
    soundfile.write(path, noise().T, RATE, format=form, subtype="PCM_16")
    np.testing.assert_allclose(read_audio(path, RATE)[:, :RATE], noise(), atol=1e-4)
    assert media_info(path).video is None


def test_gsm_is_known_by_its_content(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.gsm", noise(rate=8000).T, 8000, format="RAW", subtype="GSM610")
    assert audio_info(tmp_path / "clip.gsm").seconds == pytest.approx(1, abs=0.05)
    path = (tmp_path / "clip.gsm").rename(tmp_path / "clip")
    assert audio_info(path).sample_rate == 8000


@pytest.mark.parametrize("suffix", ["raw", "pcm", "txt", "mp4", ""])
@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "AIFF"])
def test_the_content_decides_whatever_a_sound_file_is_called(tmp_path: Path, suffix: str, form: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    with path.open("wb") as file:
        soundfile.write(file, noise().T, RATE, format=form)
    assert read_audio(path, RATE).shape == (1, RATE)


@pytest.mark.parametrize("suffix", ["raw", "pcm", "wav", "mp3", "gsm", "mp4"])
def test_samples_without_a_header_are_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes((30000 * noise(seconds=3)).astype("<i2").tobytes())
    for read in (audio_info, media_info, lambda path: read_audio(path, RATE)):
        with pytest.raises(FarfeelError) as raised:
            read(path)
        assert "\n" not in str(raised.value)
        assert str(raised.value).count(path.name) == 1


@pytest.mark.parametrize("suffix", ["gsm", "wav", "flac", "m4a"])
def test_an_error_about_a_sound_file_names_no_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_text("no sound\n" * 99)
    for read in (audio_info, media_info, lambda path: read_audio(path, RATE)):
        message = one_line(read, path)
        if suffix != "gsm":
            assert "cannot be read as audio (" in message
        assert "expected " in message
        assert "WAV, FLAC, OGG, MP3" in message
        assert "AVI" not in message or suffix == "gsm"


def one_line(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(FarfeelError) as raised:
        read(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_no_accepted_format_refers_to_other_files() -> None:
    assert not set(FORMATS.split(",")) & set(REFERRING)
    assert len(set(FORMATS.split(","))) == FORMATS.count(",") + 1


def test_the_documents_list_every_accepted_format_and_no_other() -> None:
    table = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = [
        row.split("|")[2] for row in table.splitlines() if row.startswith(("| audio |", "| video,", "| pictures |"))
    ]
    words = re.sub(r"\([^)]*\)", "", " ".join(rows)).split()
    assert sorted(words) == sorted(FORMATS.split(","))


def with_exif(path: Path, orientation: int) -> Path:
    """A photo as a telephone writes it: the Exif data contain how the camera was held, and a comment."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, orientation) + struct.pack("<HHI4s", 0x010F, 2, 4, b"Cam\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + struct.pack("<I", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:])
    return path


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # orientation of Exif: how the upright picture is stored
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_photo_with_exif_data_is_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.full((96, 64, 3), 30, dtype=np.uint8)
    upright[:32, :32] = 220
    upright[64:, :16] = 120
    path = tmp_path / "photo.jpg"
    assert cv2.imwrite(str(path), np.ascontiguousarray(TURNED[orientation](upright)))
    result = read_frames(with_exif(path, orientation), [0.0, 5.0])
    assert result.pixels.shape == (2, 96, 64, 3)
    np.testing.assert_allclose(result.pixels[0], upright, atol=40)
    info = media_info(path).video
    assert info is not None
    assert (info.width, info.height, info.is_still) == (64, 96, True)


AUDIO_SEEDS: dict[str, Callable[[Path], object]] = {
    "wav": lambda path: soundfile.write(path, noise(2).T, RATE, format="WAV"),
    "flac": lambda path: soundfile.write(path, noise(2).T, RATE, format="FLAC"),
    "ogg": lambda path: soundfile.write(path, noise(2).T, RATE, format="OGG"),
    "mp3": lambda path: soundfile.write(path, noise(2).T, RATE, format="MP3"),
    "aac": lambda path: write_audio(path, "adts", "aac", noise()),
    "m4a": lambda path: write_audio(path, "ipod", "aac", noise()),
    "mkv": lambda path: write_audio(path, "matroska", "libopus", noise(rate=48000), 48000),
    "wv": lambda path: write_audio(path, "wv", "wavpack", noise()),
    "ts": lambda path: write_audio(path, "mpegts", "mp2", noise(rate=48000), 48000),
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("seeds")
    for name, write in AUDIO_SEEDS.items():
        write(folder / name)
    return {name: folder / name for name in AUDIO_SEEDS}


@given(seed=st.integers(0, 10**6), kind=st.sampled_from([*AUDIO_SEEDS]), share=st.floats(0.2, 1.0))
@settings(max_examples=120, deadline=None)
def test_damaged_audio_is_samples_or_one_line_and_nothing_else(
    seeds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str, share: float
) -> None:
    rng = np.random.default_rng(seed)
    content = np.frombuffer(seeds[kind].read_bytes(), dtype=np.uint8).copy()
    where = rng.integers(0, min(len(content), int(rng.choice([64, 512, len(content)]))), 12)
    content[where] = rng.integers(0, 256, len(where))
    path = tmp_path_factory.mktemp("damaged") / "clip"
    path.write_bytes(content[: int(share * len(content))].tobytes())
    for read in (audio_info, media_info, lambda path: read_audio(path, RATE), lambda path: list(audio_blocks(path))):
        try:
            read(path)
        except FarfeelError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_damaged_audio_leaves_nothing_on_standard_error(
    seeds: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for kind, path in seeds.items():
        damaged = path.with_name(f"damaged-{kind}")
        content = bytearray(path.read_bytes())
        content[len(content) // 3 : len(content) // 3 + 400] = os.urandom(400)
        damaged.write_bytes(content + bytes(300))
        for read in (audio_info, lambda path: read_audio(path, RATE)):
            try:
                read(damaged)
            except FarfeelError as error:
                assert "\n" not in str(error)  # noqa: PT017
    assert capfd.readouterr() == ("", "")
