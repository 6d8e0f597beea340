"""Laws of audio files: channels, delays and levels are kept. A file that is not audio gives a one-line error."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from farfeel.corpora.video_files import write_video
from farfeel.media import audio as audio_module
from farfeel.media.audio import MAX_SECONDS, audio_info, read_audio, resample
from farfeel.types import FarfeelError

RATE = 16000
CONTAINERS = {  # suffix and format: largest error of one sample
    ("wav", "PCM_16"): 2.0**-15,
    ("wav", "PCM_24"): 2.0**-23,
    ("wav", "PCM_32"): 2.0**-23,
    ("wav", "FLOAT"): 0.0,
    ("wav", "DOUBLE"): 0.0,
    ("flac", "PCM_16"): 2.0**-15,
    ("flac", "PCM_24"): 2.0**-23,
    ("aiff", "PCM_16"): 2.0**-15,
    ("w64", "PCM_24"): 2.0**-23,
}


def noise(channels: int = 1, seconds: float = 1.0, sample_rate: int = RATE, seed: int = 1) -> np.ndarray:
    """(M, T) float32"""
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (channels, round(seconds * sample_rate))).astype(np.float32)


def speech_band(channels: int, sample_rate: int, seconds: float = 1.0) -> np.ndarray:
    """(M, T) noise below 3 kHz, which every rate here carries."""
    spectrum = np.fft.rfft(noise(channels, seconds, sample_rate))
    spectrum[:, np.fft.rfftfreq(round(seconds * sample_rate), 1 / sample_rate) > 3000] = 0
    return np.fft.irfft(spectrum).astype(np.float32)


def write(path: Path, samples: np.ndarray, sample_rate: int = RATE, subtype: str | None = "FLOAT") -> Path:
    soundfile.write(path, samples.T, sample_rate, subtype=subtype)
    return path


def cut_in_half(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def wav_header(stated_bytes: int, sample_rate: int = 8000) -> bytes:
    riff = struct.pack("<4sI4s", b"RIFF", min(stated_bytes + 36, 2**32 - 1), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", stated_bytes)


@pytest.mark.parametrize(("suffix", "subtype"), CONTAINERS)
def test_every_container_gives_its_samples_back(tmp_path: Path, suffix: str, subtype: str) -> None:
    samples = noise(channels=3)
    read = read_audio(write(tmp_path / f"clip.{suffix}", samples, subtype=subtype), RATE)
    assert read.dtype == np.float32
    assert read.shape == samples.shape
    np.testing.assert_allclose(read, samples, atol=CONTAINERS[suffix, subtype])


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_containers_keep_channels_length_and_level(tmp_path: Path, suffix: str) -> None:
    samples = speech_band(2, RATE) * np.array([[1.0], [0.5]], dtype=np.float32)
    read = read_audio(write(tmp_path / f"clip.{suffix}", samples, subtype=None), RATE)
    assert read.shape == samples.shape
    np.testing.assert_allclose(np.std(read, axis=1), np.std(samples, axis=1), rtol=0.1)


@given(channels=st.integers(1, 32))
def test_all_channels_are_kept_in_their_order(tmp_path_factory: pytest.TempPathFactory, channels: int) -> None:
    samples = noise(channels, seconds=0.1)
    path = write(tmp_path_factory.mktemp("channels") / "clip.wav", samples)
    assert audio_info(path).channels == channels
    np.testing.assert_array_equal(read_audio(path, RATE), samples)


@given(
    from_rate=st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000]),
    to_rate=st.sampled_from([8000, 16000, 24000, 44100]),
    delay_ms=st.integers(0, 20),
)
def test_resampling_keeps_delays_and_levels_between_channels(from_rate: int, to_rate: int, delay_ms: int) -> None:
    source = speech_band(1, from_rate)[0]
    delay = round(delay_ms / 1000 * from_rate)
    microphones = np.stack([source, 0.5 * np.roll(source, delay)])
    resampled = resample(microphones, from_rate, to_rate)
    assert resampled.shape[1] == pytest.approx(source.size * to_rate / from_rate, abs=1)
    correlation = np.fft.irfft(np.fft.rfft(resampled[1]) * np.conj(np.fft.rfft(resampled[0])), resampled.shape[1])
    assert int(correlation.argmax()) == pytest.approx(delay / from_rate * to_rate, abs=0.51)
    inner = resampled[:, resampled.shape[1] // 4 : -resampled.shape[1] // 4]  # beyond the filter's edges
    assert np.std(inner[1]) / np.std(inner[0]) == pytest.approx(0.5, rel=0.02)
    assert np.std(inner[0]) == pytest.approx(np.std(source), rel=0.1)


def test_resampling_there_and_back_is_the_identity_within_the_band() -> None:
    source = speech_band(2, RATE)
    back = resample(resample(source, RATE, 44100), 44100, RATE)
    np.testing.assert_allclose(back[:, 2000:-2000], source[:, 2000:-2000], atol=1e-4)


@given(cuts=st.lists(st.floats(0.11, 0.5), min_size=1, max_size=5))
def test_adjacent_spans_share_no_sample_and_lose_none(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[float]
) -> None:
    samples = noise(2, seconds=sum(cuts) + 0.2)
    path = write(tmp_path_factory.mktemp("spans") / "clip.wav", samples)
    ends = [float(end) for end in np.cumsum(cuts)]
    spans = [read_audio(path, RATE, start, end) for start, end in zip([0.0, *ends], [*ends, None], strict=True)]
    np.testing.assert_array_equal(np.concatenate(spans, axis=1), samples)


def test_a_span_begins_and_ends_at_its_samples(tmp_path: Path) -> None:
    samples = noise(seconds=2)
    path = write(tmp_path / "clip.wav", samples)
    np.testing.assert_array_equal(read_audio(path, RATE, 0.25, 1.5), samples[:, 4000:24000])
    np.testing.assert_array_equal(read_audio(path, RATE, 1.0, 99.0), samples[:, 16000:])


@pytest.mark.parametrize(("suffix", "subtype"), [*CONTAINERS, ("mp3", None)])
def test_a_file_cut_in_half_is_one_line(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    samples = speech_band(2, RATE, seconds=3) if suffix == "mp3" else noise(2, seconds=3)
    path = cut_in_half(write(tmp_path / f"clip.{suffix}", samples, subtype=subtype))
    with pytest.raises(FarfeelError) as raised:
        read_audio(path, RATE)
    message = str(raised.value)
    assert message.startswith(f"{path} ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    assert "copy" in message


def test_a_cut_wav_is_known_by_its_header_alone(tmp_path: Path) -> None:
    path = cut_in_half(write(tmp_path / "clip.wav", noise(), subtype="PCM_16"))
    with pytest.raises(FarfeelError, match="is cut off: 15978 of 32000 bytes"):
        audio_info(path)


@pytest.mark.parametrize("stated", [2**32 - 1, 2**32 - 37, 2**31 - 1, 0x7FFFF000])
def test_a_wav_from_a_pipe_without_a_length_in_its_header_is_read(tmp_path: Path, stated: int) -> None:
    samples = (noise(sample_rate=8000)[0] * 32767).astype("<i2")
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav_header(stated) + samples.tobytes())
    np.testing.assert_allclose(read_audio(path, 8000)[0], samples / 32768, atol=1e-6)


def test_three_hours_are_refused_before_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "meeting.wav"
    size = 3 * 3600 * 8000 * 2
    with path.open("wb") as file:
        file.write(wav_header(size))
        file.truncate(44 + size)  # sparse: takes no space
    monkeypatch.setattr(audio_module.soundfile.SoundFile, "read", lambda *args, **kwargs: pytest.fail("decoded"))
    with pytest.raises(FarfeelError, match="lasts 180 minutes, expected at most 10; cut it"):
        read_audio(path, RATE)
    assert audio_info(path).seconds == 3 * 3600 > MAX_SECONDS


def test_a_span_of_a_long_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", np.repeat(noise(seconds=1, sample_rate=8000), 700, axis=1), 8000, "PCM_16")
    assert read_audio(path, 8000, 650.0, 652.0).shape == (1, 16000)


BAD = {
    "text": (lambda path: path.write_text("no audio\n" * 50), "cannot be read as audio"),
    "empty": (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "silent": (lambda path: write(path, np.zeros((1, RATE), dtype=np.float32)), "is silent"),
    "nan": (lambda path: write(path, np.full((1, RATE), np.nan, dtype=np.float32)), "contains NaN or infinite samples"),
    "infinite": (lambda path: write(path, np.full((1, RATE), np.inf, dtype=np.float32)), "contains NaN or infinite"),
    "8-bit": (lambda path: write(path, noise(), subtype="PCM_U8"), "is 8-bit audio, expected 16 bits"),
    "one sample": (lambda path: write(path, noise()[:, :1]), "has 0.1 ms of audio, expected at least 100 ms"),
    "no sample": (lambda path: write(path, noise()[:, :0]), "has 0.0 ms of audio"),
    "folder": (lambda path: path.mkdir(), "is a folder, expected an audio file"),
    "absent": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("folder", ["plain", "with: colon"])
def test_a_bad_file_is_one_line_that_names_it_once(tmp_path: Path, kind: str, folder: str) -> None:
    make, expected = BAD[kind]
    path = tmp_path / folder / "clip.wav"
    path.parent.mkdir()
    make(path)
    with pytest.raises(FarfeelError, match=expected) as raised:
        read_audio(path, RATE)
    message = str(raised.value)
    assert message.startswith(f"{path} ")
    assert message.count("clip.wav") == 1
    assert "\n" not in message


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="is not valid UTF-8; rename the file"):
        audio_info(tmp_path / "na\udcffme.wav")


def video_with_audio(path: Path, samples: np.ndarray, codec: str, form: str) -> Path:
    """Write (M, T) samples at RATE to a container, with a small video if the format allows one."""
    layout = {1: "mono", 2: "stereo", 4: "4.0"}[len(samples)]
    with av.open(str(path), "w", format=form) as output:
        video = None
        if form not in ("adts", "ipod"):
            video = output.add_stream("flv" if form == "flv" else "mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = output.add_stream(codec, rate=RATE, layout=layout)
        resampler = av.AudioResampler(format=audio.format.name, layout=layout, rate=RATE)
        if video is not None:
            for _ in range(10):
                output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            output.mux(video.encode(None))
        step = audio.codec_context.frame_size or 1024
        for start in range(0, samples.shape[1], step):
            block = np.ascontiguousarray(samples[:, start : start + step])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
            for converted in resampler.resample(frame):
                output.mux(audio.encode(converted))
        output.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    ("form", "codec", "channels"),
    [
        *[("mp4", "aac", 2), ("ipod", "aac", 1), ("adts", "aac", 2), ("flv", "aac", 1), ("avi", "pcm_s16le", 2)],
        *[("matroska", "pcm_s16le", 4), ("matroska", "flac", 2), ("mov", "pcm_s24le", 4)],
    ],
)
def test_the_audio_track_of_a_video_is_read_whatever_the_file_is_called(
    tmp_path: Path, form: str, codec: str, channels: int
) -> None:
    samples = speech_band(channels, RATE)
    path = video_with_audio(tmp_path / "clip.wav", samples, codec, form)
    info = audio_info(path)
    assert (info.channels, info.sample_rate) == (channels, RATE)
    assert info.seconds == pytest.approx(1.0, abs=0.15)
    assert info.by_ffmpeg
    read = read_audio(path, RATE)
    assert read.dtype == np.float32
    assert read.shape[0] == channels
    lossy = codec == "aac"
    late = 1024 if form in ("adts", "flv") else 0  # They do not state that the AAC encoder began a block early.
    length = 14000
    difference = read[:, late : late + length] - samples[:, :length]
    assert np.std(difference[:, 2000:]) < (0.3 if lossy else 1e-3) * np.std(samples)
    span = read_audio(path, RATE, 0.25, 0.75)
    np.testing.assert_allclose(span, read[:, 4000:12000], atol=1e-4)


@pytest.mark.parametrize("form", ["matroska", "mp4", "flv"])
def test_audio_that_ends_before_its_video_is_not_cut_off(tmp_path: Path, form: str) -> None:
    path = video_with_audio(tmp_path / "clip", speech_band(1, RATE, 0.5), "aac", form)
    early = 1024 if form == "flv" else 0  # FLV does not state that the AAC encoder began a block early.
    assert read_audio(path, RATE).shape[1] == pytest.approx(early + 8000, abs=1100)


def test_a_video_without_audio_is_one_line(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", np.zeros((5, 48, 64, 3), np.uint8), fps=10)
    with pytest.raises(FarfeelError, match="has video but no audio, expected an audio track; use a file with audio"):
        read_audio(tmp_path / "video.mp4", RATE)


def test_eight_bit_audio_in_a_video_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="is 8-bit audio"):
        read_audio(video_with_audio(tmp_path / "old.avi", noise(), "pcm_u8", "avi"), RATE)


def test_a_video_with_a_cut_off_audio_track_is_one_line(tmp_path: Path) -> None:
    path = cut_in_half(video_with_audio(tmp_path / "clip.mkv", noise(2, seconds=3), "pcm_s16le", "matroska"))
    with pytest.raises(FarfeelError, match=r"is cut off: .* samples; copy the file again"):
        read_audio(path, RATE)
    path = cut_in_half(video_with_audio(tmp_path / "clip.mp4", noise(2, seconds=3), "aac", "mp4"))
    with pytest.raises(FarfeelError, match="cannot be read as audio"):  # its index is at the end
        read_audio(path, RATE)
