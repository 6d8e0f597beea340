"""No speaker is in two parts, and every clip is in one."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farfeel.corpora import get_corpus
from farfeel.corpora.splits import PARTS, Split, deal, split_clips
from farfeel.types import Clip, FarfeelError

ACTORS = get_corpus("ravdess").speakers
PUBLISHED = ("paper", *(f"folds-6:{k}" for k in range(1, 7)), *(f"folds-5:{k}" for k in range(1, 6)))


def clips_of(corpus: str, speakers: set[str] | tuple[str, ...]) -> list[Clip]:
    """Two clips of each speaker."""
    return [
        Clip(f"{speaker}-{take}", corpus, speaker, "happy", Path(f"{speaker}-{take}.wav"))
        for take in range(2)
        for speaker in sorted(speakers)
    ]


def speakers_of(clips: tuple[Clip, ...]) -> set[str]:
    return {clip.speaker for clip in clips}


@given(st.sets(st.sampled_from(ACTORS), min_size=1), st.sampled_from((*PUBLISHED, "folds-7:3", "folds-4:4")))
def test_parts_share_no_speaker_and_cover_every_clip(actors: set[str], split: str) -> None:
    clips = clips_of("ravdess", actors)
    parts = split_clips(clips, split)
    assert Counter(parts.train + parts.val + parts.test) == Counter(clips)
    train, val, test = (speakers_of(getattr(parts, part)) for part in PARTS)
    assert len(train) + len(val) + len(test) == len(train | val | test)


@given(st.sets(st.sampled_from(ACTORS), min_size=1), st.sampled_from(PUBLISHED))
def test_a_published_split_keeps_its_speakers_and_names_the_absent(actors: set[str], split: str) -> None:
    whole = split_clips(clips_of("ravdess", ACTORS), split)
    some = split_clips(clips_of("ravdess", actors), split)
    for part in PARTS:
        assert speakers_of(getattr(some, part)) == speakers_of(getattr(whole, part)) & actors
    assert set(some.absent) == set(ACTORS) - actors
    assert whole.absent == ()


@given(
    st.sampled_from(("ravdess", "emodb", "urdu", "mine")),
    st.sets(st.sampled_from([*ACTORS, "F1", "M2", "anna"]), min_size=3),
    st.integers(3, 9),
)
def test_every_speaker_is_tested_once_and_validated_once_over_the_folds(
    corpus: str, speakers: set[str], count: int
) -> None:
    if corpus == "ravdess":
        speakers &= set(ACTORS)
    clips = clips_of(corpus, speakers)
    splits = [split_clips(clips, f"folds-{count}:{fold}") for fold in range(1, count + 1)]
    for part in ("test", "val"):
        assert Counter(clip for parts in splits for clip in getattr(parts, part)) == Counter(clips)
    for parts, following in zip(splits, splits[1:] + splits[:1], strict=True):
        assert parts.val == following.test


@given(st.sets(st.sampled_from(ACTORS), min_size=1), st.integers(3, 9))
def test_a_deal_spreads_men_and_women_evenly(actors: set[str], count: int) -> None:
    folds = deal("ravdess", sorted(actors), count)
    men = [sum(int(actor) % 2 for actor in fold) for fold in folds]
    women = [len(fold) - number for fold, number in zip(folds, men, strict=True)]
    for numbers in (men, women, [len(fold) for fold in folds]):
        assert max(numbers) - min(numbers) <= 1


def test_the_paper_trains_on_18_actors_and_tests_on_the_last_three() -> None:
    parts = split_clips(clips_of("ravdess", ACTORS), "paper")
    assert speakers_of(parts.train) == set(ACTORS[:18])
    assert speakers_of(parts.val) == {"19", "20", "21"}
    assert speakers_of(parts.test) == {"22", "23", "24"}


def test_seven_folds_of_21_actors_are_threes_with_both_sexes() -> None:
    folds = deal("ravdess", ACTORS[:21], 7)
    assert {len(fold) for fold in folds} == {3}
    assert all({int(actor) % 2 for actor in fold} == {0, 1} for fold in folds)


def test_clips_of_two_corpora_are_split_each_by_its_own_speakers() -> None:
    ravdess, emodb = clips_of("ravdess", ACTORS), clips_of("emodb", get_corpus("emodb").speakers)
    both, alone = split_clips(ravdess + emodb, "folds-6:2"), split_clips(ravdess, "folds-6:2")
    for part in PARTS:
        assert [c for c in getattr(both, part) if c.corpus == "ravdess"] == list(getattr(alone, part))
        assert any(clip.corpus == "emodb" for clip in getattr(both, part))


def test_an_empty_part_names_the_expected_and_the_present_speakers() -> None:
    parts = split_clips(clips_of("ravdess", ("01", "19")), "paper")
    assert parts.part("train") == parts.train
    assert parts.part("all") == parts.train + parts.val
    with pytest.raises(FarfeelError, match="needs 22, 23, 24, found 01, 19"):
        parts.part("test")
    with pytest.raises(FarfeelError, match="did you mean train"):
        parts.part("trian")


@pytest.mark.parametrize(
    ("split", "remedy"),
    [
        ("papre", "did you mean paper?"),
        ("folds-6", "did you mean folds-6:1?"),
        ("folds-6:7", "expected 1 to 6"),
        ("folds-6:0", "expected 1 to 6"),
        ("folds-2:1", "expected 3 or more"),
    ],
)
def test_a_wrong_split_name_is_one_line_with_the_remedy(split: str, remedy: str) -> None:
    for clips in (clips_of("ravdess", ACTORS), []):
        with pytest.raises(FarfeelError) as caught:
            split_clips(clips, split)
        assert remedy in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_paper_split_is_refused_for_another_corpus() -> None:
    with pytest.raises(FarfeelError, match="folds-5:1"):
        split_clips(clips_of("tess", ("OAF", "YAF")), "paper")


def test_a_speaker_that_no_part_names_is_refused_not_dropped() -> None:
    with pytest.raises(FarfeelError, match="speaker 77"):
        split_clips(clips_of("ravdess", ("01", "77")), "paper")


def test_a_published_split_of_stills_goes_by_their_folders() -> None:
    clips = clips_of("stills", ("train-happy-1", "train-sad-1", "validation-sad-1"))
    parts = split_clips(clips, "published")
    assert speakers_of(parts.train) == {"train-happy-1", "train-sad-1"}
    assert speakers_of(parts.val) == {"validation-sad-1"}
    with pytest.raises(FarfeelError, match="needs stills of that part"):
        parts.part("test")
    with pytest.raises(FarfeelError, match="divides stills"):
        split_clips(clips_of("tess", ("OAF", "YAF")), "published")


def test_an_error_names_some_of_many_speakers() -> None:
    parts = split_clips(clips_of("stills", tuple(f"train-sad-{n}" for n in range(500))), "published")
    with pytest.raises(FarfeelError, match="and 460 more") as caught:
        parts.part("val")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("split", ["paper", "folds-6:1", "folds-5:2", "folds-7:3"])
def test_a_surrogate_corpus_is_split_like_the_one_its_audio_is_from(split: str) -> None:
    real, surrogate = (split_clips(clips_of(name, ACTORS[:21]), split) for name in ("ravdess", "ravdess-surrogate"))
    for part in PARTS:
        assert [clip.id for clip in getattr(real, part)] == [clip.id for clip in getattr(surrogate, part)]


@given(st.sampled_from(range(1, 6)), st.sampled_from((3, 5)))
def test_the_two_actors_of_a_session_stay_together(fold: int, count: int) -> None:
    fold = min(fold, count)
    parts = split_clips(clips_of("iemocap", get_corpus("iemocap").speakers), f"folds-{count}:{fold}")
    for part in PARTS:
        speakers = speakers_of(getattr(parts, part))
        assert {f"{speaker[:-1]}{sex}" for speaker in speakers for sex in "FM"} == speakers
    if count == 5:
        assert speakers_of(parts.test) == {f"Ses0{fold}F", f"Ses0{fold}M"}


def test_a_split_with_a_common_speaker_cannot_be_made() -> None:
    first, second = clips_of("ravdess", ("01",))
    with pytest.raises(ValueError, match="in two parts"):
        Split((first,), (), (second,))
