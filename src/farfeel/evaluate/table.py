"""The prediction table: one row per clip and room, `clip, speaker, room, target, p_<emotion>…`, kept as Parquet.

The order of the `p_` columns is the order of the emotions; each row's probabilities sum to 1. Columns `q_<emotion>`,
where there are any, are the same probabilities before calibration: the mean over a recording's windows (and over the
checkpoints of an ensemble) at temperature 1, which cannot be computed from the calibrated mean. Further columns
(position, snr_db, t60_s, …) are carried along and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

from farfeel.types import FarfeelError

FILE = "predictions.parquet"
NAMES = ("clip", "speaker", "room", "target")
ROW = ["clip", "room"]  # what identifies a row
PREFIX = "p_"
UNCALIBRATED = "q_"
SUM_TOLERANCE = 1e-3  # Softmax in bfloat16 is off by a few 1e-4; a logit or a percentage by far more.


def emotions_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Emotions in the order of the probability columns."""
    return tuple(str(column).removeprefix(PREFIX) for column in table.columns if str(column).startswith(PREFIX))


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """(N, K) float64 probabilities."""
    return np.asarray(table[[PREFIX + emotion for emotion in emotions_of(table)]], dtype=np.float64)


def uncalibrated(table: pd.DataFrame) -> pd.DataFrame | None:
    """The table as it would be without calibration; None where it does not tell."""
    columns = {PREFIX + emotion: UNCALIBRATED + emotion for emotion in emotions_of(table)}
    if not set(columns.values()) <= set(table.columns):
        return None
    return table.drop(columns=list(columns.values())).assign(**{p: table[q] for p, q in columns.items()})


def targets_of(table: pd.DataFrame) -> np.ndarray:
    """(N,) index of each row's target among the emotions."""
    return np.asarray(pd.Index(emotions_of(table)).get_indexer(table["target"]))


def read_predictions(path: Path) -> pd.DataFrame:
    """Evaluation folder or Parquet file → checked prediction table. Raises FarfeelError with one line."""
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise FarfeelError(f"{file} does not exist; expected the predictions of an evaluation; run farfeel evaluate")
    try:
        table = pd.read_parquet(file)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise FarfeelError(f"{file} cannot be read as Parquet ({reason}); run farfeel evaluate again") from None
    return checked(table, source=str(file))


def checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table with names as text and a fresh index, if it is a prediction table; else FarfeelError names `source`."""
    missing = [name for name in NAMES if name not in table.columns]
    if missing:
        raise FarfeelError(
            f"{source} has no column {', '.join(missing)}; expected {', '.join(NAMES)} and p_<emotion>…; "
            "make it with farfeel evaluate"
        )
    emotions = emotions_of(table)
    if len(emotions) < 2 or not table.columns.is_unique:
        found = f"{len(emotions)} column(s) p_<emotion>" if table.columns.is_unique else "two columns of one name"
        raise FarfeelError(f"{source} has {found}, expected one for each of two or more emotions; correct the columns")
    if table.empty:
        raise FarfeelError(f"{source} has no rows, expected one per clip and room; check the corpus and the split")
    for name in NAMES:
        if table[name].isna().any():
            raise FarfeelError(f"{source} has {table[name].isna().sum()} row(s) without a {name}; fill them in")
    known = [prefix + e for prefix in (PREFIX, UNCALIBRATED) for e in emotions if prefix + e in table.columns]
    wrong = [column for column in known if not pd.api.types.is_float_dtype(table[column])]
    if wrong:
        raise FarfeelError(f"{source}: column {wrong[0]} is not floating point, expected probabilities")
    table = table.astype(dict.fromkeys(NAMES, "str")).reset_index(drop=True)
    unknown = sorted(set(table["target"]) - set(emotions))
    if unknown:
        raise FarfeelError(
            f"{source} has the target {unknown[0]}, expected one of {', '.join(emotions)}; "
            "evaluate with a recipe that knows it, or leave those clips out"
        )
    duplicate = table[table.duplicated(ROW)]
    if len(duplicate):
        first = duplicate.iloc[0]
        raise FarfeelError(
            f"{source} has clip {first['clip']} in room {first['room']} twice ({len(duplicate)} such row(s)), "
            "expected one row per clip and room; give each condition its own room name"
        )
    raw = uncalibrated(table)
    for what, given in (("", table), (" before calibration (q_…)", raw)):
        bad = np.zeros(0, dtype=bool) if given is None else _no_probabilities(given)
        if bad.any():
            clip = table["clip"][int(np.argmax(bad))]
            raise FarfeelError(
                f"{source}: {bad.sum()} row(s), first clip {clip}, are no probabilities{what}; "
                "expected finite numbers from 0 to 1 with sum 1; write the softmax, not the logits"
            )
    return table


def _no_probabilities(table: pd.DataFrame) -> np.ndarray:
    """(N,) bool"""
    probabilities = probabilities_of(table)
    bad = ~np.isfinite(probabilities).all(axis=1) | (probabilities < 0).any(axis=1)
    return np.asarray(bad | ~(np.abs(np.nan_to_num(probabilities).sum(axis=1) - 1) <= SUM_TOLERANCE))


def aligned(tables: Mapping[str, pd.DataFrame], intersection: bool = False) -> dict[str, pd.DataFrame]:
    """Tables with the same rows in the order of the first and the same order of emotions, matched by clip and room.

    With `intersection` rows that some table lacks are left out; without it, and where target, speaker or emotions
    differ, FarfeelError.
    """
    remedy = "evaluate both on the same clips and rooms, or ask for the rows in common"
    first_name, first = next(iter(tables.items()))
    common = pd.MultiIndex.from_frame(first[ROW])
    for name, other in tables.items():
        if set(emotions_of(other)) != set(emotions_of(first)):
            raise FarfeelError(
                f"{first_name} has the emotions {', '.join(emotions_of(first))}, {name} has "
                f"{', '.join(emotions_of(other))}; evaluate both with the same emotions"
            )
        rows = pd.MultiIndex.from_frame(other[ROW])
        shared = common[common.isin(rows)]
        whole = len(shared) == len(common) == len(rows)
        if not len(shared) or not (whole or intersection):
            raise FarfeelError(
                f"{first_name} has {len(common)} rows and {name} {len(rows)}, {len(shared)} match by clip and room, "
                f"expected all; {remedy}"
            )
        common = shared
    result = {}
    for name, other in tables.items():
        at = pd.MultiIndex.from_frame(other[ROW]).get_indexer(common)
        result[name] = other.iloc[at].reset_index(drop=True)
        for fact in ("target", "speaker"):
            differ = result[name][fact].to_numpy() != result[first_name][fact].to_numpy()
            if differ.any():
                clip = common[int(np.argmax(differ))][0]
                raise FarfeelError(
                    f"{first_name} and {name} differ in the {fact} of {differ.sum()} row(s), first clip {clip}; "
                    "they are not of the same corpus; evaluate both on one"
                )
    for name, table in result.items():
        order = iter(emotions_of(first))
        result[name] = table[[PREFIX + next(order) if str(c).startswith(PREFIX) else c for c in table.columns]]
    return result


def ensemble(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean of the probabilities of several models on the same clips and rooms; all else is the first table's.

    Raises FarfeelError where the rows do not match.
    """
    members = list(aligned({f"table {i + 1}": table for i, table in enumerate(tables)}).values())
    before = [uncalibrated(member) for member in members]
    result = _all_or_none(members)[0].copy()
    for prefix, given in ((PREFIX, members), (UNCALIBRATED, [each for each in before if each is not None])):
        if len(given) == len(members):
            columns = [prefix + emotion for emotion in emotions_of(result)]
            result[columns] = np.mean([probabilities_of(member) for member in given], axis=0)
    return result


def concatenate(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Folds of a cross-validation (or rooms evaluated apart) → one table.

    Raises FarfeelError where a clip and room occur in two of them, which is no cross-validation: each clip is judged
    once, by the model that did not train on its speaker.
    """
    emotions = emotions_of(tables[0])
    for i, table in enumerate(tables):
        if set(emotions_of(table)) != set(emotions):
            raise FarfeelError(
                f"table {i + 1} has the emotions {', '.join(emotions_of(table))}, the first {', '.join(emotions)}; "
                "concatenate tables of the same emotions"
            )
    return checked(pd.concat(_all_or_none(tables), ignore_index=True), source="the concatenation")


def _all_or_none(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables, without their uncalibrated probabilities unless all have them."""
    if all(uncalibrated(table) is not None for table in tables):
        return list(tables)
    return [table.drop(columns=[UNCALIBRATED + e for e in emotions_of(table)], errors="ignore") for table in tables]
