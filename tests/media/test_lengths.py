"""Laws of lengths and times: a file is read to its end, whatever its header states, and never beyond it."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from farfeel.media import audio as audio_module
from farfeel.media.audio import audio_blocks, audio_info, read_audio, unused_audio
from farfeel.media.audio_track import audio_track_info
from farfeel.media.face_video import FaceVideo
from farfeel.media.video import media_info, read_frames
from farfeel.recipe import Video
from farfeel.types import FarfeelError

RATE = 16000
FPS = 25


before_pyav_19 = pytest.mark.skipif(
    int(av.__version__.split(".")[0]) >= 19, reason="this FFmpeg writes AAC with at most 8 channels"
)


def tones(channels: int = 1, seconds: float = 2.0, rate: int = RATE, first_hz: float = 300.0) -> np.ndarray:
    """(M, T) float32: each channel is a tone of its own, 50 Hz above the one before."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * (first_hz + 50 * m) * time) for m in range(channels)]).astype("f4")


def frequencies(samples: np.ndarray, rate: int = RATE) -> list[float]:
    """The loudest frequency of each channel in its middle second, in hertz."""
    start = max((samples.shape[1] - rate) // 2, 0)
    spectrum = np.abs(np.fft.rfft(samples[:, start : start + rate]))
    return (spectrum.argmax(axis=1) * rate / min(rate, samples.shape[1])).tolist()


def write_tracks(
    path: Path,
    tracks: Sequence[np.ndarray],
    codec: str,
    rate: int = RATE,
    layout: str = "mono",
    form: str | None = None,
    start_s: Fraction = Fraction(0),
    picture_s: Fraction | None = None,
    languages: Sequence[str] = (),
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Audio tracks (M, T), all from `start_s` on. picture_s: When a video of one second begins. None: no video.

    Frame i of the video has the grey level 8 * i.
    """
    with av.open(str(path), "w", format=form, options=options or {}) as output:
        video = None if picture_s is None else output.add_stream("mpeg4", rate=FPS)
        streams = [output.add_stream(codec, rate=rate, layout=layout, options=codec_options or {}) for _ in tracks]
        for stream, language in zip(streams, languages, strict=False):
            stream.metadata["language"] = language
        packets = []
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for i in range(FPS):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * i, np.uint8), format="rgb24")
                frame.pts, frame.time_base = round(picture_s * FPS) + i, Fraction(1, FPS)
                packets += video.encode(frame)
            packets += video.encode(None)
        for stream, samples in zip(streams, tracks, strict=True):
            packets += encoded(stream, samples, rate, layout, start_s)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            output.mux(packet)
    return path


def encoded(stream: av.AudioStream, samples: np.ndarray, rate: int, layout: str, start_s: Fraction) -> list[av.Packet]:
    resampler = av.AudioResampler(format=stream.format.name)
    step = stream.codec_context.frame_size or 1024
    packets: list[av.Packet] = []
    for start in range(0, samples.shape[1], step):
        packed = np.ascontiguousarray(samples[:, start : start + step].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = start + round(start_s * rate)
        for converted in resampler.resample(frame):
            packets += stream.encode(converted)
    return packets + stream.encode(None)


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def patched(path: Path, offset: int, content: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(content)] = content
    path.write_bytes(whole)
    return path


def assert_all_is_read(path: Path, seconds: float, channels: int = 1, late: float = 0.1) -> np.ndarray:
    """All ways of reading a file agree that it has this length."""
    samples = read_audio(path, RATE)
    assert samples.shape[0] == channels
    assert samples.shape[1] / RATE == pytest.approx(seconds, abs=late)
    info = audio_info(path)
    assert info.seconds == pytest.approx(samples.shape[1] / RATE, abs=0.002)
    assert info.channels == channels
    blocks = sum(block.shape[1] for block in audio_blocks(path))
    assert blocks / info.sample_rate == pytest.approx(info.seconds, abs=0.002)
    return samples


# Lengths that are estimates


def test_silence_before_speech_does_not_shorten_a_bare_aac_stream(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros((1, 6 * RATE), np.float32), tones(seconds=4)], axis=1)
    path = write_tracks(tmp_path / "talk.aac", [samples], "aac", form="adts")
    with av.open(str(path)) as container:
        assert abs(container.duration / av.time_base - 10) > 1  # FFmpeg's estimate is wrong
    read = assert_all_is_read(path, 10, late=0.15)
    assert read[0, -3 * RATE :].std() > 0.15


@pytest.mark.parametrize("quiet_first", [True, False])
def test_an_mp3_of_variable_bit_rate_without_a_count_is_read_whole(tmp_path: Path, quiet_first: bool) -> None:
    low, high = (
        write_tracks(
            tmp_path / f"{rate}.mp3",
            [tones()],
            "libmp3lame",
            form="mp3",
            options={"write_xing": "0", "id3v2_version": "0"},
            codec_options={"b": rate},
        )
        for rate in ("16k", "128k")
    )
    parts = [low, high] if quiet_first else [high, low]
    assert_all_is_read(joined(tmp_path / "variable.mp3", *parts), 4, late=0.2)


def test_joined_mp3_files_are_one_recording(tmp_path: Path) -> None:
    for name, hertz in (("a", 300.0), ("b", 700.0)):
        soundfile.write(tmp_path / f"{name}.mp3", tones(first_hz=hertz).T, RATE)
    samples = assert_all_is_read(joined(tmp_path / "ab.mp3", tmp_path / "a.mp3", tmp_path / "b.mp3"), 4, late=0.2)
    assert frequencies(samples[:, : 2 * RATE]) == [300]
    assert frequencies(samples[:, 2 * RATE :]) == [700]


def test_joined_mp3_files_of_different_rates_keep_their_pitch(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", tones().T, RATE)
    soundfile.write(tmp_path / "b.mp3", tones(rate=24000, first_hz=700.0).T, 24000)
    samples = assert_all_is_read(joined(tmp_path / "ab.mp3", tmp_path / "a.mp3", tmp_path / "b.mp3"), 4, late=0.2)
    assert frequencies(samples[:, 2 * RATE :])[0] == pytest.approx(700, abs=1)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("count", [2, 3])
def test_chained_ogg_files_are_one_recording(tmp_path: Path, subtype: str, count: int) -> None:
    parts = []
    for i in range(count):
        parts.append(tmp_path / f"{i}.ogg")
        soundfile.write(parts[-1], tones(first_hz=300.0 + 200 * i).T, RATE, format="OGG", subtype=subtype)
    samples = assert_all_is_read(joined(tmp_path / "chain.ogg", *parts), 2 * count, late=0.2)
    assert frequencies(samples[:, -2 * RATE :])[0] == pytest.approx(300 + 200 * (count - 1), abs=1)


@pytest.mark.parametrize("frames", [2**31 - 1, 10**6, 1])
def test_a_false_count_in_an_mp3_changes_nothing(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "false.mp3"
    soundfile.write(path, tones().T, RATE)
    mark = path.read_bytes().find(b"Xing")
    assert mark > 0
    assert_all_is_read(patched(path, mark + 8, struct.pack(">I", frames)), 2, late=0.2)


def test_a_flac_from_a_pipe_without_a_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe.flac"
    samples = tones(2, seconds=3)
    soundfile.write(path, samples.T, RATE, subtype="PCM_16")
    byte = path.read_bytes()[21]
    patched(path, 21, bytes([byte & 0xF0, 0, 0, 0, 0]))  # the 36 bits of the length
    np.testing.assert_allclose(assert_all_is_read(path, 3, channels=2), samples, atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("stated", [0, 2**32 - 1])
@pytest.mark.parametrize("channels", [1, 4])
def test_the_wav_of_a_recorder_that_was_stopped_is_read_to_its_end(
    tmp_path: Path, subtype: str, stated: int, channels: int
) -> None:
    path, samples = tmp_path / "stopped.wav", tones(channels)
    soundfile.write(path, samples.T, RATE, subtype=subtype, format="WAV")
    data = path.read_bytes().find(b"data")
    patched(path, 4, struct.pack("<I", stated))
    patched(path, data + 4, struct.pack("<I", stated))
    np.testing.assert_allclose(assert_all_is_read(path, 2, channels), samples, atol=1e-4)


@pytest.mark.parametrize("form", ["mpegts", "mpeg"])
def test_a_stream_without_a_length_is_read_whole(tmp_path: Path, form: str) -> None:
    path = write_tracks(tmp_path / "stream", [tones(seconds=3, rate=48000)], "mp2", 48000, form=form)
    assert_all_is_read(path, 3)


def matroska_stating(path: Path, seconds: float) -> Path:
    """Write another duration to the header of a Matroska file."""
    mark = path.read_bytes().find(b"\x44\x89\x88")  # the element Duration with eight bytes
    assert mark > 0
    return patched(path, mark + 3, struct.pack(">d", 1000 * seconds))


@pytest.mark.parametrize("stated_s", [20.0, 1e9])
def test_a_whole_matroska_file_is_not_cut_off_whatever_duration_it_states(tmp_path: Path, stated_s: float) -> None:
    path = write_tracks(tmp_path / "talk.mkv", [tones(seconds=3)], "pcm_s16le", picture_s=Fraction(0))
    matroska_stating(path, stated_s)
    assert_all_is_read(path, 3)
    assert read_frames(path, [0.5, 2.9]).pixels.shape == (2, 48, 64, 3)
    path.write_bytes(path.read_bytes()[:-30000])
    with pytest.raises(FarfeelError, match="is cut off"):
        read_audio(path, RATE)


def test_a_length_in_a_header_is_no_limit(tmp_path: Path) -> None:
    path = matroska_stating(write_tracks(tmp_path / "short.mkv", [tones(seconds=5)], "pcm_s16le"), 1.0)
    assert_all_is_read(path, 5)
    assert media_info(path).seconds == pytest.approx(5, abs=0.01)


def test_a_clip_is_too_long_by_its_samples_not_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_module, "MAX_SECONDS", 3.0)
    path = matroska_stating(write_tracks(tmp_path / "long.mkv", [tones(seconds=5)], "pcm_s16le"), 1.0)
    with pytest.raises(FarfeelError, match="lasts more than 0 minutes, expected at most 0; cut it into clips"):
        read_audio(path, RATE)
    assert read_audio(path, RATE, 1.0, 3.0).shape[1] == 2 * RATE


def test_a_video_is_as_long_as_its_packets(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "video.mkv", [], "pcm_s16le", picture_s=Fraction(0))
    info = media_info(matroska_stating(path, 9000.0))
    assert info.video is not None
    assert info.video.seconds == pytest.approx(1.0, abs=0.05)
    assert info.seconds == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("samples", [20000, 20480, 20800])
def test_what_an_encoder_adds_to_the_end_is_not_audio(tmp_path: Path, samples: int) -> None:
    path = write_tracks(tmp_path / "clip.m4a", [tones(seconds=2)[:, :samples]], "aac")
    assert read_audio(path, RATE).shape == (1, samples)
    assert sum(block.shape[1] for block in audio_blocks(path)) == samples
    assert audio_info(path).seconds == samples / RATE


def test_a_short_length_in_an_mp4_ends_nothing(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "clip.m4a", [tones(seconds=3)], "aac")
    whole = bytearray(path.read_bytes())
    for box in (b"elst", b"mdhd", b"mvhd", b"tkhd"):
        assert whole.count(box) == 1
    edit = whole.find(b"edts")  # A "free" box is skipped, and so is the end of the recording that it contains.
    whole[edit : edit + 4] = b"free"
    path.write_bytes(whole)
    assert read_audio(path, RATE).shape[1] >= 3 * RATE


# Moment 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize("late_s", [Fraction(2), Fraction(1, 2)])
def test_audio_before_the_first_picture_is_used(tmp_path: Path, suffix: str, late_s: Fraction) -> None:
    form = {"mkv": "matroska", "ts": "mpegts"}.get(suffix, suffix)
    path = write_tracks(tmp_path / f"late.{suffix}", [tones(seconds=4)], "aac", form=form, picture_s=late_s)
    assert_all_is_read(path, 4, late=0.15)
    info = media_info(path)
    assert info.video is not None
    assert info.video.start_s == pytest.approx(late_s, abs=0.1)
    assert info.video.seconds == pytest.approx(late_s + 1, abs=0.15)
    levels = read_frames(path, [0.0, float(late_s) + 0.5]).pixels.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [0, 8 * 12], atol=20)  # AAC begins early


def test_windows_before_the_first_picture_have_no_frames(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "late.mp4", [tones(seconds=4)], "aac", form="mp4", picture_s=Fraction(2))
    face = FaceVideo(path, Video(size=32, frames=4, crop="none"), 1.0, end_s=4.0)
    assert (face.begin_s, face.end_s) == pytest.approx((2.0, 3.0), abs=0.05)
    assert face.frames(0.0, 1.0) is None
    shown = face.frames(2.0, 3.0)
    assert shown is not None
    assert np.all(np.diff(shown.mean(axis=(1, 2, 3))) > 20)


def test_times_of_a_wall_clock_begin_at_zero(tmp_path: Path) -> None:
    epoch_s = Fraction(1_700_000_000)
    path = write_tracks(
        tmp_path / "clock.mkv", [tones(seconds=2)], "pcm_s16le", start_s=epoch_s, picture_s=epoch_s + Fraction(1, 5)
    )
    assert_all_is_read(path, 2)
    info = media_info(path)
    assert info.video is not None
    assert (info.video.start_s, info.video.seconds) == pytest.approx((0.2, 1.2), abs=0.01)
    level = read_frames(path, [0.7]).pixels.mean()
    assert level == pytest.approx(8 * 12, abs=14)


def test_streams_with_different_clocks_begin_together(tmp_path: Path) -> None:
    path = write_tracks(
        tmp_path / "clocks.mkv", [tones(seconds=2)], "pcm_s16le", start_s=Fraction(1_700_000_000), picture_s=Fraction(0)
    )
    assert_all_is_read(path, 2)


def test_joined_streams_whose_times_begin_again_are_read_whole(tmp_path: Path) -> None:
    parts = [
        write_tracks(tmp_path / f"{hertz}.ts", [tones(first_hz=hertz)], "aac", form="mpegts")
        for hertz in (300.0, 700.0)
    ]
    samples = assert_all_is_read(joined(tmp_path / "joined.ts", *parts), 4, late=0.3)
    assert frequencies(samples[:, -2 * RATE :])[0] == pytest.approx(700, abs=2)


# Channels and tracks


@pytest.mark.parametrize(
    ("name", "codec", "layout", "channels", "rate"),
    [
        ("a.m4a", "aac", "7.1", 8, RATE),
        pytest.param(*("b.m4a", "aac", "hexadecagonal", 16, RATE), marks=before_pyav_19),
        *[("c.opus", "libopus", "7.1", 8, 48000), ("d.mkv", "libopus", "7.1", 8, 48000)],
        *[("e.wv", "wavpack", "7.1", 8, RATE), ("f.wv", "wavpack", "24 channels", 24, RATE)],
        *[("g.m4a", "alac", "7.1(wide)", 8, RATE), ("h.mkv", "pcm_s16le", "32 channels", 32, RATE)],
    ],
)
def test_all_channels_of_every_codec_are_kept_in_their_order(
    tmp_path: Path, name: str, codec: str, layout: str, channels: int, rate: int
) -> None:
    path = write_tracks(tmp_path / name, [tones(channels, rate=rate)], codec, rate, layout)
    samples = assert_all_is_read(path, 2, channels)
    found = frequencies(samples)
    low_frequency = 3 if layout == "7.1" and codec != "wavpack" else None  # a channel below 120 Hz in AAC and Opus
    for m in range(channels):
        if m != low_frequency:
            assert found[m] == pytest.approx(300 + 50 * m, abs=2)


@pytest.mark.parametrize("suffix", ["mov", "mkv", "mp4"])
@pytest.mark.parametrize("count", [2, 4, 9])
def test_mono_tracks_of_one_length_are_microphones(tmp_path: Path, suffix: str, count: int) -> None:
    samples = tones(count)
    codec = "aac" if suffix == "mp4" else "pcm_s16le"
    path = write_tracks(tmp_path / f"recorder.{suffix}", [mic[None] for mic in samples], codec)
    read = assert_all_is_read(path, 2, count)
    assert frequencies(read) == pytest.approx([300 + 50 * m for m in range(count)], abs=2)
    assert unused_audio(path) == ""
    np.testing.assert_allclose(read_audio(path, RATE, 0.5, 1.0), read[:, 8000:16000], atol=1e-3)


OTHER_TRACKS: dict[str, Callable[[Path], Path]] = {
    "length": lambda path: write_tracks(path, [tones(seconds=2), tones(seconds=1)], "pcm_s16le"),
    "language": lambda path: write_tracks(path, [tones(), tones()], "pcm_s16le", languages=["eng", "deu"]),
    "stereo": lambda path: write_tracks(path, [tones(2), tones(2)], "pcm_s16le", layout="stereo"),
}


@pytest.mark.parametrize("kind", OTHER_TRACKS)
def test_tracks_that_are_no_microphones_are_reported(tmp_path: Path, kind: str) -> None:
    path = OTHER_TRACKS[kind](tmp_path / "tracks.mov")
    expected = "only audio track 1 of 2 is used: the tracks are not microphones of one recording"
    assert_all_is_read(path, 2, channels=2 if kind == "stereo" else 1)
    assert unused_audio(path) == expected
    assert audio_info(path).unused == expected
    info = audio_track_info(path)
    assert info is not None
    assert info.unused == expected


def test_a_change_of_channels_is_one_line(tmp_path: Path) -> None:
    mono = write_tracks(tmp_path / "mono.aac", [tones()], "aac", form="adts")
    stereo = write_tracks(tmp_path / "stereo.aac", [tones(2)], "aac", layout="stereo", form="adts")
    path = joined(tmp_path / "both.aac", mono, stereo)
    for read in (lambda: read_audio(path, RATE), lambda: list(audio_blocks(path))):
        with pytest.raises(FarfeelError, match="changes from 1 to 2 channels, expected one number of channels; cut"):
            read()


def test_float_samples_that_no_recorder_writes_are_damage(tmp_path: Path) -> None:
    samples = tones()
    samples[0, 100] = 1e30
    soundfile.write(tmp_path / "damaged.wav", samples.T, RATE, subtype="FLOAT")
    assert np.isposinf(np.concatenate(list(audio_blocks(tmp_path / "damaged.wav")), axis=1)[0, 100])
    soundfile.write(tmp_path / "integers.wav", 32768 * tones().T, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "integers.wav", RATE), 32768 * tones())
