"""Laws of videos: the requested frames are returned, upright. A file that is not a video gives a one-line error."""

import os
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.corpora import drawn_faces, video_files
from farfeel.media import container as container_module
from farfeel.media import video as video_module
from farfeel.media.audio_track import audio_track_info, read_audio_track
from farfeel.media.video import VIDEO_SUFFIXES, media_info, read_frames
from farfeel.types import FarfeelError

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data")).resolve()
FPS, COUNT = 25, 50
CODECS = {  # a codec that each container is usually filled with
    "mp4": "libx264",
    "mov": "libx264",
    "mkv": "libx264",
    "flv": "flv",
    "ts": "mpeg2video",
    "mpg": "mpeg1video",
    "avi": "mpeg4",
    "wmv": "wmv2",
    "webm": "libvpx",
    "gif": "gif",
}


def counter(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """(H, W, 3) frame that shows its number as eight bits, white or black, in a row of blocks; coding survives it."""
    bits = [255 * (number >> bit & 1) for bit in range(8)]
    picture = np.repeat(np.repeat(np.array(bits, dtype=np.uint8)[None], height, 0), width // 8, 1)
    return np.repeat(np.pad(picture, ((0, 0), (0, width - picture.shape[1])))[..., None], 3, 2)


def number(picture: np.ndarray) -> int:
    """What `counter` wrote, read back at any scale."""
    width = picture.shape[1] // 8
    means = [picture[:, width * bit + width // 4 : width * (bit + 1) - width // 4].mean() for bit in range(8)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 127)


def write_video(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    fps: int = FPS,
    options: dict[str, str] | None = None,
    ticks: list[int] | None = None,
    setup: Callable[[av.VideoStream], None] = lambda stream: None,
    container: dict[str, str] | None = None,
) -> Path:
    """`ticks`: the times of the frames in units of 1/fps."""
    suffix = path.suffix[1:]
    formats = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg", "wmv": "asf"}
    with av.open(str(path), "w", format=formats.get(suffix, suffix), options=container or {}) as output:
        stream = output.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.thread_count = 1
        setup(stream)
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = (ticks[i] if ticks else i), Fraction(1, fps)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


def video_with_audio(path: Path, samples: np.ndarray, codec: str, rate: int, layout: str, late_s: float = 0.0) -> Path:
    """A video of 2 s with audio (M, T) float32 that starts `late_s` after it."""
    with av.open(str(path), "w") as output:
        pictures = output.add_stream("libx264" if path.suffix != ".webm" else "libvpx", rate=FPS)
        pictures.height, pictures.width, pictures.pix_fmt, pictures.thread_count = 64, 96, "yuv420p", 1
        audio = output.add_stream(codec, rate=rate, layout=layout)
        for i in range(COUNT):
            output.mux(pictures.encode(av.VideoFrame.from_ndarray(counter(i), format="rgb24")))
        output.mux(pictures.encode(None))
        step = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=audio.format.name, layout=layout, rate=rate)
        for start in range(0, samples.shape[1], step):
            block = np.ascontiguousarray(samples[:, start : start + step])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + round(late_s * rate)
            for converted in resampler.resample(frame):
                output.mux(audio.encode(converted))
        output.mux(audio.encode(None))
    return path


def chirp(channels: int, rate: int, seconds: float = 2.0) -> np.ndarray:
    """(M, T) channels of different frequency and level."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 / (m + 1) * np.sin(2 * np.pi * (300 + 100 * m) * time) for m in range(channels)]).astype("f4")


@pytest.fixture(autouse=True)
def no_file_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    yield
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 50 frames in all containers, and in H.264 with different arrangements of key frames."""
    folder = tmp_path_factory.mktemp("videos")
    frames = [counter(i) for i in range(COUNT)]
    made = {suffix: write_video(folder / f"video.{suffix}", frames, codec) for suffix, codec in CODECS.items()}
    made["often"] = write_video(folder / "often.mp4", frames, options={"g": "8", "bf": "3"})
    made["pyramid"] = write_video(folder / "pyramid.mkv", frames, options={"g": "24", "bf": "7", "b-pyramid": "normal"})
    made["open"] = write_video(folder / "open.ts", frames, options={"g": "10", "bf": "3", "x264-params": "open-gop=1"})
    made["fragments"] = write_video(
        folder / "fragments.mp4", frames, options={"g": "10"}, container={"movflags": "frag_keyframe+empty_moov"}
    )
    made["hevc"] = write_video(
        folder / "hevc.mp4", frames, "libx265", options={"x265-params": "log-level=none:pools=1"}
    )
    return made


ARRANGEMENTS = [*CODECS, "often", "pyramid", "open", "fragments", "hevc"]


@pytest.mark.parametrize("kind", ARRANGEMENTS)
@settings(max_examples=12)
@given(moments=st.lists(st.floats(0, COUNT / FPS), min_size=1, max_size=8))
def test_the_frames_at_the_requested_times_are_returned(
    videos: dict[str, Path], kind: str, moments: list[float]
) -> None:
    result = read_frames(videos[kind], moments)
    shown = np.minimum((np.array(moments) + 0.001) * FPS, COUNT - 1).astype(int)
    assert [number(picture) for picture in result.pixels] == shown.tolist()
    np.testing.assert_allclose(result.times_s, shown / FPS, atol=0.0011)


@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_every_frame_is_found_at_its_own_time(videos: dict[str, Path], kind: str) -> None:
    result = read_frames(videos[kind], [i / FPS for i in range(COUNT)])
    assert [number(picture) for picture in result.pixels] == list(range(COUNT))


@pytest.mark.parametrize("kind", ["often", "pyramid", "mp4", "hevc"])
def test_skipping_frames_does_not_change_a_pixel(videos: dict[str, Path], kind: str) -> None:
    with av.open(str(videos[kind])) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    moments = [0.3, 0.7, 1.5, 1.9]
    whole = [every[int((moment + 0.001) * FPS)] for moment in moments]
    np.testing.assert_array_equal(read_frames(videos[kind], moments, exact=True).pixels, whole)


def test_without_deblocking_a_face_keeps_its_grey_levels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    loudness = np.ones(COUNT)
    person, happy = drawn_faces.draw_person(rng), drawn_faces.draw_expression("happy", rng)
    frames = drawn_faces.draw_video(person, happy, loudness, rng)
    write_video(tmp_path / "video.mp4", [cv2.resize(frame, (256, 256)) for frame in frames])
    quick, exact = (
        read_frames(tmp_path / "video.mp4", [0.0, 0.9, 1.9], exact=exact).pixels.astype(float)
        for exact in (False, True)
    )
    assert 0 < np.abs(quick - exact).mean() < 1.5
    np.testing.assert_allclose(quick.mean((1, 2)), exact.mean((1, 2)), atol=0.5)


def test_times_before_and_after_the_video_give_its_first_and_last_frame(videos: dict[str, Path]) -> None:
    result = read_frames(videos["mp4"], [-3.0, 99.0, 1e9])
    assert [number(picture) for picture in result.pixels] == [0, COUNT - 1, COUNT - 1]


def test_key_frames_save_decoding(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    decode_packet = container_module.decode_packet
    monkeypatch.setattr(
        video_module, "decode_packet", lambda stream, packet: [sent.append(packet), decode_packet(stream, packet)][1]
    )
    read_frames(videos["often"], [0.33, 1.97])
    assert len(sent) < 20


@pytest.mark.parametrize("suffix", sorted({suffix[1:] for suffix in VIDEO_SUFFIXES} & set(CODECS)))
def test_a_container_tells_what_it_holds(videos: dict[str, Path], suffix: str) -> None:
    info = media_info(videos[suffix])
    assert info.audio is None
    assert info.video is not None
    assert (info.video.width, info.video.height, info.video.is_still) == (96, 64, False)
    assert info.video.fps == pytest.approx(FPS, rel=0.01)
    late = 0.31 if suffix == "mpg" else 0.1  # An MPEG program stream has no header: its length is a guess.
    assert info.video.seconds == pytest.approx(COUNT / FPS, abs=late)
    assert info.seconds == pytest.approx(COUNT / FPS, abs=late)
    assert info.video.frames in (COUNT, None)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_frame_stays_on_screen_until_the_next_one(tmp_path: Path, suffix: str) -> None:
    ticks = [0, 1, 2, 20, 21, 60, 61, 62, 63, 64]
    path = write_video(
        tmp_path / f"variable.{suffix}", [counter(tick) for tick in ticks], ticks=ticks, options={"bf": "3"}
    )
    ticks_read = np.arange(65)
    result = read_frames(path, ticks_read / FPS)
    expected = [max(tick for tick in ticks if tick <= moment) for moment in ticks_read]
    assert [number(picture) for picture in result.pixels] == expected


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_video_that_starts_late_in_its_container_starts_at_zero(tmp_path: Path, suffix: str) -> None:
    ticks = [i + 100 for i in range(30)]
    path = write_video(tmp_path / f"late.{suffix}", [counter(i) for i in range(30)], ticks=ticks)
    result = read_frames(path, [0.0, 0.4, 1.0])
    assert [number(picture) for picture in result.pixels] == [0, 10, 25]
    np.testing.assert_allclose(result.times_s, [0.0, 0.4, 1.0], atol=0.0011)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_upright_for_every_rotation_in_the_container(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    upright = np.full((96, 64, 3), 30, dtype=np.uint8)
    upright[:32, :32] = 220  # a light mark at the top left
    stored = upright[:, ::-1] if mirrored else upright
    stored = np.ascontiguousarray(np.rot90(stored, -degrees // 90))  # then the container asks for the other way round

    def turn(stream: av.VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=mirrored)

    path = write_video(tmp_path / "turned.mp4", [stored] * 3, setup=turn)
    picture = read_frames(path, [0.0]).pixels[0]
    assert picture.shape == upright.shape
    np.testing.assert_allclose(picture, upright, atol=20)
    info = media_info(path).video
    assert info is not None
    assert (info.width, info.height) == (64, 96)
    if not mirrored:
        assert info.rotation_deg == -degrees % 360


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    def widen(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = write_video(tmp_path / "wide.mkv", [counter(5)] * 3, setup=widen)
    assert read_frames(path, [0.0]).pixels.shape == (1, 64, 128, 3)


@given(width=st.integers(16, 140), height=st.integers(16, 140), max_side=st.sampled_from([32, 100, 720]))
@settings(max_examples=15)
def test_odd_sizes_are_kept_and_large_frames_are_reduced(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, max_side: int
) -> None:
    frames = [counter(9, height, width)] * 2
    path = write_video(tmp_path_factory.mktemp("odd") / "odd.avi", frames, "mjpeg")
    pixels = read_frames(path, [0.0], max_side).pixels
    scale = min(1, max_side / max(width, height))
    assert pixels.shape[1:3] == pytest.approx((height * scale, width * scale), abs=0.51)


def test_eight_k_is_reduced_while_it_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "8k.avi", [counter(200, 4320, 7680)], "mjpeg")
    result = read_frames(path, [0.0, 1.0], max_side=360)
    assert result.pixels.shape == (2, 202, 360, 3)
    assert [number(picture) for picture in result.pixels] == [200, 200]


def test_only_the_requested_part_of_an_hour_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(
        tmp_path / "hour.mp4", [counter(i % 256, 32, 64) for i in range(3600)], fps=1, options={"g": "20"}
    )
    sent: list[object] = []
    decode_packet = container_module.decode_packet
    monkeypatch.setattr(
        video_module,
        "decode_packet",
        lambda stream, packet: [sent.append(packet is None), decode_packet(stream, packet)][1],
    )
    result = read_frames(path, [10, 1800, 3590])
    assert [number(picture) for picture in result.pixels] == [10, 1800 % 256, 3590 % 256]
    assert len(sent) < 3 * 30
    info = media_info(path)
    assert info.seconds == pytest.approx(3600)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_still_picture_is_a_video_of_one_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"still.{suffix}"
    assert cv2.imwrite(str(path), counter(77, 63, 95))
    result = read_frames(path, [0.0, 0.5, 60.0])
    assert [number(picture) for picture in result.pixels] == [77, 77, 77]
    assert result.pixels.shape == (3, 63, 95, 3)
    np.testing.assert_array_equal(result.times_s, 0)
    info = media_info(path).video
    assert info is not None
    assert info.is_still
    assert info.frames == 1


@pytest.mark.parametrize(
    "rename", ["video.wav", "video.mp3", "video.jpg", "video%03d.mp4", "concat:video", "http:video.m3u8"]
)
def test_the_content_decides_and_not_the_file_name(videos: dict[str, Path], tmp_path: Path, rename: str) -> None:
    path = Path(shutil.copy(videos["mp4"], tmp_path / rename))
    assert number(read_frames(path, [1.0]).pixels[0]) == FPS


def test_a_name_that_looks_like_a_pattern_finds_no_other_file(videos: dict[str, Path], tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"picture{i}.jpg"), counter(i))
    with pytest.raises(FarfeelError, match="does not exist"):
        read_frames(tmp_path / "picture%d.jpg", [0.0])


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{video}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{video}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="0"><BaseURL>{video}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{video}"/></svg>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("read", [media_info, lambda path: read_frames(path, [0.0]), read_audio_track])
def test_a_file_that_refers_to_others_is_refused_and_opens_none_of_them(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, read: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(container_module, "_refuse_reference", lambda *of: pytest.fail("a reference was followed"))
    path = tmp_path / "meeting.mp4"
    path.write_text(PLAYLISTS[kind].format(video=videos["ts"]))
    with pytest.raises(FarfeelError, match=r"cannot be read as (video|audio) "):
        read(path)


def cut(path: Path, target: Path, share: float) -> Path:
    content = path.read_bytes()
    target.write_bytes(content[: int(share * len(content))])
    return target


def zeros_wav(path: Path) -> None:
    soundfile.write(path, np.zeros((100, 1)), 8000, format="WAV")


BAD: dict[str, tuple[Callable[[Path, dict[str, Path]], object], str]] = {
    "absent": (lambda path, videos: None, "does not exist; expected a video file"),
    "folder": (lambda path, videos: path.mkdir(), "is a folder; expected a video file"),
    "empty": (lambda path, videos: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "text": (lambda path, videos: path.write_text("no video\n" * 500), "cannot be read as video"),
    "zeros": (lambda path, videos: path.write_bytes(bytes(10000)), "cannot be read as video"),
    "audio": (lambda path, videos: zeros_wav(path), "has audio but no video"),
    "no frame": (lambda path, videos: video_without_frames(path), "neither video nor audio|no frame|cannot be read"),
    "tiny": (
        lambda path, videos: (
            cv2.imwrite(str(path.with_suffix(".png")), counter(1, 1, 1)) and path.with_suffix(".png").rename(path)
        ),
        "has pictures of 1×1 pixels, expected 16×16 or more",
    ),
    "no moov": (lambda path, videos: cut(videos["mp4"], path, 0.8), "cannot be read as video"),
    "cut in its first frame": (lambda path, videos: cut(videos["mkv"], path, 0.12), "cannot be read|no frame|cut off"),
    "not UTF-8": (lambda path, videos: None, "does not exist"),
}


def video_without_frames(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        output.start_encoding()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_video_is_one_line_and_nothing_else(
    videos: dict[str, Path], tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, expected = BAD[kind]
    path = tmp_path / "video.mp4"
    make(path, videos)
    with pytest.raises(FarfeelError, match=expected) as raised:
        read_frames(path, [0.0, 1.0])
    message = str(raised.value)
    assert message.startswith(f"{path} ")
    assert message.count("video.mp4") == 1
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_impossible_file_names_are_one_line(tmp_path: Path) -> None:
    for name in ("na\udcffme.mp4", "na\0me.mp4"):
        with pytest.raises(FarfeelError) as raised:
            read_frames(tmp_path / name, [0.0])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_a_video_cut_short_gives_the_frames_that_are_left_and_reports_its_end(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    frames = [cv2.resize(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8), (96, 64)) for _ in range(100)]
    whole = write_video(
        tmp_path / f"whole.{suffix}",
        frames,
        CODECS[suffix],
        options={"g": "10"},
        container={"movflags": "faststart"} if suffix == "mp4" else {},
    )
    path = cut(whole, tmp_path / f"cut.{suffix}", 0.5)
    np.testing.assert_array_equal(read_frames(path, [0.5, 1.0]).pixels, read_frames(whole, [0.5, 1.0]).pixels)
    with pytest.raises(FarfeelError, match=r"is cut off: .* of 4.0 s; copy the file again|is damaged"):
        read_frames(path, [0.5, 3.9])


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(ARRANGEMENTS))
@settings(max_examples=60)
def test_damage_gives_frames_or_a_one_line_error(
    videos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    content = np.frombuffer(videos[kind].read_bytes(), dtype=np.uint8).copy()
    content[rng.integers(0, len(content), 20)] = rng.integers(0, 256, 20)
    path = tmp_path_factory.mktemp("damaged") / "video.mp4"
    path.write_bytes(content.tobytes())
    try:
        pixels = read_frames(path, [0.0, 1.0, 1.9]).pixels
    except FarfeelError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert pixels.shape[0] == 3


def test_no_times_and_infinite_times_are_one_line(videos: dict[str, Path]) -> None:
    for moments in ([], [float("nan")], [float("inf")]):
        with pytest.raises(FarfeelError, match="expected one or more, all finite"):
            read_frames(videos["mp4"], moments)


AUDIO_TRACKS = {  # container: codec, rate, channels, layout, error relative to the audio (a sample's delay makes 0.12)
    "mkv": ("pcm_s16le", 16000, 4, "4.0", 1e-4),
    "mov": ("pcm_f32le", 48000, 6, "5.1", 1e-6),
    "avi": ("pcm_s16le", 44100, 2, "stereo", 1e-4),
    "mp4": ("aac", 48000, 2, "stereo", 0.1),
    "webm": ("libopus", 48000, 2, "stereo", 0.1),
}


def relative_error(read: np.ndarray, written: np.ndarray) -> float:
    return float(np.sqrt(np.mean((read - written) ** 2) / np.mean(written**2)))


@pytest.mark.parametrize("suffix", AUDIO_TRACKS)
def test_all_channels_of_an_audio_track_are_read_at_their_times(tmp_path: Path, suffix: str) -> None:
    codec, rate, channels, layout, tolerance = AUDIO_TRACKS[suffix]
    samples = chirp(channels, rate)
    path = video_with_audio(tmp_path / f"talk.{suffix}", samples, codec, rate, layout)
    read, read_rate = read_audio_track(path)
    assert read_rate == rate
    assert read.dtype == np.float32
    assert read.shape[0] == channels
    assert read.shape[1] == pytest.approx(samples.shape[1], abs=2100)
    assert relative_error(read[:, 2400:90000], samples[:, 2400:90000]) < tolerance  # A codec takes a moment to begin.
    for start, stop in [(0.0, 0.3), (0.1, 0.9), (1.0, 1.5)]:
        part, _ = read_audio_track(path, start, stop)
        np.testing.assert_allclose(part, read[:, round(start * rate) : round(stop * rate)], atol=1e-3)
    info = audio_track_info(path)
    assert info is not None
    assert (info.channels, info.sample_rate) == (channels, rate)
    assert info.seconds == pytest.approx(2.0, abs=0.06)
    assert media_info(path).audio == info


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_audio_that_starts_later_than_the_video_is_read_at_its_time(tmp_path: Path, suffix: str) -> None:
    samples = chirp(1, 16000, 1.0)
    path = video_with_audio(tmp_path / f"late.{suffix}", samples, "pcm_s16le", 16000, "mono", late_s=0.5)
    read, _ = read_audio_track(path)
    assert not read[0, :7900].any()
    np.testing.assert_allclose(read[0, 8000:24000], samples[0], atol=0.06)  # a tick of Matroska is 16 samples


def test_a_video_without_audio_is_reported(videos: dict[str, Path]) -> None:
    assert audio_track_info(videos["mp4"]) is None
    with pytest.raises(FarfeelError, match="has video but no audio"):
        read_audio_track(videos["mp4"])


def test_a_call_that_changes_its_picture_size_keeps_the_first_one(tmp_path: Path) -> None:
    sizes = {"small": (48, 64), "large": (96, 128)}
    parts = [
        write_video(tmp_path / f"{i}.ts", [counter(i, *size)] * 10, "mpeg2video")
        for i, size in enumerate(sizes.values())
    ]
    path = tmp_path / "call.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert read_frames(path, [0.0, 0.2, 0.39]).pixels.shape == (3, 48, 64, 3)


def test_a_video_written_by_farfeel_is_read(tmp_path: Path) -> None:
    video_files.write_video(tmp_path / "own.mp4", np.stack([counter(i) for i in range(20)]), fps=12.5)
    result = read_frames(tmp_path / "own.mp4", [0.0, 0.8, 1.55])
    assert [number(picture) for picture in result.pixels] == [0, 10, 19]


@pytest.mark.skipif(not (DATA / "ravdess-av").is_dir(), reason="no RAVDESS videos here")
def test_real_videos_are_read() -> None:
    for path in sorted((DATA / "ravdess-av").rglob("*.mp4")):
        info = media_info(path)
        assert info.video is not None
        assert info.audio is not None
        assert info.seconds > 3
        result = read_frames(path, [0.1, 1.0, 3.0])
        assert result.pixels.shape == (3, info.video.height, info.video.width, 3)
        read, rate = read_audio_track(path)
        assert read.shape[1] / rate == pytest.approx(info.audio.seconds, abs=0.1)
