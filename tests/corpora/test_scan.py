"""A scan says what is there and what is not; a manifest keeps it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from farfeel.corpora import get_corpus
from farfeel.corpora.readers.ravdess import RAVDESS
from farfeel.corpora.scan import load_clips, read_manifest, scan, write_manifest
from farfeel.types import Clip, FarfeelError

Write = Callable[..., Path]
Real = Callable[[str], Path]
NAME = "03-01-05-01-01-01-07"


def test_real_ravdess_has_60_clips_of_each_of_21_actors(real: Real) -> None:
    report = scan(RAVDESS, real("ravdess"))
    assert len(report.clips) == 1260
    assert set(Counter(clip.speaker for clip in report.clips).values()) == {60}
    assert report.absent_speakers == ("22", "23", "24")
    assert (report.missing, report.unreadable, report.duplicates, report.skipped) == ((), (), (), {})
    assert report.seconds == pytest.approx(sum(clip.end_s or 0 for clip in report.clips))


def test_real_published_ravdess_files_are_partly_stereo(real: Real) -> None:
    report = scan(RAVDESS, real("ravdess-original"))
    assert report.channels == {1: 3, 2: 5}
    assert report.sample_rates == {48000: 8}
    assert len(report.missing) == 3 * 60 - 8  # of the three actors that are there


@pytest.mark.parametrize(
    ("name", "folder", "clips", "speakers"),
    [("tess", "tess", 700, 2), ("emodb", "emodb", 535 - 81, 10), ("urdu", "urdu", 400, 29)],
)
def test_real_corpora_are_read_whole(real: Real, name: str, folder: str, clips: int, speakers: int) -> None:
    report = scan(get_corpus(name), real(folder))
    assert len(report.clips) + len(report.unreadable) == clips
    assert {clip.speaker for clip in report.clips} == set(get_corpus(name).speakers)
    assert len(get_corpus(name).speakers) == speakers
    assert {clip.emotion for clip in report.clips} == set(get_corpus(name).emotions)


def test_real_videos_join_audio_files_of_the_same_name(real: Real, write: Write, tmp_path: Path) -> None:
    report = scan(RAVDESS, real("ravdess-av"))
    assert [clip.audio == clip.video for clip in report.clips] == [True, True]
    assert report.unreadable == ()
    assert "2 clips with video" in report.summary().splitlines()
    video = report.clips[0]
    assert video.video is not None
    (tmp_path / "film.mp4").symlink_to(video.video)
    (tmp_path / video.video.name).symlink_to(video.video)
    write(tmp_path / f"{video.id}.wav")
    (clip,) = scan(RAVDESS, tmp_path).clips
    assert (clip.id, clip.speaker, clip.emotion) == (video.id, video.speaker, video.emotion)
    assert clip.video == tmp_path / video.video.name
    assert clip.audio == tmp_path / f"{video.id}.wav"


def test_a_duplicate_is_counted_once_and_named(write: Write, tmp_path: Path) -> None:
    kept = write(tmp_path / "Actor_07" / f"{NAME}.wav")
    copies = (write(tmp_path / "zip" / "Actor_07" / f"{NAME}.flac"), write(tmp_path / "zip" / f"{NAME}.wav"))
    report = scan(RAVDESS, tmp_path)
    assert [clip.audio for clip in report.clips] == [kept]
    assert report.duplicates == tuple(sorted(copies))
    assert "2 duplicate files" in report.summary()


def test_unreadable_files_are_reported_and_not_fatal(write: Write, tmp_path: Path) -> None:
    good = write(tmp_path / f"{NAME}.wav")
    (tmp_path / "03-01-05-01-01-02-07.wav").touch()
    (tmp_path / "03-01-05-01-02-01-07.wav").write_bytes(b"RIFF, or not")
    write(tmp_path / "03-01-05-01-02-02-07.wav", seconds=0.001)
    report = scan(RAVDESS, tmp_path)
    assert [clip.audio for clip in report.clips] == [good]
    assert [path.name[12:17] for path, _ in report.unreadable] == ["01-02", "02-01", "02-02"]
    for path, reason in report.unreadable:
        assert str(path) in reason
        assert "\n" not in reason
        assert reason in report.summary()


def test_song_is_left_out_and_counted(write: Write, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.wav")
    write(tmp_path / "03-02-05-01-01-01-07.wav")
    report = scan(RAVDESS, tmp_path)
    assert [clip.id for clip in report.clips] == [NAME]
    assert report.skipped == {"song": 1}


def test_a_video_without_audio_is_a_clip_as_long_as_the_video(write: Write, video: Write, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.wav")
    mute = video(tmp_path / "02-01-04-01-01-01-07.mp4", frames=12, fps=10)
    silent = video(tmp_path / "01-01-05-01-01-02-07.mp4", frames=5, fps=10)  # The name promises audio.
    report = scan(RAVDESS, tmp_path)
    assert [(clip.id, clip.audio, clip.video) for clip in report.clips] == [
        ("03-01-04-01-01-01-07", None, mute),
        (NAME, tmp_path / f"{NAME}.wav", None),
        ("03-01-05-01-01-02-07", None, silent),
    ]
    assert [clip.end_s for clip in report.clips] == pytest.approx([1.2, 0.3, 0.5])
    assert report.seconds == pytest.approx(2.0)
    assert (report.sample_rates, report.channels) == ({16000: 1}, {1: 1})
    for line in ("2 clips with video", "1 clips without video", "2 clips without audio"):
        assert line in report.summary().splitlines()
    assert not report.unreadable


def test_without_any_video_or_mute_clip_the_report_does_not_mention_them(write: Write, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.wav")
    assert "without" not in scan(RAVDESS, tmp_path).summary()


def test_an_unreadable_video_leaves_its_audio(write: Write, tmp_path: Path) -> None:
    audio = write(tmp_path / f"{NAME}.wav")
    (tmp_path / f"02{NAME[2:]}.mp4").write_bytes(b"no film")
    (tmp_path / "02-01-04-01-01-01-07.mp4").write_bytes(b"no film either")
    report = scan(RAVDESS, tmp_path)
    assert [(clip.audio, clip.video) for clip in report.clips] == [(audio, None)]
    assert len(report.unreadable) == 2
    assert all(str(path) in reason and "\n" not in reason for path, reason in report.unreadable)


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * '0'}\nsize 72862\n"
    for name in ("AudioWAV/1001_DFA_ANG_XX.wav", "VideoFlash/1001_DFA_ANG_XX.flv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(pointer)
    report = scan(get_corpus("crema-d"), tmp_path)
    assert not report.clips
    assert len(report.unreadable) == 2
    assert all("Git LFS pointer" in reason and "git lfs pull" in reason for _, reason in report.unreadable)


def test_of_many_unreadable_files_the_summary_names_some(tmp_path: Path) -> None:
    for name in RAVDESS.expected[:60]:
        (tmp_path / f"{name}.wav").touch()
    lines = scan(RAVDESS, tmp_path).summary().splitlines()
    assert lines[-1] == "unreadable: 40 more"
    assert sum(line.startswith("unreadable: ") for line in lines) == 21


def test_emotions_not_asked_for_are_neither_clips_nor_missing(write: Write, tmp_path: Path) -> None:
    for emotion in (3, 4, 5):
        write(tmp_path / f"03-01-0{emotion}-01-01-01-07.wav")
    report = scan(RAVDESS, tmp_path, emotions=("sad", "angry"))
    assert report.counts == {"sad": {"07": 1}, "angry": {"07": 1}}
    assert report.skipped == {"happy not requested": 1}
    assert len(report.missing) == 2 * 8 - 2
    with pytest.raises(FarfeelError, match="did you mean angry"):
        scan(RAVDESS, tmp_path, emotions=("angri",))
    with pytest.raises(FarfeelError, match="no usable clip"):
        scan(RAVDESS, tmp_path, emotions=("calm",))


def test_headers_are_counted_and_progress_reaches_the_end(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "03-01-05-01-01-01-07.wav", sample_rate=48000, channels=2, seconds=0.5)
    write(tmp_path / "03-01-05-01-01-02-07.flac", sample_rate=16000, seconds=0.25)
    steps: list[tuple[int, int]] = []
    report = scan(RAVDESS, tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    assert (report.sample_rates, report.channels) == ({16000: 1, 48000: 1}, {1: 1, 2: 1})
    assert [clip.end_s for clip in report.clips] == [0.5, 0.25]


def test_a_folder_of_another_corpus_is_one_line_that_names_it(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "wav" / "15a05Wa.wav")
    with pytest.raises(FarfeelError) as caught:
        scan(RAVDESS, tmp_path)
    assert "03-01-06-01-02-01-12.wav" in str(caught.value)
    assert "emodb" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_packed_or_empty_folder_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match=r"or get the files from https://zenodo"):
        scan(RAVDESS, tmp_path)
    (tmp_path / "Audio_Speech_Actors_01-24.zip").touch()
    with pytest.raises(FarfeelError, match="unpack Audio_Speech_Actors_01-24"):
        scan(RAVDESS, tmp_path)


def test_unfinished_and_hidden_files_are_no_clips(write: Write, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.wav")
    write(tmp_path / "._03-01-05-01-01-02-07.wav")
    write(tmp_path / ".speaker_01.123.partial" / "03-01-05-01-01-02-07.wav")
    write(tmp_path / ".hidden-03-01.wav")
    assert [clip.id for clip in RAVDESS.clips(tmp_path)] == [NAME]


def test_a_manifest_returns_the_same_clips(write: Write, video: Write, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root / "a" / f"{NAME}.wav")
    video(root / f"01{NAME[2:]}.mp4")
    video(root / "02-01-04-01-01-01-07.mp4")
    elsewhere = write(tmp_path / "other" / "03-01-05-01-01-02-07.wav")
    clips = [
        *scan(RAVDESS, root).clips,
        *(replace(clip, start_s=0.1, video_offset_s=2.5, face="left") for clip in RAVDESS.clips(elsewhere.parent)),
    ]
    write_manifest(clips, tmp_path / "clips.parquet", root)
    assert read_manifest(tmp_path / "clips.parquet") == clips
    assert load_clips(str(tmp_path / "clips.parquet")) == clips
    columns = [field.name for field in fields(Clip) if field.name != "more_audio"]  # these are in the column audio
    assert pq.read_schema(tmp_path / "clips.parquet").names == columns


def test_a_manifest_moves_with_its_data(write: Write, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write(old / "Actor_07" / f"{NAME}.wav")
    write_manifest(scan(RAVDESS, old).clips, tmp_path / "clips.parquet", old)
    old.rename(new)
    with pytest.raises(FarfeelError, match="name it with --root"):
        read_manifest(tmp_path / "clips.parquet")
    assert read_manifest(tmp_path / "clips.parquet", root=new) == list(scan(RAVDESS, new).clips)


def test_a_file_that_is_no_manifest_is_one_line(write: Write, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.wav")
    whole = tmp_path / "clips.parquet"
    write_manifest(scan(RAVDESS, tmp_path).clips, whole, tmp_path)
    table = pq.read_table(whole)
    pq.write_table(table.drop_columns(["speaker"]), tmp_path / "lacking.parquet")
    pq.write_table(table.replace_schema_metadata({"farfeel.manifest": '{"version": 99}'}), tmp_path / "newer.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "foreign.parquet")
    (tmp_path / "text.parquet").write_text("id,corpus")
    (tmp_path / "half.parquet").write_bytes(whole.read_bytes()[:-100])
    strange = [replace(clip, emotion="bored") for clip in scan(RAVDESS, tmp_path).clips]
    write_manifest(strange, tmp_path / "strange.parquet", tmp_path)
    write_manifest(
        [replace(clip, face="nose") for clip in scan(RAVDESS, tmp_path).clips], tmp_path / "f.parquet", tmp_path
    )
    for name, found in {
        "f": "faces nose",
        "lacking": "lacks the columns speaker",
        "newer": "version 99, expected 2",
        "foreign": "version none",
        "text": "cannot be read as Parquet",
        "half": "cannot be read as Parquet",
        "strange": "emotions bored",
        "nowhere": "does not exist",
    }.items():
        with pytest.raises(FarfeelError, match=found) as caught:
            load_clips(str(tmp_path / f"{name}.parquet"))
        assert "\n" not in str(caught.value)


def test_a_killed_manifest_writer_leaves_the_old_one(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / f"{NAME}.wav")
    clips = list(scan(RAVDESS, tmp_path / "data").clips)
    path = tmp_path / "clips.parquet"
    write_manifest(clips, path, tmp_path / "data")

    def killed(table: object, where: Path) -> None:
        where.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        write_manifest([], path, tmp_path / "data")
    assert read_manifest(path) == clips
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clips.parquet", "data"]


def test_clips_load_by_corpus_name_with_a_root_only(write: Write, tmp_path: Path) -> None:
    write(tmp_path / f"{NAME}.wav")
    assert load_clips("ravdess", tmp_path) == list(scan(RAVDESS, tmp_path).clips)
    with pytest.raises(FarfeelError, match="--root DIR"):
        load_clips("ravdess")
    (tmp_path / f"{NAME}.wav").write_bytes(b"")
    with pytest.raises(FarfeelError, match="none of 1 files"):
        load_clips("ravdess", tmp_path)
