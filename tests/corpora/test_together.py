"""Laws of several corpora at once: each under its root, drawn by its weight, its people kept apart; and of a checkpoint
that is tested on another corpus than its own."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.cli import main
from farfeel.corpora.label_sets import LABEL_SETS
from farfeel.corpora.labels import label_set
from farfeel.corpora.scan import load_clips, load_corpora, write_manifest
from farfeel.corpora.splits import split_clips
from farfeel.evaluate.run import in_classes
from farfeel.evaluate.table import checked, emotions_of, probabilities_of, read_predictions, targets_of
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Data, Recipe
from farfeel.training.examples import EpochOrder, TrainingSet
from farfeel.training.loop import fit
from farfeel.types import EMOTIONS, FarfeelError

Small = Callable[..., Recipe]
Capture = pytest.CaptureFixture[str]
TINY = ["audio.seconds=1.28", "model.image_frames=64", "train.batch_size=8", "train.epochs=1", "model.depths=[1, 1]"]
TINY += ["model.heads=[1, 2]", "model.embed_dim=8"]
GERMAN = {"N": "neutral", "F": "happy", "T": "sad", "W": "angry"}
MEN = ("03", "10", "11", "12")


@pytest.fixture(scope="session")
def emodb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of an EmoDB of noise: four speakers, four emotions, two takes. Its 03 is not the 03 of `voices`."""
    root = tmp_path_factory.mktemp("emodb")
    rng = np.random.default_rng(1)
    for speaker in MEN:
        for letter in GERMAN:
            for take in "ab":
                soundfile.write(root / f"{speaker}a01{letter}{take}.wav", rng.normal(0, 0.1, 8000), 16000)
    return root


def run(*words: object) -> int:
    return main([str(word) for word in words])


def fails(capsys: Capture, *words: object) -> str:
    """The line of a command that does not work."""
    assert run(*words) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("farfeel: error: ")]
    return line


# --- weights -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 2**31), st.integers(0, 100), st.floats(0.1, 10))
def test_with_one_weight_an_epoch_is_the_permutation_it_always_was(
    size: int, seed: int, epoch: int, weight: float
) -> None:
    for order in (EpochOrder(size, seed), EpochOrder(size, seed, [weight] * size)):
        order.set_epoch(epoch)
        assert list(order) == np.random.default_rng((seed, epoch)).permutation(size).tolist()


@given(st.lists(st.floats(0.01, 20), min_size=1, max_size=200), st.integers(0, 2**31), st.integers(0, 100))
def test_an_epoch_draws_each_clip_by_its_weight_to_within_one(weights: list[float], seed: int, epoch: int) -> None:
    order = EpochOrder(len(weights), seed, weights)
    order.set_epoch(epoch)
    drawn = list(order)
    assert len(drawn) == len(order) == len(weights)
    times = Counter(index % len(weights) for index in drawn)
    expected = np.array(weights) * len(weights) / np.sum(weights)
    assert (np.abs(expected - [times[index] for index in range(len(weights))]) < 1 + 1e-6).all()
    # A clip's draws are its index, and so many clips on for each draw more: no example is twice in an epoch.
    assert sorted(drawn) == sorted(index + again * len(weights) for index in times for again in range(times[index]))
    assert list(order) == drawn


def test_the_shares_of_corpora_are_those_requested() -> None:
    sizes, weights = (300, 100), (1.0, 0.5)
    of_clip = np.repeat(weights, sizes)
    draws = []
    for epoch in range(200):
        order = EpochOrder(sum(sizes), 1, of_clip.tolist())
        order.set_epoch(epoch)
        draws.append(np.bincount(np.array(list(order)) % sum(sizes), minlength=sum(sizes)))
    mean = np.mean(draws, axis=0)
    assert mean[:300].mean() / mean[300:].mean() == pytest.approx(2, rel=0.02)
    assert np.abs(mean - of_clip * sum(sizes) / of_clip.sum()).max() < 0.15
    assert not np.array_equal(draws[0], draws[1])


def both(voices: Path, emodb: Path, small: Small, *overrides: str) -> tuple[TrainingSet, EvaluationSet, Recipe]:
    """Training and validation clips of two corpora, in six classes."""
    recipe = small(*TINY, "data.weights={synthetic: 2, emodb: 1}", "data.split=folds-4:1", *overrides)
    clips = load_corpora([("synthetic", voices), ("emodb", emodb)])
    parts = split_clips(clips, recipe.data.split)
    return TrainingSet(parts.train, recipe, None), EvaluationSet(parts.val, recipe), recipe


def test_a_clip_drawn_again_is_in_another_room(voices: Path, emodb: Path, small: Small) -> None:
    clips, _, _ = both(voices, emodb, small, "augment.gain_db=6")
    assert set(clips.weights) == {1.0, 2.0}
    first, again = clips[3], clips[3 + len(clips)]
    assert first.target == again.target
    assert first.gain != again.gain
    kept = TrainingSet(clips.clips.clips, small(*TINY, "rooms.renderings=2"), None)
    second = kept[3 + len(kept)]
    kept.set_epoch(1)
    assert kept[3] is second
    with pytest.raises(FarfeelError, match=r"data\.weights names tess, the training clips are of emodb, synthetic"):
        TrainingSet(clips.clips.clips, small("data.weights={tess: 2}"), None)


def test_a_resumed_run_of_weighted_corpora_equals_an_uninterrupted_one(
    tmp_path: Path, voices: Path, emodb: Path, small: Small
) -> None:
    def train(out: Path, epochs: int, resume: bool = False) -> None:
        clips, val, recipe = both(voices, emodb, small, "train.epochs=2")
        torch.manual_seed(recipe.seed)
        for report in fit(EmotionModel(recipe), clips, val, recipe, out, resume=resume):
            if report.epoch == epochs:
                break

    train(tmp_path / "whole", 2)
    train(tmp_path / "halved", 1)
    train(tmp_path / "halved", 2, resume=True)
    one, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True)["model"] for name in ("whole", "halved"))
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, voices: Path, emodb: Path) -> Path:
    """A checkpoint of six classes, trained on two corpora."""
    out = tmp_path_factory.mktemp("runs") / "both"
    corpora = ("--corpus", "synthetic", "--root", voices, "--weight", 2, "--corpus", "emodb", "--root", emodb)
    words = ("train", "--recipe", "tiny", *corpora, "--emotions", "common-6", "--split", "folds-4:1", "--out", out)
    assert run(*words, *TINY) == 0
    return out / "best"


def test_a_checkpoint_carries_its_map_its_weights_and_its_people(trained: Path) -> None:
    data = load_checkpoint(trained).recipe.data
    assert data.emotions == LABEL_SETS["common-6"].emotions
    assert (data.merge, data.weights) == ({"calm": "neutral"}, {"synthetic": 2.0, "emodb": 1.0})
    card = (trained / "card.md").read_text()
    assert "- merged: calm counts as neutral" in card
    assert "- drawn: synthetic 2, emodb 1" in card
    assert "clips of emodb, synthetic, speakers emodb/" in card


def test_a_table_of_several_corpora_keeps_their_people_separate(
    tmp_path: Path, capsys: Capture, trained: Path, voices: Path, emodb: Path
) -> None:
    corpora = ("--corpus", "synthetic", "--root", voices, "--corpus", "emodb", "--root", emodb)
    assert run("evaluate", "--checkpoint", trained, *corpora, "--split", "all", "--out", tmp_path / "both") == 0
    said = capsys.readouterr().err
    assert "merged: 4 clips of calm count as neutral" in said
    assert "left out: 4 clips of other emotions (surprised)" in said
    assert "all: 32 of emodb, 28 of synthetic" in said
    table = read_predictions(tmp_path / "both")
    assert set(table["speaker"]) == {f"emodb/{name}" for name in MEN} | {f"synthetic/0{i}" for i in range(1, 5)}
    assert table["clip"].is_unique
    assert (table["clip"].str.split("/").str[0] == table["speaker"].str.split("/").str[0]).all()
    assert f"emodb, synthetic ({voices}, {emodb})" in (tmp_path / "both" / "report.md").read_text()


def test_another_corpus_is_tested_in_the_checkpoints_classes(
    tmp_path: Path, capsys: Capture, trained: Path, emodb: Path
) -> None:
    words = ("evaluate", "--checkpoint", trained, "--corpus", "emodb", "--root", emodb, "--split", "all")
    assert run(*words, "--out", tmp_path / "six") == 0
    table = read_predictions(tmp_path / "six")
    assert set(table["speaker"]) == set(MEN)  # one corpus: names as they are
    assert emotions_of(table) == LABEL_SETS["common-6"].emotions
    assert set(table["target"]) == set(GERMAN.values())  # nobody is fearful, and that is no fault
    assert f"emodb ({emodb})" in (tmp_path / "six" / "report.md").read_text()
    assert run(*words, "--emotions", "iemocap-4", "--out", tmp_path / "four") == 0
    fewer = read_predictions(tmp_path / "four")
    assert emotions_of(fewer) == ("neutral", "happy", "sad", "angry")
    report = (tmp_path / "four" / "report.md").read_text()
    assert "classes: neutral, happy, sad, angry; the checkpoint's other emotions" in report
    assert "classes:" not in (tmp_path / "six" / "report.md").read_text()
    before = table[[f"p_{emotion}" for emotion in emotions_of(fewer)]].to_numpy()
    np.testing.assert_allclose(probabilities_of(fewer), before / before.sum(axis=1, keepdims=True), rtol=1e-5)
    line = fails(capsys, *words, "--emotions", "ravdess-8", "--out", tmp_path / "eight")
    assert "--emotions asks for calm, surprised, the checkpoint knows neutral, happy" in line


def test_files_of_several_corpora_are_looked_for_under_their_own_roots(
    tmp_path: Path, capsys: Capture, trained: Path, voices: Path, emodb: Path
) -> None:
    manifest = tmp_path / "emodb.parquet"
    write_manifest(load_clips("emodb", emodb), manifest, emodb)
    evaluate = ("evaluate", "--checkpoint", trained, "--split", "all")
    two = ("--corpus", manifest, "--corpus", "synthetic", "--root", voices)  # a manifest knows its root
    assert run(*evaluate, *two, "--out", tmp_path / "two") == 0
    assert len(read_predictions(tmp_path / "two")) == 60
    capsys.readouterr()
    for words, said in (
        (("--root", emodb, *two), f"--root {emodb} is before the first --corpus"),
        ((*two, "--root", emodb), "--corpus synthetic has two --root, expected one"),
        ((*two, "--corpus", "emodb", "--root", emodb), "emodb holds clips of emodb, and so does a corpus named before"),
        (("--corpus", "emodb", *two), "corpus emodb needs its folder; name it with --root DIR"),
    ):
        assert said in fails(capsys, *evaluate, *words, "--out", tmp_path / "none")


def test_one_corpus_may_have_its_options_in_any_order(tmp_path: Path, trained: Path, emodb: Path) -> None:
    for number, words in enumerate((("--corpus", "emodb", "--root", emodb), ("--root", emodb, "--corpus", "emodb"))):
        assert run("evaluate", "--checkpoint", trained, "--split", "all", *words, "--out", tmp_path / str(number)) == 0
    pd.testing.assert_frame_equal(*(read_predictions(tmp_path / name) for name in "01"))


def test_a_weight_is_a_number_above_nothing(capsys: Capture, voices: Path) -> None:
    for weight in ("0", "-1", "much", "inf"):
        with pytest.raises(SystemExit):
            run("train", "--corpus", "synthetic", "--root", voices, "--weight", weight)
        assert "is not a number above 0" in capsys.readouterr().err


def test_surrogates_are_made_for_one_corpus(tmp_path: Path, capsys: Capture, voices: Path) -> None:
    two = ("--corpus", "synthetic", "--root", voices, "--corpus", "emodb", "--root", voices)
    words = ("surrogate", *two, "--stills", voices, "--split", "folds-4:1", "--out", tmp_path / "out")
    assert "surrogate videos are made for one corpus, found 2 --corpus" in fails(capsys, *words)


# --- classes -------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(sorted(LABEL_SETS)))
def test_in_fewer_classes_a_table_is_one_and_recall_counts_what_counts_as_one(seed: int, name: str) -> None:
    rng, data = np.random.default_rng(seed), Data(**label_set(name))
    shares, raw = rng.dirichlet(np.ones(8), (2, 40))
    spoken = rng.choice([e for e in EMOTIONS if data.merge.get(e, e) in data.emotions], 40)
    facts = {"clip": [str(i) for i in range(40)], "speaker": "a", "room": "clean"}
    target = [data.merge.get(emotion, emotion) for emotion in spoken]
    columns = {f"{prefix}_{e}": p[:, i] for prefix, p in (("p", shares), ("q", raw)) for i, e in enumerate(EMOTIONS)}
    table = checked(in_classes(pd.DataFrame(facts | {"target": target} | columns), data), "the table")
    assert set(emotions_of(table)) == set(data.emotions)
    counts_as = np.array([[data.merge.get(e, e) == c for c in emotions_of(table)] for e in EMOTIONS], dtype=float)
    summed = shares @ counts_as
    np.testing.assert_allclose(probabilities_of(table), summed / summed.sum(axis=1, keepdims=True))
    decided = probabilities_of(table).argmax(axis=1)
    for index, emotion in enumerate(emotions_of(table)):
        judged = decided[targets_of(table) == index]
        theirs = [i for i in range(40) if counts_as[EMOTIONS.index(spoken[i]), index]]
        assert len(judged) == len(theirs)
        assert (judged == index).sum() == sum(summed[i].argmax() == index for i in theirs), emotion


def test_a_model_that_is_sure_of_what_is_out_of_the_question_still_gives_a_table() -> None:
    facts = {"clip": ["a"], "speaker": ["a"], "room": ["clean"], "target": ["happy"]}
    sure = {f"{prefix}_{e}": [float(e == "surprised")] for prefix in "pq" for e in EMOTIONS}
    table = in_classes(pd.DataFrame(facts | sure), Data(**label_set("common-6")))
    np.testing.assert_allclose(probabilities_of(checked(table, "the table")), 1 / 6)
