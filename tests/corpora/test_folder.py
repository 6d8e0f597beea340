"""Your own clips: folders and tables give emotion and speaker; faults are named, and what is unknown is reported."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import soundfile

from farfeel.corpora.decoded import DecodedClips
from farfeel.corpora.readers.folder import FOLDER, speaker_note
from farfeel.corpora.scan import load_clips, read_manifest, scan, write_manifest
from farfeel.corpora.splits import split_clips
from farfeel.media.microphone_files import read_files
from farfeel.recipe import Recipe
from farfeel.types import FarfeelError

Write = Callable[..., Path]
Film = Callable[..., Path]
Small = Callable[..., Recipe]


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


def spelled(name: str, form: str) -> str:
    return unicodedata.normalize(form, name)


@pytest.mark.parametrize("name", ["Jörg", "Zoë", "Ångström", "한국", "für"])
def test_a_name_composed_and_decomposed_is_one_speaker_and_one_clip(write: Write, tmp_path: Path, name: str) -> None:
    composed, decomposed = (spelled(name, form) for form in ("NFC", "NFD"))
    write(tmp_path / "happy" / composed / f"{composed}.wav")
    write(tmp_path / "happy" / decomposed / f"{decomposed}.wav")
    write(tmp_path / "sad" / decomposed / "other.wav")
    listing = FOLDER.listing(tmp_path)
    assert {clip.speaker for clip in listing.clips} == {composed}
    assert [clip.id for clip in listing.clips] == [f"happy/{composed}/{composed}", f"sad/{composed}/other"]
    assert len(listing.duplicates) == 1
    unknown = write(tmp_path / "angry" / f"{decomposed}.wav")
    (clip,) = (clip for clip in FOLDER.clips(tmp_path) if clip.audio == unknown)
    assert clip.speaker == f"unknown-angry/{composed}"
    write_manifest(listing.clips, tmp_path / "mine.parquet", tmp_path)
    assert read_manifest(tmp_path / "mine.parquet") == list(listing.clips)


@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_table_and_its_files_may_spell_a_name_differently(
    write: Write, tmp_path: Path, in_table: str, on_disk: str
) -> None:
    there = write(tmp_path / spelled("Björk", on_disk) / spelled("schön.wav", on_disk))
    name = spelled("Björk", in_table)
    rows = f"path,emotion,speaker\n{name}/{spelled('schön.wav', in_table)},happy,{name}\n"
    (tmp_path / "clips.csv").write_text(rows, encoding="utf-8")
    (clip,) = FOLDER.clips(tmp_path)
    assert (clip.audio, clip.speaker) == (there, spelled("Björk", "NFC"))


def test_linked_folders_are_followed_and_litter_is_passed_over(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "disk" / "1.wav")
    root = tmp_path / "root"
    (root / "angry").mkdir(parents=True)
    (root / "angry" / "anna").symlink_to(tmp_path / "disk")
    (root / "angry" / "again").symlink_to(root)
    (root / "angry" / "._1.wav").write_bytes(b"\0\5\x16\7 Mac OS X")
    write(root / "__MACOSX" / "angry" / "anna" / "1.wav")
    report = scan(FOLDER, root)
    assert [(clip.id, clip.speaker) for clip in report.clips] == [("angry/anna/1", "anna")]
    assert (report.unreadable, report.skipped, report.foreign) == ((), {}, ())


def test_recordings_of_any_suffix_are_clips_and_what_is_left_out_is_counted_and_named(
    write: Write, tmp_path: Path
) -> None:
    for number, suffix in enumerate((".au", ".caf", ".oga", ".aifc")):
        form = {".au": "AU", ".caf": "CAF", ".oga": "OGG", ".aifc": "AIFF"}[suffix]
        samples, rate = soundfile.read(write(tmp_path / "x.wav"))
        (tmp_path / "sad" / "ben").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "sad" / "ben" / f"{number}{suffix}", samples, rate, format=form)
    (tmp_path / "x.wav").rename(tmp_path / "sad" / "ben" / "recorder.dat")
    (tmp_path / "sad" / "notes.txt").write_text("no sound")
    (tmp_path / "sad" / "bare.raw").write_bytes(b"\1\2" * 999)
    report = scan(FOLDER, tmp_path)
    assert [clip.id for clip in report.clips] == [*(f"sad/ben/{n}" for n in range(4)), "sad/ben/recorder"]
    assert "2 files left out, not of this corpus: sad/bare.raw, sad/notes.txt" in report.summary()
    notes: list[str] = []
    load_clips("folder", tmp_path, notes.append)
    assert notes == ["left out: 1 file, not known to be recordings: sad/bare.raw"]


def test_a_video_file_without_a_picture_is_a_clip_of_audio(write: Write, tmp_path: Path) -> None:
    samples, rate = soundfile.read(write(tmp_path / "x.wav", seconds=1.0, sample_rate=48000), dtype="int16")
    path = tmp_path / "calm" / "ben" / "memo.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        output.mux([*stream.encode(frame), *stream.encode(None)])
    (clip,) = scan(FOLDER, tmp_path).clips
    assert (clip.audio, clip.video) == (path, None)


# --- one file for each microphone ----------------------------------------------------------------------------------


def test_several_paths_of_a_row_are_one_recording(table: Callable[..., Path], write: Write, small: Small) -> None:
    root = table("path,emotion,speaker", '"a.wav;deep/c.wav; b.wav",sad,ben')
    write(root / "deep" / "c.wav", channels=2, seconds=0.9)
    report = scan(FOLDER, root)
    (clip,) = report.clips
    assert clip.audio_files == (root / "a.wav", root / "deep" / "c.wav", root / "b.wav")
    assert (clip.id, clip.video, clip.end_s) == ("a", None, 1.0)
    assert (report.channels, report.skipped, report.foreign) == ({4: 1}, {}, ())
    assert report.remarks == (f"{root / 'deep' / 'c.wav'} ends 0.10 s before {root / 'a.wav'}; it is continued with "
                              "silence",)  # fmt: skip
    assert report.remarks[0] in report.summary()
    write_manifest(report.clips, root / "mine.parquet", root)
    assert read_manifest(root / "mine.parquet") == [clip]
    dry = DecodedClips([clip], small(), trim=False).dry(0)
    assert dry is not None
    expected = read_files(clip.audio_files, 16000)[0].mean(axis=0)
    assert (dry[0] == expected[: len(dry[0])]).all()


def test_a_name_with_a_semicolon_is_a_name(table: Callable[..., Path], write: Write) -> None:
    root = table("path,emotion", '"a;b.wav",sad')
    there = write(root / "a;b.wav")
    (clip,) = scan(FOLDER, root).clips
    assert clip.audio_files == (there,)
    write_manifest([clip], root / "mine.parquet", root)
    assert read_manifest(root / "mine.parquet") == [clip]


@pytest.mark.parametrize(
    ("cell", "told"),
    [("a.wav;none.wav", "none.wav does not exist"), ("a.wav;b.wav;a.wav", "names a.wav twice")],
)
def test_a_microphone_that_is_not_there_is_named(table: Callable[..., Path], cell: str, told: str) -> None:
    with pytest.raises(FarfeelError, match=told):
        FOLDER.listing(table("path,emotion", f'"{cell}",sad'))


def test_files_of_very_different_lengths_are_no_clip(table: Callable[..., Path], write: Write) -> None:
    root = table("path,emotion", '"a.wav;long.wav",sad', "b.wav,sad")
    write(root / "long.wav", seconds=3.0)
    report = scan(FOLDER, root)
    assert [clip.id for clip in report.clips] == ["b"]
    assert [reason for _, reason in report.unreadable] == [
        f"{root / 'long.wav'} lasts 3.0 s, {root / 'a.wav'} 1.0 s, expected the same length of all files of one "
        "recording; name the files of one recording, or cut them alike"
    ]
