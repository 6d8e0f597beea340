"""The prediction table: what is one, what is not, and how tables are put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from farfeel.evaluate.table import (
    checked,
    concatenate,
    emotions_of,
    ensemble,
    probabilities_of,
    read_predictions,
    uncalibrated,
)
from farfeel.types import FarfeelError

Draw = Callable[..., pd.DataFrame]


@pytest.fixture
def table(fake_table: Draw) -> pd.DataFrame:
    return fake_table(np.random.default_rng(1), speakers=4, clips=8)


def with_raw(table: pd.DataFrame) -> pd.DataFrame:
    """The table with uncalibrated columns, in another order."""
    raw = {"q_" + emotion: table["p_" + emotion] ** 2 for emotion in reversed(emotions_of(table))}
    total = sum(raw.values())
    return table.assign(**{column: values / total for column, values in raw.items()})


def test_what_is_written_is_read_with_all_its_columns(table: pd.DataFrame, tmp_path: Path) -> None:
    checked(table, source="it").to_parquet(tmp_path / "predictions.parquet", index=False)
    for path in (tmp_path, tmp_path / "predictions.parquet"):
        pd.testing.assert_frame_equal(read_predictions(path), table, check_dtype=False)
    assert emotions_of(table) == tuple(c.removeprefix("p_") for c in table.columns if c.startswith("p_"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.drop(columns="speaker"), "no column speaker"),
        (lambda t: t.drop(columns=[c for c in t if c.startswith("p_")]), "0 column"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: t.assign(speaker=[None, *t["speaker"][1:]]), "without a speaker"),
        (lambda t: t.assign(target="bored"), "the target bored"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "twice"),
        (lambda t: t.assign(p_sad=np.nan), "not probabilities"),
        (lambda t: t.assign(p_sad=np.inf), "not probabilities"),
        (lambda t: t.assign(p_sad=t["p_sad"] + 0.01), "not probabilities"),
        (lambda t: t.assign(p_sad=t["p_sad"] - 1, p_calm=t["p_calm"] + 1), "not probabilities"),
        (lambda t: t.assign(p_sad="high"), "not floating point"),
        (lambda t: with_raw(t).assign(q_sad="high"), "q_sad is not floating point"),
        (lambda t: with_raw(t).assign(q_sad=1.5), "not probabilities before calibration"),
    ],
)
def test_what_is_no_prediction_table_is_refused_in_one_line_when_written_and_when_read(
    table: pd.DataFrame, tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    spoilt = spoil(table)
    with pytest.raises(FarfeelError, match=says) as raised:
        checked(spoilt, source="the prediction table")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
    spoilt.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(FarfeelError, match=says):
        read_predictions(tmp_path / "b.parquet")


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="does not exist"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.parquet").write_bytes(b"half a fi")
    with pytest.raises(FarfeelError, match="cannot be read as Parquet") as raised:
        read_predictions(tmp_path)
    assert "\n" not in str(raised.value)


def test_names_that_are_numbers_become_text(table: pd.DataFrame, tmp_path: Path) -> None:
    table.assign(speaker=table["speaker"].str[-2:].astype(int)).to_parquet(tmp_path / "p.parquet", index=False)
    assert set(read_predictions(tmp_path / "p.parquet")["speaker"]) == {"1", "2", "3", "4"}


def test_an_ensemble_of_one_table_is_that_table_in_any_order(table: pd.DataFrame) -> None:
    shuffled = table.sample(frac=1, random_state=3)
    columns = list(shuffled.columns)
    reordered = shuffled[columns[:4] + columns[4:][::-1]]  # emotions in another order
    both = ensemble([table, reordered])
    pd.testing.assert_frame_equal(both, table)


def test_an_ensemble_is_the_mean_of_probabilities(fake_table: Draw, table: pd.DataFrame) -> None:
    other = fake_table(np.random.default_rng(2), speakers=4, clips=8)
    expected = (probabilities_of(table) + probabilities_of(other)) / 2
    np.testing.assert_allclose(probabilities_of(ensemble([table, other])), expected)


@pytest.mark.parametrize("change", ["row", "target", "speaker", "emotion"])
def test_an_ensemble_of_different_rows_is_refused(table: pd.DataFrame, change: str) -> None:
    other = {
        "row": table.iloc[1:],
        "target": table.assign(target=["disgust", *table["target"][1:]]),
        "speaker": table.assign(speaker="someone"),
        "emotion": table.rename(columns={"p_calm": "p_bored"}).assign(target="sad"),
    }[change]
    with pytest.raises(FarfeelError):
        ensemble([table, other])


def test_folds_together_are_the_whole_and_a_clip_judged_twice_is_refused(table: pd.DataFrame) -> None:
    fold = table["speaker"].isin(["actor-01", "actor-02"])
    whole = concatenate([table[fold], table[~fold]])
    order = ["room", "clip"]
    pd.testing.assert_frame_equal(
        whole.sort_values(order, ignore_index=True), table.sort_values(order, ignore_index=True), check_dtype=False
    )
    with pytest.raises(FarfeelError, match="twice"):
        concatenate([table[fold], table])


def test_uncalibrated_probabilities_replace_the_calibrated(table: pd.DataFrame) -> None:
    both = with_raw(table)
    found = uncalibrated(both)
    assert found is not None
    assert list(found.columns) == list(table.columns)
    assert (found["p_sad"] == both["q_sad"]).all()
    assert uncalibrated(table) is None


def test_uncalibrated_probabilities_are_averaged_and_joined_like_the_others_or_left_out(
    fake_table: Draw, table: pd.DataFrame
) -> None:
    other = fake_table(np.random.default_rng(2), speakers=4, clips=8).sample(frac=1, random_state=1)
    mean, raw = ensemble([with_raw(table), with_raw(other)]), [uncalibrated(with_raw(t)) for t in (table, other)]
    expected = ensemble([t for t in raw if t is not None])
    np.testing.assert_allclose(mean[["q_sad", "q_calm"]], expected[["p_sad", "p_calm"]])
    np.testing.assert_allclose(mean["p_sad"], ensemble([table, other])["p_sad"])
    assert uncalibrated(ensemble([with_raw(table), other])) is None
    halves = [table[table["speaker"] < "actor-03"], table[table["speaker"] >= "actor-03"]]
    assert uncalibrated(concatenate([with_raw(half) for half in halves])) is not None
    assert uncalibrated(concatenate([with_raw(halves[0]), halves[1]])) is None
