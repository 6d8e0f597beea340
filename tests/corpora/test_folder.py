"""Your own clips: folders and tables give emotion and speaker; faults are named, and what is unknown is reported."""

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from farfeel.corpora.readers.folder import FOLDER, speaker_note
from farfeel.corpora.scan import load_clips, read_manifest, scan, write_manifest
from farfeel.corpora.splits import split_clips
from farfeel.types import FarfeelError

Write = Callable[..., Path]
Film = Callable[..., Path]


@pytest.fixture
def table(write: Write, tmp_path: Path) -> Callable[..., Path]:
    """Rows → a root with that clips.csv and the one-second recordings a.wav and b.wav."""
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, seconds=1.0)

    def written(*rows: str, encoding: str = "utf-8") -> Path:
        (tmp_path / "clips.csv").write_bytes("\n".join(rows).encode(encoding))
        return tmp_path

    return written


@pytest.mark.parametrize(
    ("folder", "emotion"),
    [("angry", "angry"), ("Anger", "angry"), ("JOY", "happy"), ("happiness", "happy"), ("fear", "fearful"),
     ("surprise", "surprised"), ("sadness", "sad"), ("neutrality", "neutral"), ("Disgust", "disgust"),
     ("calm", "calm")],
)  # fmt: skip
def test_a_folder_may_be_named_by_the_emotion_or_its_noun_in_any_case(
    write: Write, tmp_path: Path, folder: str, emotion: str
) -> None:
    write(tmp_path / folder / "anna" / "door.wav")
    (clip,) = scan(FOLDER, tmp_path).clips
    assert (clip.id, clip.speaker, clip.emotion) == (f"{folder}/anna/door", "anna", emotion)


def test_folders_below_the_speaker_are_free(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "sad" / "ben" / "monday" / "1.wav")
    (clip,) = scan(FOLDER, tmp_path).clips
    assert (clip.id, clip.speaker) == ("sad/ben/monday/1", "ben")


def test_the_names_of_folders_above_the_root_say_nothing(write: Write, tmp_path: Path) -> None:
    root = tmp_path / "happy" / "mine"
    write(root / "sad" / "ben" / "1.wav")
    (clip,) = scan(FOLDER, root).clips
    assert (clip.emotion, clip.speaker) == ("sad", "ben")


def test_audio_and_video_of_one_name_are_one_clip_and_a_video_alone_is_a_clip(
    write: Write, video: Film, tmp_path: Path
) -> None:
    audio, video_file = write(tmp_path / "calm/ben/1.wav"), video(tmp_path / "calm/ben/1.mp4")
    alone = video(tmp_path / "calm/ben/2.mp4")
    first, second = scan(FOLDER, tmp_path).clips
    assert (first.audio, first.video) == (audio, video_file)
    assert (second.audio, second.video) == (None, alone)


def test_unknown_speakers_are_said_by_scan_load_and_manifest_and_can_still_be_divided(
    write: Write, tmp_path: Path
) -> None:
    for number in range(6):
        write(tmp_path / f"angry/take_{number}.wav")
    report = scan(FOLDER, tmp_path)
    assert len({clip.speaker for clip in report.clips}) == 6  # not one speaker called take
    assert "0 known speakers and unknown ones" in report.summary()
    assert "SPEAKERS UNKNOWN" in report.summary()
    notes: list[str] = []
    clips = load_clips("folder", tmp_path, notes.append)
    write_manifest(clips, tmp_path / "mine.parquet", tmp_path)
    load_clips(str(tmp_path / "mine.parquet"), None, notes.append)
    assert [note.partition(":")[0] for note in notes] == ["SPEAKERS UNKNOWN"] * 2
    assert "6 of 6 clips" in notes[0]
    parts = split_clips(clips, "folds-3:1")
    assert [len(parts.part(part)) for part in ("train", "val", "test")] == [2, 2, 2]


def test_known_speakers_are_not_parted_and_nothing_is_said(write: Write, tmp_path: Path) -> None:
    for speaker in ("anna", "ben", "cleo"):
        for emotion in ("happy", "sad"):
            write(tmp_path / emotion / speaker / "1.wav")
    notes: list[str] = []
    parts = split_clips(load_clips("folder", tmp_path, notes.append), "folds-3:1")
    assert [{clip.speaker for clip in parts.part(part)} for part in ("train", "val", "test")] == [
        {"cleo"}, {"ben"}, {"anna"},
    ]  # fmt: skip
    assert notes == []


def test_an_unknown_folder_beside_known_ones_is_left_out_with_a_note(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "happy/ben/1.wav")
    write(tmp_path / "angery/ben/1.wav")
    write(tmp_path / "2.wav")
    (tmp_path / "angery" / "notes.txt").touch()
    notes: list[str] = []
    assert len(load_clips("folder", tmp_path, notes.append)) == 1
    assert notes == [
        "left out: 1 file: in the folder angery, which is no emotion",
        "left out: 1 file: outside the emotions' folders",
    ]


def test_unknown_folders_alone_are_one_line_with_the_known_names(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "monday" / "1.wav")
    with pytest.raises(FarfeelError, match=r"in the folders monday, none of .* angry \(anger\), .* clips\.csv"):
        scan(FOLDER, tmp_path)


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="holds no recording; expected folders named neutral"):
        scan(FOLDER, tmp_path)


def test_two_spellings_of_a_speaker_are_refused(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "happy/Anna/1.wav")
    write(tmp_path / "sad/anna/1.wav")
    with pytest.raises(FarfeelError, match="speakers Anna and anna"):
        scan(FOLDER, tmp_path)


def test_someone_elses_corpus_is_named(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "03-01-05-01-01-01-07.wav")
    with pytest.raises(FarfeelError, match="those of ravdess: name that corpus"):
        scan(FOLDER, tmp_path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_is_read_with_any_separator(table: Callable[..., Path], separator: str, encoding: str) -> None:
    rows = ["Path, Emotion ,speaker,start_s,end_s", "a.wav,Joy,Zoë,,", "", "b.wav,sad,,0.1,0.5", "b.wav,calm,,0.5,"]
    report = scan(FOLDER, table(*(row.replace(",", separator) for row in rows), encoding=encoding))
    assert [(clip.id, clip.emotion, clip.start_s, clip.end_s) for clip in report.clips] == [
        ("a", "happy", 0.0, 1.0),
        ("b@0.1-0.5", "sad", 0.1, 0.5),
        ("b@0.5", "calm", 0.5, 1.0),
    ]
    assert [clip.speaker for clip in report.clips] == ["Zoë", "unknown-b", "unknown-b"]  # one file, one unknown
    assert "2 of 3 clips" in speaker_note(report.clips)
    assert report.seconds == pytest.approx(1.9)


def test_a_table_joins_a_video_to_its_audio(table: Callable[..., Path], video: Film) -> None:
    root = table("path,emotion,video", "a.wav,sad,films\\b.mp4")  # as Windows writes it
    video_file = video(root / "films" / "b.mp4")
    (clip,) = scan(FOLDER, root).clips
    assert (clip.audio, clip.video) == (root / "a.wav", video_file)


def test_recordings_that_the_table_does_not_name_are_counted(table: Callable[..., Path]) -> None:
    assert scan(FOLDER, table("path,emotion", "a.wav,sad")).skipped == {"not in clips.csv": 1}


def test_a_clip_beyond_its_file_is_left_out_and_named(table: Callable[..., Path]) -> None:
    report = scan(FOLDER, table("path,emotion,start_s,end_s", "a.wav,sad,,", "b.wav,sad,0.5,3", "b.wav,sad,7,"))
    assert [clip.id for clip in report.clips] == ["a"]
    assert [reason for _, reason in report.unreadable] == [
        "b@0.5-3 is from 0.5 s to 3 s, the file lasts 1.00 s; correct the times",
        "b@7 is from 7 s to its end, the file lasts 1.00 s; correct the times",
    ]


def test_a_manifest_keeps_the_times(table: Callable[..., Path]) -> None:
    root = table("path,emotion,start_s,end_s", "a.wav,sad,0.2,0.8")
    clips = load_clips("folder", root)
    write_manifest(clips, root / "m.parquet", root)
    assert read_manifest(root / "m.parquet") == clips


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], r"clips\.csv is empty"),
        (["path,emotion"], r"clips\.csv has no row"),
        (["file,emotion", "a.wav,sad"], "row 1: no column path, found file, emotion; expected path and emotion"),
        (["path,emotion,start", "a.wav,sad,3"], "row 1: column 'start' is none of .*; did you mean start_s"),
        (["path,emotion,mood", "a.wav,sad,3"], "row 1: column 'mood' is none of .*; remove it"),
        (["path,emotion,path", "a.wav,sad,a.wav"], "row 1: column path is there twice"),
        (["path,emotion", "", "a.wav,angri"], r"row 3: emotion 'angri' is none of .*; did you mean angry\?"),
        (["path,emotion", "a.wav,"], "row 2: emotion '' is none of"),
        (["path,emotion", ",sad"], "row 2: no path"),
        (["path,emotion", "c.wav,sad"], "row 2: path c.wav does not exist"),
        (["path,emotion", ".,sad"], r"row 2: path \. is a folder"),
        (["path,emotion", "../a.wav,sad"], r"row 2: path \.\./a\.wav is outside"),
        (["path,emotion", "/etc/hostname,sad"], "row 2: path /etc/hostname is outside"),
        (["path,emotion", "a.wav,sad", "./a.wav,happy"], "row 3: a is also in row 2"),
        (["path,emotion", "a.wav,sad,now"], "row 2: 3 cells, expected 2"),
        (["path,emotion,start_s", "a.wav,sad,soon"], "row 2: start_s is 'soon', expected seconds"),
        (["path,emotion,start_s", "a.wav,sad,-1"], "row 2: start_s is '-1'"),
        (["path,emotion,end_s", "a.wav,sad,nan"], "row 2: end_s is 'nan'"),
        (["path,emotion,start_s,end_s", "a.wav,sad,2,1"], "row 2: the clip lasts from 2 to 1 s"),
        (["path,emotion,video", "a.wav,sad,b.mp4"], "row 2: video b.mp4 does not exist"),
        (["path,emotion", '"a.wav,sad', *["b.wav,sad"] * 500], "row 2: "),
    ],
)
def test_a_fault_in_a_table_is_one_line_that_names_the_row(
    table: Callable[..., Path], rows: list[str], line: str
) -> None:
    with pytest.raises(FarfeelError, match=line) as caught:
        scan(FOLDER, table(*rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("encoding", "row"), [("latin-1", 3), ("utf-16", 1)])
def test_a_table_in_another_encoding_is_one_line(table: Callable[..., Path], encoding: str, row: int) -> None:
    with pytest.raises(FarfeelError, match=rf"row {row}: not UTF-8"):
        scan(FOLDER, table("path,emotion,speaker", "a.wav,sad,Ann", "b.wav,sad,Zoë", encoding=encoding))


def test_a_telephones_recordings_are_clips(write: Write, tmp_path: Path) -> None:
    import av

    samples, rate = soundfile.read(write(tmp_path / "noise.wav"), dtype="float32")
    (tmp_path / "sad" / "ben").mkdir(parents=True)
    with av.open(str(tmp_path / "sad" / "ben" / "1.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (clip,) = scan(FOLDER, tmp_path).clips
    assert (clip.id, clip.emotion, clip.speaker) == ("sad/ben/1", "sad", "ben")
