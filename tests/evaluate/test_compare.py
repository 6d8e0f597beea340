"""Laws of the paired comparison."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from farfeel.evaluate.compare import compare, holm, mcnemar
from farfeel.evaluate.metrics import LOSSES, SCORES, metrics
from farfeel.types import FarfeelError

Draw = Callable[..., pd.DataFrame]


@pytest.fixture
def pair(fake_table: Draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A worse and a better system on the same clips."""
    return tuple(fake_table(np.random.default_rng(seed), logit=logit) for seed, logit in ((1, 0.2), (2, 1.5)))


@pytest.mark.parametrize("metric", SCORES)
def test_a_table_does_not_differ_from_itself(pair: tuple[pd.DataFrame, pd.DataFrame], metric: str) -> None:
    found = compare(pair[0], pair[0].sample(frac=1, random_state=1), metric)
    for row in (found.overall, *found.rooms):
        assert row.difference == pytest.approx(0, abs=1e-12)
        assert row.p_value == row.mcnemar_p == 1
    assert "may be chance" in found.verdict()


@pytest.mark.parametrize("metric", SCORES)
def test_swapping_flips_the_sign_and_nothing_else(pair: tuple[pd.DataFrame, pd.DataFrame], metric: str) -> None:
    forth, back = compare(*pair, metric), compare(*reversed(pair), metric)
    for one, other in zip((forth.overall, *forth.rooms), (back.overall, *back.rooms), strict=True):
        assert one.difference == pytest.approx(-other.difference)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert (one.p_value, one.mcnemar_p) == pytest.approx((other.p_value, other.mcnemar_p))
        assert (one.only_a_right, one.only_b_right) == (other.only_b_right, other.only_a_right)


@pytest.mark.parametrize("metric", SCORES)
def test_values_are_those_of_each_evaluation(pair: tuple[pd.DataFrame, pd.DataFrame], metric: str) -> None:
    row = compare(*pair, metric).overall
    alone = [getattr(metrics(table).overall, metric).value for table in pair]
    assert [row.a, row.b] == pytest.approx(alone)
    assert row.difference == pytest.approx(alone[1] - alone[0])


def test_p_is_below_five_per_cent_exactly_where_the_interval_leaves_zero_out(fake_table: Draw) -> None:
    decisions = set()
    for seed in range(12):
        a = fake_table(np.random.default_rng(seed), logit=0.3)
        b = fake_table(np.random.default_rng(seed + 100), logit=0.9)
        for row in compare(a, b).rooms:
            assert (row.p_value < 0.05) == (row.low > 0 or row.high < 0)
            decisions.add(row.p_value < 0.05)
    assert decisions == {True, False}


def test_the_verdict_names_the_better_for_shares_and_for_losses(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for metric in ("accuracy", "uar", "nll"):
        found = compare(*pair, metric, names=("worse", "better"))
        assert found.overall.p_value < 0.05
        assert (found.overall.difference < 0) == (metric in LOSSES)
        assert found.verdict().startswith("better has")


def test_pairing_makes_the_interval_narrower_than_that_of_either_system(fake_table: Draw) -> None:
    """Speakers are easy or hard for both systems alike; the difference is free of that."""
    table = fake_table(np.random.default_rng(3), rooms=("dry",), speaker_sd=1.5)
    wrong = table["clip"].str.endswith(("00", "09"))  # two clips of each speaker get another target
    worse = table.copy()
    worse.loc[wrong, ["p_happy", "p_sad"]] = worse.loc[wrong, ["p_sad", "p_happy"]].to_numpy()
    row, alone = compare(worse, table).overall, metrics(table).overall.accuracy
    assert row.high - row.low < (alone.high - alone.low) / 2


def test_rows_that_do_not_match_are_counted_and_used_in_part_only_on_request(
    pair: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    a, b = pair
    part = b[b["room"] != "lab"]
    with pytest.raises(FarfeelError, match=f"{len(a)} rows and B has {len(part)}, {len(part)} match") as raised:
        compare(a, part)
    assert "\n" not in str(raised.value)
    found = compare(a, part, intersection=True)
    assert [row.room for row in found.rooms] == ["dry", "lounge"]
    assert found.as_dict() == compare(a[a["room"] != "lab"], part).as_dict()
    with pytest.raises(FarfeelError, match="0 match"):
        compare(a, b.assign(room=b["room"] + " elsewhere"), intersection=True)


def test_an_unknown_metric_is_one_line(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    with pytest.raises(FarfeelError, match="auc"):
        compare(*pair, "auc")


def test_one_speaker_is_no_comparison(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    a, b = (table[table["speaker"] == "actor-01"] for table in pair)
    found = compare(a, b)
    assert np.isnan(found.overall.p_value)
    assert "found 1 speaker, expected 2 or more" in found.verdict()
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["overall"]["p_value"] is None


def test_speakers_that_all_gain_alike_are_judged_by_their_number(decided: Draw) -> None:
    # One more of four clips right for each of five speakers: the sign test, 2 · (1/2)^5.
    emotions = ("happy", "sad")
    a = pd.concat([decided(["sad"] * 4, ["sad", "sad", "happy", "happy"], emotions, s) for s in "abcde"])
    b = pd.concat([decided(["sad"] * 4, ["sad", "sad", "sad", "happy"], emotions, s) for s in "abcde"])
    assert compare(a, b).overall.p_value == pytest.approx(2 * 0.5**5)


@given(a=st.integers(0, 60), b=st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test_of_a_fair_coin(a: int, b: int) -> None:
    assert mcnemar(a, b) == pytest.approx(stats.binomtest(a, a + b).pvalue if a + b else 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p)
    order = np.argsort(p_values)
    assert (np.diff(np.asarray(corrected)[order]) >= 0).all()
    assert corrected[order[0]] == pytest.approx(min(1.0, len(p_values) * p_values[order[0]]))


def test_holm_golden() -> None:
    # Holm (1979): multiply by 4, 3, 2, 1 from the smallest on, never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_printed_table_has_a_row_per_room_and_overall(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found = compare(*pair, names=("single", "average"))
    assert [row["room"] for row in found.rows()] == ["dry", "lab", "lounge", "all rooms"]
    text = found.as_text().splitlines()
    assert len(text) == 1 + 4 + 1 + 2
    assert {"single", "average"} <= set(text[0].split())
