"""A clip counts as one class or as none, and what is left out is reported."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farfeel.corpora import get_corpus
from farfeel.corpora.label_sets import LABEL_SETS
from farfeel.corpora.labels import label_details, label_set, relabelled, require_classes
from farfeel.corpora.scan import load_clips, load_corpora, named_with_corpus
from farfeel.corpora.splits import split_clips
from farfeel.recipe import Data, load_recipe, recipe_from_tree
from farfeel.types import EMOTIONS, Clip, FarfeelError

Write = Callable[..., Path]
SETS = [Data(**labels.settings) for labels in LABEL_SETS.values()]


def clip_of(emotion: str, number: int = 0, corpus: str = "ravdess", speaker: str = "01") -> Clip:
    return Clip(f"{emotion}-{number}", corpus, speaker, emotion, Path("clip.wav"))


def clips_of(emotions: list[str]) -> list[Clip]:
    return [clip_of(emotion, number) for number, emotion in enumerate(emotions)]


@given(st.lists(st.sampled_from(EMOTIONS)), st.sampled_from(SETS))
def test_a_map_never_makes_two_classes_of_one_and_loses_no_clip(emotions: list[str], data: Data) -> None:
    clips = clips_of(emotions)
    found, _ = relabelled(clips, data, "audio")
    assert [clip.id for clip in found] == [clip.id for clip in clips]
    became = {(before.emotion, after.emotion) for before, after in zip(clips, found, strict=True)}
    assert len(became) == len({before for before, _ in became})
    for before, after in became:
        assert after == before or (before not in data.emotions and after in data.emotions)
    again, notes = relabelled(found, data, "audio")
    assert (again, notes) == (found, [])


@given(st.lists(st.sampled_from(EMOTIONS)), st.sampled_from(SETS))
def test_a_class_has_as_many_clips_as_all_that_count_as_it(emotions: list[str], data: Data) -> None:
    before, after = (Counter(clip.emotion for clip in clips) for clips in (
        clips_of(emotions), relabelled(clips_of(emotions), data, "audio")[0]
    ))  # fmt: skip
    for emotion in data.emotions:
        assert after[emotion] == before[emotion] + sum(
            before[other] for other in data.merge if data.merge[other] == emotion
        )


def test_without_a_map_clips_stay_the_same_objects() -> None:
    clips = clips_of(list(EMOTIONS))
    found, notes = relabelled(clips, Data(), "audio")
    assert (found, notes, label_details(Data())) == (clips, [], {})


def test_what_was_merged_is_reported() -> None:
    clips = clips_of(["calm", "neutral", "calm", "surprised"])
    _, notes = relabelled(clips, Data(**label_set("common-6")), "audio")
    assert notes == ["merged: 2 clips of calm count as neutral"]
    assert label_details(Data(**label_set("iemocap-4-happy"))) == {
        "merged": "calm counts as neutral; IEMOCAP's excited left out"
    }


def test_the_sets_are_what_the_corpora_share() -> None:
    shared = [set(get_corpus(name).emotions) | {"calm"} for name in ("ravdess", "crema-d", "tess", "emodb")]
    assert set(LABEL_SETS["common-6"].emotions) == set.intersection(*shared) - {"calm"}
    assert set(LABEL_SETS["iemocap-4"].emotions) <= set(get_corpus("iemocap").emotions)
    assert [len(LABEL_SETS[name].emotions) for name in ("ravdess-8", "ravdess-7")] == [8, 7]


def test_a_list_of_emotions_is_a_set_without_a_map() -> None:
    assert label_set("sad,happy") == {"emotions": ("sad", "happy"), "merge": {}}
    for name, remedy in (("comon-6", "did you mean common-6?"), ("happy,saad", "did you mean sad?"), ("", "choose")):
        with pytest.raises(FarfeelError, match="neither one of ravdess-8") as caught:
            label_set(name)
        assert remedy in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.merge={calm: neutral}"], "merge counts calm as neutral, expected what is no class (none)"),
        (["data.emotions=[happy, sad]", "data.merge={calm: neutral}"], "as one that is (happy, sad)"),
        (["data.emotions=[happy, sad]", "data.merge={glad: happy}"], "merge counts glad as happy"),
        (["data.merge=3"], "data.merge is 3"),
        (["data.weights={ravdess: 0}"], "data.weights.ravdess is 0"),
        (["data.labels=felt"], "data.labels is 'felt', expected 'intended' or 'perceived'"),
    ],
)
def test_a_map_that_cannot_be_is_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(FarfeelError) as caught:
        load_recipe("tiny", overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_from_before_maps_are_what_they_were() -> None:
    tree = load_recipe("tiny").model_dump(mode="json")
    for name in ("merge", "excited", "labels", "agreement", "weights"):
        del tree["data"][name]
    assert recipe_from_tree(tree, "an old recipe") == load_recipe("tiny")


def test_a_checkpoint_answers_only_with_emotions_that_it_knows() -> None:
    for name in LABEL_SETS:
        require_classes(Data(**label_set(name)), EMOTIONS)
    require_classes(Data(**label_set("iemocap-4")), LABEL_SETS["common-6"].emotions)
    with pytest.raises(FarfeelError, match="asks for calm, surprised, the checkpoint knows neutral, happy"):
        require_classes(Data(), LABEL_SETS["common-6"].emotions)


def test_excited_is_left_out_on_request() -> None:
    happy = clip_of("happy", corpus="iemocap", speaker="Ses01F")
    clips = [happy, replace(happy, id="excited", intensity="excited")]
    assert relabelled(clips, Data(**label_set("iemocap-4")), "audio")[0] == clips
    found, notes = relabelled(clips, Data(**label_set("iemocap-4-happy")), "audio")
    assert (found, notes) == ([happy], ["left out: 1 excited clips"])


def test_a_corpus_without_votes_keeps_the_intended_labels_with_a_note() -> None:
    clips = clips_of(["happy"])
    found, notes = relabelled(clips, Data(labels="perceived"), "audio")
    assert (found, notes) == (clips, ["ravdess has no perceived labels: the intended ones count"])


def test_several_corpora_are_read_each_under_its_root(write: Write, tmp_path: Path) -> None:
    theirs = write(tmp_path / "tess" / "OAF_back_sad.wav")
    ours = write(tmp_path / "emodb" / "03a01Ta.wav")
    sources = [("emodb", tmp_path / "emodb"), ("tess", tmp_path / "tess")]
    clips = load_corpora(sources)
    assert [clip.audio for clip in clips] == [ours, theirs]
    assert clips == [clip for name, root in sources for clip in load_clips(name, root)]
    with pytest.raises(FarfeelError, match="holds clips of emodb, and so does a corpus named before it"):
        load_corpora([*sources, ("emodb", tmp_path / "emodb")])


def test_people_and_clips_of_two_corpora_stay_separate() -> None:
    one, other = (Clip("a", corpus, "03", "happy", Path("a.wav")) for corpus in ("ravdess", "emodb"))
    named = named_with_corpus([one, other])
    assert [(clip.id, clip.speaker) for clip in named] == [("ravdess/a", "ravdess/03"), ("emodb/a", "emodb/03")]
    assert split_clips([one], "folds-6:1").wanted["test"] == ("01", "11", "20", "21")
    both = split_clips([one, other], "folds-6:1")
    assert both.wanted["test"] == ("emodb/03", "ravdess/01", "ravdess/11", "ravdess/20", "ravdess/21")
    assert "ravdess/24" in both.absent


def test_ravdess_and_emodb_share_six_classes(real: Callable[[str], Path]) -> None:
    clips = [clip for name in ("ravdess", "emodb") for clip in get_corpus(name).clips(real(name))]
    data = Data(**label_set("common-6"))
    found, notes = relabelled(clips, data, "audio")
    assert notes == [f"merged: {sum(clip.emotion == 'calm' for clip in clips)} clips of calm count as neutral"]
    left = {(clip.corpus, clip.emotion) for clip in found if clip.emotion not in data.emotions}
    assert left == {("ravdess", "surprised")}
    parts = split_clips(found, "folds-5:1")
    for part in ("train", "val", "test"):
        assert {clip.corpus for clip in parts.part(part)} == {"ravdess", "emodb"}
        assert {clip.emotion for clip in parts.part(part)} >= set(data.emotions)
