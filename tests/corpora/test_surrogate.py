"""Surrogate videos keep the parts of a split apart, and follow from their arguments alone."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from farfeel.cli import main
from farfeel.corpora.readers.stills import STILLS
from farfeel.corpora.scan import load_clips, scan
from farfeel.corpora.splits import PARTS, split_clips
from farfeel.corpora.surrogate import make_surrogate, pair
from farfeel.media.video import media_info
from farfeel.types import Clip, FarfeelError

Write = Callable[..., Path]
SPLIT = "folds-3:1"
EMOTIONS = ("neutral", "happy")


@pytest.fixture
def faces(tmp_path: Path) -> list[Clip]:
    """Stills of two emotions: 12 of train, 40 of validation, of which two are copies of others."""
    for emotion, seed in zip(EMOTIONS, (0, 1000), strict=True):
        for number in range(52):
            copied = {20: 3, 30: 25}.get(number, number)  # one of train, one of validation
            place = tmp_path / "faces" / ("train" if number < 12 else "validation") / emotion / f"{number:02d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            greys = np.random.default_rng(seed + copied).integers(0, 256, (48, 48), dtype=np.uint8)
            cv2.imwrite(str(place), greys)
    return list(scan(STILLS, tmp_path / "faces").clips)


@pytest.fixture
def speech(write: Write, tmp_path: Path) -> list[Clip]:
    """Six actors, neutral, calm and happy twice each."""
    for actor in range(1, 7):
        for emotion in (1, 2, 3):
            for take in (1, 2):
                write(tmp_path / "speech" / f"03-01-0{emotion}-01-01-0{take}-0{actor}.wav", seconds=0.42)
    return load_clips("ravdess", tmp_path / "speech")


def content(still: Clip) -> bytes:
    assert still.video is not None
    return still.video.read_bytes()


def test_no_picture_is_on_two_sides_of_the_split(speech: list[Clip], faces: list[Clip]) -> None:
    pairs = pair(speech, faces, SPLIT, seed=1)
    parts_of = defaultdict(set)
    for one in pairs:
        parts_of[content(one.still)].add(one.part)
        assert one.still.id.startswith("train/" if one.part == "train" else "validation/")
    assert {len(parts) for parts in parts_of.values()} == {1}
    parts = split_clips(speech, SPLIT)
    for part in PARTS:
        assert {one.clip.id for one in pairs if one.part == part} == {clip.id for clip in getattr(parts, part)}


def test_no_still_is_shared_by_two_speakers_where_there_are_enough(speech: list[Clip], faces: list[Clip]) -> None:
    speakers_of = defaultdict(set)
    for one in pair(speech, faces, SPLIT, seed=1):
        speakers_of[content(one.still)].add(one.clip.speaker)
    assert {len(speakers) for speakers in speakers_of.values()} == {1}


def test_a_face_has_the_emotion_of_the_voice_and_calm_is_neutral(speech: list[Clip], faces: list[Clip]) -> None:
    found = {(one.clip.emotion, one.still.emotion) for one in pair(speech, faces, SPLIT, seed=1)}
    assert found == {("neutral", "neutral"), ("calm", "neutral"), ("happy", "happy")}


@pytest.mark.parametrize("enough", [1, 5, 12])
def test_a_speaker_uses_his_stills_evenly(speech: list[Clip], faces: list[Clip], enough: int) -> None:
    fewer = [still for still in faces if still.id.startswith("validation") or int(still.id[-2:]) < enough]
    uses: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in pair(speech, fewer, SPLIT, seed=1):
        uses[one.clip.speaker, one.still.emotion][one.still.id] += 1
    assert all(max(counts.values()) - min(counts.values()) <= 1 for counts in uses.values())


def test_the_pairs_do_not_depend_on_the_order_of_clips_and_stills(speech: list[Clip], faces: list[Clip]) -> None:
    assert pair(speech[::-1], faces[::-1], SPLIT, seed=1) == pair(speech, faces, SPLIT, seed=1)
    assert pair(speech, faces, SPLIT, seed=2) != pair(speech, faces, SPLIT, seed=1)


def test_an_emotion_without_stills_is_one_line(speech: list[Clip], faces: list[Clip]) -> None:
    with pytest.raises(FarfeelError, match="no still of happy for the train part"):
        pair(speech, [still for still in faces if still.emotion == "neutral"], SPLIT, seed=1)


def test_the_corpus_is_called_surrogate_and_videos_are_as_long_as_their_audio(
    speech: list[Clip], faces: list[Clip], tmp_path: Path
) -> None:
    speech = [*speech[:-1], Clip(**{**vars(speech[-1]), "start_s": 0.1, "end_s": 0.4})]
    pairs = make_surrogate(speech, faces, SPLIT, tmp_path / "out")
    clips = load_clips(str(tmp_path / "out/manifest.parquet"))
    for clip, spoken in zip(clips, speech, strict=True):
        assert (clip.corpus, clip.face) == ("ravdess-surrogate", "whole")
        for kept in ("id", "speaker", "emotion", "start_s", "end_s", "sentence", "intensity"):
            assert getattr(clip, kept) == getattr(spoken, kept)
        assert clip.audio is not None
        assert spoken.audio is not None
        assert clip.audio.samefile(spoken.audio)
        assert clip.video == tmp_path / "out/films" / clip.speaker / f"{clip.id}.mp4"
        video = media_info(clip.video).video
        assert video is not None
        assert (video.width, video.height) == (96, 96)
        assert video.seconds == pytest.approx((clip.end_s or 0) - clip.start_s, abs=0.06)
    assert [clip.video_offset_s for clip in clips] == [0.0] * (len(clips) - 1) + [-0.1]
    table = pq.read_table(tmp_path / "out/pairs.parquet").to_pylist()
    assert table == [{"clip": one.clip.id, "still": one.still.id, "part": one.part} for one in pairs]
    assert split_clips(clips, SPLIT).test


def test_a_killed_run_resumes_to_the_same_bytes(speech: list[Clip], faces: list[Clip], tmp_path: Path) -> None:
    def killed(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    whole, out = tmp_path / "whole", tmp_path / "out"
    make_surrogate(speech, faces, SPLIT, whole, workers=1)
    with pytest.raises(KeyboardInterrupt):
        make_surrogate(speech, faces, SPLIT, out, workers=2, progress=killed)
    assert not out.exists()
    waiting = tmp_path / ".out.partial"
    left = waiting / "films/01/.03-01-01-01-01-01-01.mp4.99999999.partial"
    left.touch()
    os.utime(left, (0, 0))
    kept = {video.relative_to(waiting): video.stat().st_mtime_ns for video in waiting.rglob("*.mp4")}
    assert len(kept) >= 5
    (waiting / "films/01/03-01-01-01-01-01-01.mp4").unlink(missing_ok=True)  # the one that was being written
    make_surrogate(speech, faces, SPLIT, out, workers=2)
    kept.pop(Path("films/01/03-01-01-01-01-01-01.mp4"), None)
    assert {video: (out / video).stat().st_mtime_ns for video in kept} == kept
    assert not waiting.exists()
    assert not list(out.rglob(".*"))
    videos = sorted(video.relative_to(whole) for video in whole.rglob("*.mp4"))
    assert videos == sorted(video.relative_to(out) for video in out.rglob("*.mp4"))
    assert len(videos) == len(speech)
    for video in videos:
        assert (whole / video).read_bytes() == (out / video).read_bytes()


def test_a_folder_of_other_videos_or_files_is_refused(speech: list[Clip], faces: list[Clip], tmp_path: Path) -> None:
    make_surrogate(speech[:6] + speech[-24:], faces, SPLIT, tmp_path / "out")
    with pytest.raises(FarfeelError, match=r"other parameters \(pairs differs"):
        make_surrogate(speech, faces, SPLIT, tmp_path / "out")
    with pytest.raises(FarfeelError, match=r"other parameters \(pairs differs, seed 1, requested 2"):
        make_surrogate(speech[:6] + speech[-24:], faces, SPLIT, tmp_path / "out", seed=2)
    with pytest.raises(FarfeelError, match="choose another --out"):
        make_surrogate(speech, faces, SPLIT, tmp_path / "speech")


def test_the_command_reports_what_it_made_and_warns(
    speech: list[Clip], faces: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["surrogate", "--corpus", "ravdess", "--root", tmp_path / "speech", "--stills", tmp_path / "faces"]
    words += ["--split", SPLIT, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines()[:3]] == [[part, "12", "videos"] for part in PARTS]
    assert "no result on videos of people" in said.out
    assert f"data.split={SPLIT}" in said.err
