"""File names decode as the corpora's authors document them."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from farfeel.corpora import get_corpus
from farfeel.corpora.readers.ravdess import RAVDESS
from farfeel.types import EMOTIONS, Clip, FarfeelError
from farfeel.variants import CORPORA

DOCUMENTED = {  # name → speaker, emotion, sentence, intensity
    "ravdess": ("03-01-06-01-02-01-12.wav", "12", "fearful", "Dogs are sitting by the door", "normal"),
    "tess": ("OAF_back_ps.wav", "OAF", "surprised", "Say the word back", ""),
    "emodb": (
        "15a05Wa.wav",
        "15",
        "angry",
        "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück",
        "",
    ),
    "urdu": ("SM4_F2_A054.wav", "M4", "angry", "", ""),
    "crema-d": ("1001_DFA_ANG_XX.wav", "1001", "angry", "Don't forget a jacket", ""),
    "stills": ("train/happy/000123.jpg", "train-happy-000123", "happy", "", ""),
    "synthetic": ("synthetic-03-angry-02.flac", "03", "angry", "ki pa to se tu ka pi so", ""),
}

NAMELESS = ("iemocap", "folder")  # Their labels are in files, and in the names of folders below the root.


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_example_decodes_as_documented(name: str) -> None:
    file, speaker, emotion, sentence, intensity = DOCUMENTED[name]
    corpus = get_corpus(name)
    assert corpus.example == file
    path = Path("anywhere") / file
    clip = corpus.decode(path)
    assert isinstance(clip, Clip)
    assert path in (clip.audio, clip.video)
    found = (clip.id, clip.corpus, clip.speaker, clip.emotion, clip.sentence, clip.intensity)
    assert found == (str(Path(file).with_suffix("")), name, speaker, emotion, sentence, intensity)


@pytest.mark.parametrize("name", CORPORA)
def test_a_name_belongs_to_one_corpus_only(name: str) -> None:
    example = Path(get_corpus(name).example)
    assert [other for other in CORPORA if get_corpus(other).decode(example) is not None] == [name]


@pytest.mark.parametrize("name", [name for name in CORPORA if name not in NAMELESS])
def test_the_clips_of_a_corpus_carry_its_name_and_its_emotions(name: str) -> None:
    corpus = get_corpus(name)
    ids = corpus.expected[::7] or (corpus.example.removesuffix(Path(corpus.example).suffix),)
    clips = [corpus.decode(Path("anywhere") / f"{one}{Path(corpus.example).suffix}") for one in ids]
    assert {clip.corpus for clip in clips if isinstance(clip, Clip)} == {name}
    assert {clip.emotion for clip in clips if isinstance(clip, Clip)} <= set(corpus.emotions)
    assert all(isinstance(clip, Clip) for clip in clips)
    speakers = {clip.speaker for clip in clips if isinstance(clip, Clip)}
    assert not corpus.speakers or speakers <= set(corpus.speakers)


def test_listing_the_names_imports_no_reader() -> None:
    lines = "import sys; from farfeel.variants import CORPORA; print(*CORPORA); print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout
    names, modules = (line.split() for line in listed.splitlines())
    assert {"ravdess", "crema-d", "savee"} <= set(names)
    assert not [module for module in modules if module.startswith("farfeel.corpora.readers.") or "savee" in module]


def test_a_corpus_of_a_plug_in_with_another_name_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    savee = get_corpus("savee")
    module = sys.modules["farfeel_example.savee"]
    monkeypatch.setattr(module, "SAVEE", replace(savee, name="other"))
    with pytest.raises(FarfeelError, match=r"corpus savee of farfeel-example 0\.1 is a Corpus called other, expected"):
        get_corpus("savee")
    monkeypatch.setattr(module, "SAVEE", "SAVEE")
    with pytest.raises(FarfeelError, match=r"corpus savee of farfeel-example 0\.1 is a str, expected"):
        get_corpus("savee")


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_names_its_source_and_maps_to_known_emotions(name: str) -> None:
    corpus = get_corpus(name)
    assert all((corpus.title, corpus.source, corpus.citation, corpus.licence))
    assert set(corpus.emotions) <= set(EMOTIONS)
    assert len(set(corpus.emotions)) == len(corpus.emotions)
    assert {corpus.sex(speaker) for speaker in corpus.speakers} <= {"male", "female"}


def test_ravdess_is_60_clips_of_each_of_24_actors() -> None:
    clips = [RAVDESS.decode(Path(f"{name}.wav")) for name in RAVDESS.expected]
    assert all(isinstance(clip, Clip) for clip in clips)
    assert set(Counter(clip.speaker for clip in clips if isinstance(clip, Clip)).values()) == {60}
    assert len(set(RAVDESS.expected)) == 24 * 60


@pytest.mark.parametrize(
    "name",
    ["03-01-09-01-01-01-01.wav", "03-01-01-01-01-01-25.wav", "03-01-01-01-01-01-1.wav", "03-01-01-01-01-01-01.mp4",
     "01-01-01-01-01-01-01.wav", "03-01-01-01-01-01-01 (1).wav", "03-01-01-01-01-01-01.wav.part"],
)  # fmt: skip
def test_a_name_that_is_nearly_one_of_ravdess_is_none(name: str) -> None:
    assert RAVDESS.decode(Path(name)) is None


def test_tess_names_decode_in_any_case_and_official_folders(tmp_path: Path) -> None:
    names = ["OAF_Pleasant_surprise/OAF_back_ps.wav", "YAF_angry/YAF_dog_ANGRY.WAV", "OAF_neutral/OA_bite_neutral.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    clips = list(get_corpus("tess").clips(tmp_path))
    assert [(clip.id, clip.emotion) for clip in clips] == [
        ("OAF_back_ps", "surprised"),
        ("OAF_bite_neutral", "neutral"),
        ("YAF_dog_angry", "angry"),
    ]


def test_audio_and_video_of_one_utterance_are_one_clip(tmp_path: Path) -> None:
    for name in ("Video/01-01-03-01-01-01-05.mp4", "Video/02-01-03-01-01-01-05.mp4", "Audio/03-01-03-01-01-01-05.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = RAVDESS.listing(tmp_path)
    (clip,) = listing.clips
    assert clip.audio == tmp_path / "Audio/03-01-03-01-01-01-05.wav"
    assert clip.video == tmp_path / "Video/01-01-03-01-01-01-05.mp4"
    assert not listing.duplicates


def test_a_video_alone_has_audio_only_if_its_name_says_so(tmp_path: Path) -> None:
    both, mute = tmp_path / "01-01-03-01-01-01-05.mp4", tmp_path / "02-01-04-01-01-01-05.mp4"
    both.touch()
    mute.touch()
    first, second = RAVDESS.clips(tmp_path)
    assert (first.id, first.audio, first.video) == ("03-01-03-01-01-01-05", both, both)
    assert (second.id, second.audio, second.video) == ("03-01-04-01-01-01-05", None, mute)


def test_clips_have_the_same_order_in_any_folders(tmp_path: Path) -> None:
    names = [f"03-01-0{emotion}-01-01-01-{actor}.wav" for emotion in (3, 1, 2) for actor in ("12", "02")]
    for number, name in enumerate(names):
        (tmp_path / "flat" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat" / name).touch()
        (tmp_path / "deep" / str(number) / name).parent.mkdir(parents=True)
        (tmp_path / "deep" / str(number) / name).touch()
    flat = [clip.id for clip in RAVDESS.clips(tmp_path / "flat")]
    assert flat == [clip.id for clip in RAVDESS.clips(tmp_path / "deep")]
    assert len(flat) == len(names)


def test_an_unknown_corpus_is_one_line_with_the_nearest() -> None:
    with pytest.raises(FarfeelError, match=re.escape("did you mean ravdess?")) as caught:
        get_corpus("RAVDES")
    assert "\n" not in str(caught.value)


def test_a_root_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="does not exist; expected the folder of TESS"):
        list(get_corpus("tess").clips(tmp_path / "nowhere"))
