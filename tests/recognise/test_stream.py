"""Laws of streams: the size of the blocks and the rate of the file do not matter; dead microphones are left out; a
stream of frames equals the timeline of the video."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from farfeel.corpora.video_files import write_video
from farfeel.media.audio import read_audio
from farfeel.media.video import media_info, read_frames
from farfeel.recipe import Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.stream import LiveCamera
from farfeel.types import FarfeelError, Prediction
from untrained import make

Small = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recognizer(small: Small) -> Recognizer:
    return make(small("microphones.front_end=mvdr"))


@pytest.fixture(scope="module")
def talk(voices: Path) -> np.ndarray:
    """(3, T) at 16 kHz: voices with pauses, each microphone at a level of its own; 5.03 s."""
    clips = [read_audio(path, 16000)[0] for path in sorted(voices.rglob("*.flac"))[:3]]
    rng = np.random.default_rng(1)
    line = rng.normal(0, 1e-4, (3, 80501)).astype(np.float32)
    for start, clip in zip((4000, 30000, 60000), clips, strict=True):
        part = clip[: 80501 - start][:16000]
        line[:, start : start + len(part)] += np.array([[1.0], [0.7], [0.4]], np.float32) * part
    return line


def run(recognizer: Recognizer, audio: np.ndarray, block: int, rate: int = 16000) -> list[Prediction]:
    stream = recognizer.stream(rate, len(audio), step_s=0.5)
    found = []
    for start in range(0, audio.shape[1], block):
        found += stream.push(audio[:, start : start + block])
    return found + stream.close()


def assert_equal(ours: list[Prediction], theirs: list[Prediction], atol: float = 1e-5) -> None:
    assert [(p.start_s, p.end_s, p.microphones, p.warnings, p.speech_share) for p in ours] == [
        (p.start_s, p.end_s, p.microphones, p.warnings, p.speech_share) for p in theirs
    ]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=atol)


@pytest.mark.parametrize("block", [1, 160, 4001, 64000])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_stream_equals_the_timeline_for_any_block_size(
    recognizer: Recognizer, talk: np.ndarray, tmp_path: Path, block: int, rate: int
) -> None:
    audio = talk if block > 1 else talk[:1, :40000]
    soundfile.write(tmp_path / "talk.wav", audio.T, rate, subtype="FLOAT")
    whole = recognizer.timeline(tmp_path / "talk.wav", step_s=0.5)
    assert whole.seconds == pytest.approx(audio.shape[1] / rate, abs=0.001)
    assert any(p.probabilities for p in whole.predictions)
    assert_equal(run(recognizer, audio, block, rate), list(whole.predictions))


def test_windows_lie_on_the_grid_of_steps_and_the_last_ends_with_the_recording(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    found = run(recognizer, talk, 5000)
    window_s = recognizer.recipe.audio.seconds
    for index, prediction in enumerate(found[:-1]):
        assert (prediction.start_s, prediction.end_s) == pytest.approx((0.5 * index, 0.5 * index + window_s))
    assert found[-1].end_s == pytest.approx(talk.shape[1] / 16000, abs=0.25)


def test_a_recording_shorter_than_a_window_is_one_window(recognizer: Recognizer, talk: np.ndarray) -> None:
    (found,) = run(recognizer, talk[:, 4000:12000], 100)
    assert (found.start_s, found.end_s) == (0.0, 0.5)
    assert sum(found.probabilities) == pytest.approx(1)


def test_silence_is_not_classified(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(1)
    for noise in (np.zeros((2, 64000)), rng.normal(0, 1e-3, (2, 64000))):
        found = run(recognizer, noise, 4000)
        assert found
        assert [p.label for p in found] == [None] * len(found)
        assert {p.probabilities for p in found} == {()}


def test_a_microphone_that_dies_is_reported_once_and_left_out_and_so_is_its_return(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    broken = talk.copy()
    broken[1, 32000:56000] = 0.25  # stuck, not even silent
    found = run(recognizer, broken, 3000)
    reported = [warning for p in found for warning in p.warnings]
    assert len(reported) == 2
    assert reported[0].startswith("microphone 1 is silent and left out from ")
    assert reported[1].startswith("microphone 1 is back at ")
    assert {p.microphones for p in found} == {2, 3}
    without = run(recognizer, talk[[0, 2]], 3000)
    alike = [i for i, p in enumerate(found) if p.microphones == 2 and p.probabilities and without[i].probabilities]
    assert alike
    for i in alike:
        np.testing.assert_allclose(found[i].probabilities, without[i].probabilities, atol=1e-5)


def test_samples_that_are_no_numbers_are_a_dead_microphone(recognizer: Recognizer, talk: np.ndarray) -> None:
    broken = talk.copy()
    broken[2] = np.nan
    assert_equal(
        [p for p in run(recognizer, broken, 3000) if not p.warnings],
        [p for p in run(recognizer, np.where(np.arange(3)[:, None] == 2, 0, talk), 3000) if not p.warnings],
    )


def test_what_is_kept_does_not_grow(recognizer: Recognizer, talk: np.ndarray) -> None:
    stream = recognizer.stream(16000, 3)
    sizes = []
    for _ in range(6):
        stream.push(talk)
        sizes.append(stream._kept.nbytes + stream._pending.nbytes)
    most = (recognizer.recipe.audio.seconds + stream.step_s + 0.5) * 16000 * 3 * 4
    assert max(sizes) <= most


def test_a_stream_of_frames_equals_the_timeline_of_the_video(small: Small, talk: np.ndarray, tmp_path: Path) -> None:
    seeing = make(small("modalities=both", "video.crop=none"))
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    write_video(tmp_path / "film.mp4", pictures, 12.5)
    soundfile.write(tmp_path / "talk.wav", talk[:, :51200].T, 16000, subtype="FLOAT")
    film = read_frames(tmp_path / "film.mp4", list((np.arange(40) + 0.5) / 12.5))
    assert media_info(tmp_path / "film.mp4").video
    whole = seeing.timeline(tmp_path / "film.mp4", step_s=0.5, audio=tmp_path / "talk.wav")
    assert {"video"} < {part for p in whole.predictions for part in p.modalities}
    stream = seeing.stream(16000, 3, step_s=0.5)
    for pixels, time_s in zip(film.pixels, film.times_s, strict=True):
        stream.push_frame(pixels, time_s)
    found = stream.push(talk[:, :51200]) + stream.close()
    assert_equal(found, list(whole.predictions))


def test_a_video_without_audio_has_a_timeline(small: Small, tmp_path: Path) -> None:
    seeing = make(small("modalities=both", "video.crop=none"))
    rng = np.random.default_rng(1)
    write_video(tmp_path / "film.mp4", rng.integers(0, 255, (40, 64, 64, 3), dtype=np.uint8), 12.5)
    found = seeing.timeline(tmp_path / "film.mp4", step_s=0.5)
    assert {p.modalities for p in found.predictions} == {("video",)}
    assert found.predictions[-1].end_s == pytest.approx(3.2, abs=0.25)
    assert found.speech == ()


def test_audio_that_cannot_be_used_is_reported_once_in_a_timeline(small: Small, tmp_path: Path) -> None:
    seeing = make(small("modalities=both", "video.crop=none"))
    write_video(tmp_path / "film.mp4", np.random.default_rng(1).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8), 12.5)
    (tmp_path / "notes.wav").write_text("no audio")
    first, *rest = seeing.timeline(tmp_path / "film.mp4", step_s=0.5, audio=tmp_path / "notes.wav").predictions
    (warning,) = first.warnings
    assert warning.startswith("the audio is not used: ")
    assert rest
    assert not any(prediction.warnings for prediction in rest)


def test_a_camera_that_stops_is_no_longer_looked_at(small: Small) -> None:
    recipe = small("modalities=both", "video.crop=none")
    camera = LiveCamera(recipe)
    for i in range(10):
        camera.push(np.full((32, 32, 3), i, np.uint8), i / 10)
    window_s = recipe.audio.seconds
    assert camera.frames(0.0, window_s) is not None
    assert camera.frames(5.0, 5.0 + window_s) is None


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros((2, 10), np.float32), r"shape \(2, 10\), expected \(3, n\)"),
        (np.zeros(10, np.float32), r"shape \(1, 10\), expected \(3, n\)"),
    ],
)
def test_a_block_of_other_microphones_is_one_line(recognizer: Recognizer, block: np.ndarray, message: str) -> None:
    with pytest.raises(FarfeelError, match=message):
        recognizer.stream(16000, 3).push(block)


def test_what_comes_after_the_end_is_one_line(recognizer: Recognizer) -> None:
    stream = recognizer.stream(16000, 1)
    stream.close()
    assert stream.close() == []
    with pytest.raises(FarfeelError, match=r"came after close\(\)"):
        stream.push(np.zeros(10, np.float32))


@pytest.mark.parametrize("step_s", [0.0, -1.0, 0.01, float("nan"), float("inf")])
def test_a_step_that_is_none_is_one_line(recognizer: Recognizer, step_s: float, voices: Path) -> None:
    with pytest.raises(FarfeelError, match=r"a step of .* s is requested, expected 0.1 s or more"):
        recognizer.stream(16000, 1, step_s)
    with pytest.raises(FarfeelError, match=r"a step of .* s is requested, expected 0.1 s or more"):
        recognizer.timeline(next(iter(voices.rglob("*.mp4"))), step_s)


def test_recordings_that_predict_refuses_have_no_timeline_either(recognizer: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "coarse.wav", np.zeros(16000), 16000, subtype="PCM_U8")
    soundfile.write(tmp_path / "short.wav", np.zeros(16), 16000)
    for name, message in (("coarse", "is 8-bit audio"), ("short", "has 1.0 ms of audio, expected at least 100 ms")):
        with pytest.raises(FarfeelError, match=message):
            recognizer.timeline(tmp_path / f"{name}.wav")
