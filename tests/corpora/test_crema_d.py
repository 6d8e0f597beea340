"""CREMA-D's names are those of its own table, and its audio and video are joined."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from farfeel.corpora.labels import relabelled
from farfeel.corpora.readers.crema_d import CREMA_D
from farfeel.corpora.scan import load_clips, scan, write_manifest
from farfeel.recipe import Data
from farfeel.types import Clip, FarfeelError

Write = Callable[..., Path]
NAME = "1001_DFA_ANG_XX"


def test_the_names_are_those_of_the_published_table(real: Callable[[str], Path]) -> None:
    with (real("crema-d") / "SentenceFilenames.csv").open() as file:
        published = {row["Filename"] for row in csv.DictReader(file)}
    assert published - set(CREMA_D.expected) == {"1076_MTI_SAD_XX"}
    assert set(CREMA_D.expected) <= published
    assert len(CREMA_D.expected) == 7441


def test_men_and_women_are_those_of_the_published_table(real: Callable[[str], Path]) -> None:
    with (real("crema-d") / "VideoDemographics.csv").open() as file:
        published = {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(file)}
    assert {actor: CREMA_D.sex(actor) for actor in CREMA_D.speakers} == published


def test_every_expected_name_decodes_to_itself() -> None:
    clips = [CREMA_D.decode(Path(f"{name}.wav")) for name in CREMA_D.expected]
    assert [clip.id for clip in clips if isinstance(clip, Clip)] == list(CREMA_D.expected)


def test_wav_and_flash_of_one_name_are_one_clip_and_mp3_is_the_surplus(
    write: Write, video: Write, tmp_path: Path
) -> None:
    audio_file = write(tmp_path / "AudioWAV" / f"{NAME}.wav")
    lossy = tmp_path / "AudioMP3" / f"{NAME}.mp3"
    lossy.parent.mkdir()
    lossy.touch()
    video_file = video(tmp_path / "VideoFlash" / f"{NAME}.flv")
    report = scan(CREMA_D, tmp_path)
    (clip,) = report.clips
    assert (clip.audio, clip.video, clip.end_s) == (audio_file, video_file, pytest.approx(0.3))
    assert report.duplicates == (lossy,)
    assert not report.unreadable


def test_an_mp3_alone_is_a_clip() -> None:
    clip = CREMA_D.decode(Path(f"{NAME}.mp3"))
    assert isinstance(clip, Clip)
    assert (clip.audio, clip.video) == (Path(f"{NAME}.mp3"), None)


@pytest.mark.parametrize(
    ("file", "intensity"), [("1001_IEO_HAP_LO", "low"), ("1091_IEO_SAD_MD", "medium"), ("1001_IEO_FEA_HI", "high")]
)
def test_intensities_decode(file: str, intensity: str) -> None:
    clip = CREMA_D.decode(Path(f"{file}.flv"))
    assert isinstance(clip, Clip)
    assert (clip.intensity, clip.sentence) == (intensity, "It's eleven o'clock")


def test_a_file_once_published_under_a_shorter_name_has_the_right_id() -> None:
    clip = CREMA_D.decode(Path("1040_ITH_SAD_X.wav"))
    assert isinstance(clip, Clip)
    assert (clip.id, clip.emotion) == ("1040_ITH_SAD_XX", "sad")


def test_defective_files_are_left_out() -> None:
    assert isinstance(CREMA_D.decode(Path("1076_MTI_SAD_XX.wav")), str)
    assert isinstance(CREMA_D.decode(Path("1064_IEO_DIS_MD.flv")), str)
    assert isinstance(CREMA_D.decode(Path("1064_IEO_DIS_MD.wav")), Clip)


@pytest.mark.parametrize("name", ["1092_DFA_ANG_XX.wav", "1001_XXX_ANG_XX.wav", "1001_DFA_SUR_XX.wav", f"{NAME}.txt"])
def test_a_name_that_is_nearly_one_is_none(name: str) -> None:
    assert CREMA_D.decode(Path(name)) is None


VOTES = {  # number of the row and name → vote, agreement
    ("100001", "1001_DFA_ANG_XX"): ("A", 0.8),
    ("200001", "1001_DFA_ANG_XX"): ("D", 0.5),
    ("300001", "1001_DFA_ANG_XX"): ("A:D", 0.4),
    ("100002", "1001_DFA_HAP_XX"): ("N", 0.6),
    ("200002", "1001_DFA_HAP_XX"): ("H", 1.0),
    ("300002", "1001_DFA_HAP_XX"): ("H", 0.9),
    ("100003", "1002_DFA_SAD_XX"): ("N:S", 0.5),
    ("200003", "1002_DFA_SAD_XX"): ("S", 0.7),
    ("300003", "1002_DFA_SAD_XX"): ("S", 0.6),
}


@pytest.fixture
def repository(write: Write, tmp_path: Path) -> Path:
    """CREMA-D in its own layout: four audio files, the votes on three of them, demographics."""
    root = tmp_path / "CREMA-D"
    for name in ("1001_DFA_ANG_XX", "1001_DFA_HAP_XX", "1002_DFA_SAD_XX", "1002_DFA_FEA_XX"):
        write(root / "AudioWAV" / f"{name}.wav")
    table = root / "processedResults" / "tabulatedVotes.csv"
    table.parent.mkdir()
    rows = [f'"{n}",0,0,0,0,0,0,"{name}",10,{share},"{vote}"' for (n, name), (vote, share) in VOTES.items()]
    columns = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"'
    table.write_text("\n".join([columns, *rows]) + "\n")
    people = ['"ActorID","Age","Sex","Race","Ethnicity"', '1001,51,"Male","C","N"', '1002,21,"Female","C","N"']
    (root / "VideoDemographics.csv").write_text("\n".join(people) + "\n")
    return root


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        ("audio", {"1001_DFA_ANG_XX": "angry", "1001_DFA_HAP_XX": "neutral"}),
        ("video", {"1001_DFA_ANG_XX": "disgust", "1001_DFA_HAP_XX": "happy", "1002_DFA_SAD_XX": "sad"}),
        ("both", {"1001_DFA_HAP_XX": "happy", "1002_DFA_SAD_XX": "sad"}),
    ],
)
def test_a_perceived_label_is_that_of_people_with_the_same_modalities(
    repository: Path, modalities: str, expected: dict[str, str]
) -> None:
    found, notes = relabelled(load_clips("crema-d", repository), Data(labels="perceived"), modalities)
    assert {clip.id: clip.emotion for clip in found} == expected
    assert "left out: 1 clips of crema-d without votes" in notes
    tied = "left out: 1 clips of crema-d with tied votes"
    assert (tied in notes) == (modalities != "video")


def test_a_perceived_label_needs_the_requested_agreement(repository: Path) -> None:
    clips = load_clips("crema-d", repository)
    found, notes = relabelled(clips, Data(labels="perceived", agreement=0.7), "audio")
    assert [clip.id for clip in found] == ["1001_DFA_ANG_XX"]
    assert "left out: 1 clips of crema-d with less than 70% of the votes for their label" in notes


def test_perceived_labels_of_a_manifest_are_beside_its_files(repository: Path, tmp_path: Path) -> None:
    write_manifest(load_clips("crema-d", repository), tmp_path / "m.parquet", repository)
    direct, listed = (
        relabelled(clips, Data(labels="perceived"), "audio")
        for clips in (load_clips("crema-d", repository), load_clips(str(tmp_path / "m.parquet")))
    )
    assert direct[1] == listed[1]
    assert [(clip.id, clip.emotion) for clip in direct[0]] == [(clip.id, clip.emotion) for clip in listed[0]]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table.unlink(), "has processedResults/tabulatedVotes.csv, expected for perceived labels"),
        (
            lambda table: table.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "has no column '', 'fileName'",
        ),
        (lambda table: table.write_text(table.read_text().replace('"N"', '"X"')), "row 5: emoVote 'X'"),
        (
            lambda table: table.write_text(table.read_text().replace("0.8", "most")),
            "row 2: emoVote 'A' and agreement 'm",
        ),
    ],
)
def test_votes_that_are_missing_or_none_are_one_line(
    repository: Path, spoil: Callable[[Path], object], said: str
) -> None:
    clips = load_clips("crema-d", repository)
    spoil(repository / "processedResults" / "tabulatedVotes.csv")
    with pytest.raises(FarfeelError) as caught:
        relabelled(clips, Data(labels="perceived"), "audio")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scan_reports_sexes_and_with_the_table_ages(repository: Path) -> None:
    assert "1 women and 1 men, 21 to 51 years old" in scan(CREMA_D, repository).summary()
    (repository / "VideoDemographics.csv").unlink()
    assert scan(CREMA_D, repository).people == "1 women and 1 men"


def test_the_published_votes_are_read_whole(real: Callable[[str], Path]) -> None:
    root = real("crema-d")
    clips = [CREMA_D.decode(root / "AudioWAV" / f"{name}.wav") for name in CREMA_D.expected]
    whole = [clip for clip in clips if isinstance(clip, Clip)]
    with (root / "processedResults" / "summaryTable.csv").open() as file:
        summary = {row["FileName"]: row for row in csv.DictReader(file)}
    letters = {"A": "angry", "D": "disgust", "F": "fearful", "H": "happy", "N": "neutral", "S": "sad"}
    for modalities, column in (("audio", "VoiceVote"), ("video", "FaceVote"), ("both", "MultiModalVote")):
        found, notes = relabelled(whole, Data(labels="perceived"), modalities)
        voted = {clip.id: letters[vote] for clip in whole if len(vote := summary[clip.id][column]) == 1}
        assert {clip.id: clip.emotion for clip in found} == voted
        assert notes[1:] == [f"left out: {len(whole) - len(voted)} clips of crema-d with tied votes"]
    assert CREMA_D.people
    assert CREMA_D.people(whole) == "43 women and 48 men, 20 to 74 years old"
