"""CREMA-D's names are those of its own table, and its sound and film are joined."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from farfeel.corpora.crema_d import CREMA_D
from farfeel.corpora.scan import scan
from farfeel.types import Clip

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
    write: Write, film: Write, tmp_path: Path
) -> None:
    heard = write(tmp_path / "AudioWAV" / f"{NAME}.wav")
    lossy = tmp_path / "AudioMP3" / f"{NAME}.mp3"
    lossy.parent.mkdir()
    lossy.touch()
    seen = film(tmp_path / "VideoFlash" / f"{NAME}.flv")
    report = scan(CREMA_D, tmp_path)
    (clip,) = report.clips
    assert (clip.audio, clip.video, clip.end_s) == (heard, seen, pytest.approx(0.3))
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
