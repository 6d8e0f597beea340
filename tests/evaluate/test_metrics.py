"""Metrics against hand-computed numbers and scikit-learn, and the laws of their intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from farfeel.evaluate.metrics import SCORES, Metrics, metrics
from farfeel.evaluate.table import PREFIX, emotions_of, probabilities_of, targets_of

Draw = Callable[..., pd.DataFrame]
ABC = ("happy", "sad", "angry")


def one_row(target: str, p: list[float]) -> dict[str, Any]:
    return {"speaker": "a", "room": "dry", "target": target, **{PREFIX + e: x for e, x in zip(ABC, p, strict=True)}}


@pytest.mark.parametrize(
    ("targets", "decisions", "accuracy", "uar", "macro_f1"),
    [
        # All right; all wrong; always the first class.
        (["happy", "sad", "angry"], ["happy", "sad", "angry"], 1, 1, 1),
        (["happy", "sad", "angry"], ["sad", "angry", "happy"], 0, 0, 0),
        (["happy", "sad", "angry"], ["happy"] * 3, 1 / 3, 1 / 3, (2 / 4) / 3),
        # Recalls 3/4 and 1/2; F1 2·3/(4+4) and 2·1/(2+2).
        (["happy"] * 4 + ["sad"] * 2, ["happy"] * 3 + ["sad", "sad", "happy"], 4 / 6, 5 / 8, (3 / 4 + 1 / 2) / 2),
        # A class that never occurs but is recognised once: recalls 1/2 and 1, F1 2/3 and 1; angry does not count.
        (["happy", "happy", "sad"], ["happy", "angry", "sad"], 2 / 3, 3 / 4, (2 / 3 + 1) / 2),
    ],
)
def test_golden_accuracy_uar_f1(
    decided: Draw, targets: list[str], decisions: list[str], accuracy: float, uar: float, macro_f1: float
) -> None:
    overall = metrics(decided(targets, decisions, ABC)).overall
    found = (overall.accuracy.value, overall.uar.value, overall.macro_f1.value)
    assert found == pytest.approx((accuracy, uar, macro_f1))


def test_golden_calibration() -> None:
    # Two decisions at confidence 0.8 (bin 12 of 15), one right; one at 0.5 (bin 8), right.
    table = pd.DataFrame(
        [one_row("happy", [0.8, 0.1, 0.1]), one_row("sad", [0.8, 0.2, 0.0]), one_row("angry", [0.25, 0.25, 0.5])]
    ).assign(clip=["1", "2", "3"])
    overall = metrics(table).overall
    assert overall.ece.value == pytest.approx((2 * 0.3 + 1 * 0.5) / 3)
    assert overall.nll.value == pytest.approx(-(np.log(0.8) + np.log(0.2) + np.log(0.5)) / 3)
    assert overall.brier.value == pytest.approx((0.06 + (0.64 + 0.64 + 0) + (0.125 + 0.25)) / 3)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), speakers=st.integers(1, 5), emotions=st.integers(2, 8))
def test_values_are_those_of_scikit_learn(fake_table: Draw, seed: int, speakers: int, emotions: int) -> None:
    names = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")[:emotions]
    table = fake_table(np.random.default_rng(seed), speakers=speakers, clips=16, rooms=("dry",), emotions=names)
    target, p = targets_of(table), probabilities_of(table)
    decision, present = p.argmax(axis=1), np.unique(target)
    overall = metrics(table, resamples=10).overall
    assert overall.accuracy.value == pytest.approx(sklearn_metrics.accuracy_score(target, decision))
    assert overall.uar.value == pytest.approx(
        sklearn_metrics.recall_score(target, decision, labels=present, average="macro", zero_division=0)
    )
    assert overall.macro_f1.value == pytest.approx(
        sklearn_metrics.f1_score(target, decision, labels=present, average="macro", zero_division=0)
    )
    assert overall.nll.value == pytest.approx(sklearn_metrics.log_loss(target, p, labels=range(emotions)))
    assert overall.brier.value == pytest.approx(((p - np.eye(emotions)[target]) ** 2).sum(axis=1).mean())
    recall = sklearn_metrics.recall_score(target, decision, labels=present, average=None, zero_division=0)
    assert [overall.recall[names[k]].value for k in present] == pytest.approx(list(recall))


def flat(found: Metrics) -> list[float]:
    content = found.as_dict()
    numbers = []
    for scores in (content["overall"], content["mean_over_rooms"], *content["rooms"].values()):
        intervals = [scores[name] for name in SCORES] + list(scores["recall"].values())
        numbers += [one[key] for one in intervals for key in ("value", "low", "high")]
    return numbers


@pytest.mark.parametrize("speakers", [2, 5])
def test_the_order_of_rows_does_not_matter(fake_table: Draw, speakers: int) -> None:
    table = fake_table(np.random.default_rng(4), speakers=speakers)
    shuffled = table.sample(frac=1, random_state=1)
    assert flat(metrics(shuffled)) == pytest.approx(flat(metrics(table)))


def test_the_order_of_emotions_does_not_matter(fake_table: Draw) -> None:
    table = fake_table(np.random.default_rng(4))
    columns = [PREFIX + emotion for emotion in reversed(emotions_of(table))]
    other = metrics(table[[c for c in table.columns if c not in columns] + columns])
    assert other.overall.uar.as_dict() == pytest.approx(metrics(table).overall.uar.as_dict())


def test_the_same_seed_gives_the_same_interval_and_the_value_needs_none(fake_table: Draw) -> None:
    table = fake_table(np.random.default_rng(5))
    first, again, other = (metrics(table, seed=seed).overall.accuracy for seed in (1, 1, 2))
    assert first == again
    assert first.value == other.value
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.02)


def test_copies_of_clips_do_not_narrow_the_interval(fake_table: Draw) -> None:
    """Ten copies of each clip say nothing new about other speakers."""
    table = fake_table(np.random.default_rng(6), rooms=("dry",))
    copies = pd.concat([table.assign(clip=table["clip"] + f"-{i}") for i in range(10)])
    assert metrics(copies).overall.accuracy.as_dict() == pytest.approx(metrics(table).overall.accuracy.as_dict())


def test_a_higher_level_widens_every_interval(fake_table: Draw) -> None:
    table = fake_table(np.random.default_rng(7))
    narrow, wide = metrics(table, level=0.8).overall, metrics(table, level=0.95).overall
    for name in SCORES:
        assert getattr(wide, name).low < getattr(narrow, name).low < getattr(narrow, name).value
        assert getattr(wide, name).high > getattr(narrow, name).high > getattr(narrow, name).value


def test_chance_is_within_the_interval_of_a_guesser_and_outside_that_of_a_good_model(fake_table: Draw) -> None:
    table = fake_table(np.random.default_rng(8), speakers=12, clips=40)
    guess = np.random.default_rng(9).dirichlet(np.ones(8), len(table))
    guesser = table.assign(**{PREFIX + e: guess[:, k] for k, e in enumerate(emotions_of(table))})
    chance = metrics(guesser).overall.accuracy
    assert chance.low < 1 / 8 < chance.high
    assert metrics(table).overall.accuracy.low > 1 / 8


@pytest.mark.parametrize("right", [True, False])
def test_speakers_all_alike_leave_the_exact_binomial_interval_of_their_clips(decided: Draw, right: bool) -> None:
    # No error in n clips: the lower end is the p with p^n = 2.5 % (Clopper & Pearson).
    table = pd.concat([decided(["sad"] * 5, ["sad" if right else "happy"] * 5, ABC, speaker) for speaker in "abcd"])
    accuracy = metrics(table).overall.accuracy
    edge = 0.025 ** (1 / 20)
    assert (accuracy.low, accuracy.high) == pytest.approx((edge, 1) if right else (0, 1 - edge))


def test_one_speaker_has_values_and_no_intervals(fake_table: Draw) -> None:
    found = metrics(fake_table(np.random.default_rng(10), speakers=1)).as_dict()
    assert found["overall"]["accuracy"]["value"] is not None
    assert found["overall"]["accuracy"]["low"] is found["overall"]["accuracy"]["high"] is None


def test_overall_weighs_clips_alike_and_the_mean_weighs_rooms_alike(decided: Draw) -> None:
    # Room 1: clips a0 and a1, both right. Room 2: a0 alone, wrong. a0 is right half the time, a1 always.
    first = decided(["sad", "sad"], ["sad", "sad"], ABC).assign(room="1")
    second = decided(["sad"], ["happy"], ABC).assign(room="2")
    found = metrics(pd.concat([first, second]))
    assert found.overall.accuracy.value == pytest.approx((1 / 2 + 1) / 2)
    assert found.mean_over_rooms.accuracy.value == pytest.approx((1 + 0) / 2)
    assert {room: scores.accuracy.value for room, scores in found.rooms.items()} == {"1": 1.0, "2": 0.0}


def test_copies_of_a_room_change_nothing_overall(fake_table: Draw) -> None:
    """Hearing the same clips in the same room again is no new evidence."""
    table = fake_table(np.random.default_rng(11), rooms=("dry",))
    again = pd.concat([table, table.assign(room="dry 2")])
    assert metrics(again).overall.accuracy.as_dict() == pytest.approx(metrics(table).overall.accuracy.as_dict())


def test_json_is_strict_and_describes_the_intervals(fake_table: Draw) -> None:
    table = fake_table(np.random.default_rng(12), rooms=("room 10", "room 2"))
    absent = table[table["target"] != "calm"]
    found = json.loads(json.dumps(metrics(absent, resamples=50, seed=3).as_dict(), allow_nan=False))
    protocol = found["protocol"]
    assert protocol["unit"] == "speaker"
    assert (protocol["level"], protocol["resamples"], protocol["seed"]) == (0.95, 50, 3)
    assert (protocol["speakers"], protocol["clips"]) == (7, absent["clip"].nunique())
    assert protocol["rooms"] == list(found["rooms"]) == ["room 2", "room 10"]
    assert found["overall"]["recall"]["calm"] == {"value": None, "low": None, "high": None}


def perfect(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Targets drawn from the very probabilities of their rows."""
    p = rng.dirichlet(np.full(len(ABC), 0.7), rows)
    target = [rng.choice(ABC, p=row) for row in p]
    return pd.DataFrame(
        {"clip": [str(i) for i in range(rows)], "speaker": [str(i % 10) for i in range(rows)], "room": "dry"}
        | {"target": target}
        | {PREFIX + e: p[:, k] for k, e in enumerate(ABC)}
    )


def test_perfect_calibration_leaves_the_error_of_chance_alone_which_more_rows_remove() -> None:
    rng = np.random.default_rng(13)
    few, many = (metrics(perfect(rng, rows), resamples=10) for rows in (150, 20000))
    assert many.overall.ece.value < 0.01
    assert few.ece_by_chance > 5 * many.ece_by_chance
    mean = np.mean([metrics(perfect(rng, 150), resamples=10).overall.ece.value for _ in range(30)])
    assert mean == pytest.approx(few.ece_by_chance, rel=0.2)


def test_calibration_is_reported_before_and_after() -> None:
    table = perfect(np.random.default_rng(14), 5000)
    p = probabilities_of(table)
    surer = p**3 / (p**3).sum(axis=1, keepdims=True)
    found = metrics(table.assign(**{"q_" + e: surer[:, k] for k, e in enumerate(ABC)}), resamples=50).as_dict()
    as_p = metrics(table.assign(**{PREFIX + e: surer[:, k] for k, e in enumerate(ABC)}), resamples=50).as_dict()
    for scores, of_surer in (
        (found["overall"], as_p["overall"]),
        (found["rooms"]["dry"], as_p["rooms"]["dry"]),
        (found["mean_over_rooms"], as_p["mean_over_rooms"]),
    ):
        assert scores["ece"]["value"] < 0.02 < 0.1 < scores["ece_uncalibrated"]["value"]
        for name in ("ece", "nll", "brier"):
            assert scores[f"{name}_uncalibrated"] == of_surer[name]
    without = metrics(table, resamples=50).as_dict()["overall"]
    assert not [name for name in without if "uncalibrated" in name]
    assert {name: found["overall"][name] for name in without} == without


def test_abstention_counts_by_hand(decided: Draw) -> None:
    # Confidences 0.9 right, 0.6 wrong, 0.45 right, 0.4 wrong, each a clip of its own.
    rows = [
        one_row("happy", [0.9, 0.1, 0.0]),
        one_row("sad", [0.6, 0.4, 0.0]),
        one_row("angry", [0.25, 0.3, 0.45]),
        one_row("sad", [0.4, 0.3, 0.3]),
    ]
    found = metrics(pd.DataFrame(rows).assign(clip=list("1234"))).abstention
    assert [each.below for each in found] == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert [each.coverage.value for each in found] == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 4])  # at 0.4: decided
    assert [each.accuracy.value for each in found] == pytest.approx([1 / 2, 1 / 2, 1 / 2, 1 / 2, 1])


def test_abstaining_more_never_covers_more_and_helps_the_calibrated() -> None:
    found = metrics(perfect(np.random.default_rng(15), 4000)).abstention
    coverages, accuracies = ([getattr(each, what).value for each in found] for what in ("coverage", "accuracy"))
    assert coverages == sorted(coverages, reverse=True)
    assert accuracies == sorted(accuracies)
    for each in found:
        assert each.accuracy.value > each.below
        assert each.coverage.low <= each.coverage.value <= each.coverage.high


def test_where_nothing_is_decided_the_accuracy_is_not_known() -> None:
    unsure = pd.DataFrame([one_row("happy", [0.35, 0.33, 0.32])] * 4).assign(clip=list("1234"), speaker=list("aabb"))
    last = metrics(unsure).as_dict()["abstention"][-1]
    assert last["coverage"]["value"] == 0
    assert last["accuracy"] == {"value": None, "low": None, "high": None}
