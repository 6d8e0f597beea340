"""The prediction table: one row per clip and room, columns `clip, speaker, room, target, p_<emotion>…`, as Parquet.

The order of the `p_` columns is the order of the emotions. The probabilities of a row sum to 1. The optional columns
`q_<emotion>` are the same probabilities before calibration: the mean over a recording's windows (and over the
checkpoints of an ensemble) at temperature 1. They cannot be computed from the calibrated mean. Further columns
(position, snr_db, t60_s, …) are kept and not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from farfeel.support.reading import damage, read_parquet
from farfeel.types import FarfeelError

FILE = "predictions.parquet"
NAMES = ("clip", "speaker", "room", "target")
ROW = ["clip", "room"]  # what identifies a row
PREFIX = "p_"
UNCALIBRATED = "q_"
MOST_ROWS, MOST_BYTES = 10_000_000, 1 << 32  # of a table that is read
SUM_TOLERANCE = 1e-3  # a softmax in bfloat16 errs by a few 1e-4, logits or percentages by far more


def emotions_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Emotions in the order of the probability columns."""
    return tuple(str(column).removeprefix(PREFIX) for column in table.columns if str(column).startswith(PREFIX))


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """(N, K) float64 probabilities."""
    return np.asarray(table[[PREFIX + emotion for emotion in emotions_of(table)]], dtype=np.float64)


def uncalibrated(table: pd.DataFrame) -> pd.DataFrame | None:
    """The table with the probabilities before calibration; None if it has no columns q_<emotion>."""
    columns = {PREFIX + emotion: UNCALIBRATED + emotion for emotion in emotions_of(table)}
    if not set(columns.values()) <= set(table.columns):
        return None
    return table.drop(columns=list(columns.values())).assign(**{p: table[q] for p, q in columns.items()})


def targets_of(table: pd.DataFrame) -> np.ndarray:
    """(N,) index of each row's target among the emotions."""
    return np.asarray(pd.Index(emotions_of(table)).get_indexer(table["target"]))


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a prediction table.

    path: folder of an evaluation, or a Parquet file. Returns the checked table.
    Raises FarfeelError if the file does not exist, cannot be read, or is no prediction table.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise FarfeelError(f"{file} does not exist, expected the predictions of an evaluation; run farfeel evaluate")
    with damage(lambda reason: f"{file} cannot be read as Parquet ({reason}); run farfeel evaluate again"):
        # Without pandas' own metadata: they can turn columns into an index.
        table = read_parquet(file, MOST_ROWS, MOST_BYTES).replace_schema_metadata().to_pandas()
    with damage(lambda reason: f"{file} is no prediction table ({reason}); run farfeel evaluate again"):
        return checked(table, source=str(file))


def checked(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table with names as text and a new index.

    source: name of the table in errors. Raises FarfeelError if it is no prediction table: a column or value is missing,
    a target is unknown, a clip and room occur twice, or a row's probabilities do not sum to 1.
    """
    missing = [name for name in NAMES if name not in table.columns]
    if missing:
        raise FarfeelError(
            f"{source} has no column {', '.join(missing)}; expected {', '.join(NAMES)} and p_<emotion>…; "
            "make it with farfeel evaluate"
        )
    emotions = emotions_of(table)
    if len(emotions) < 2 or not table.columns.is_unique:
        number = f"{len(emotions)} column(s) p_<emotion>" if table.columns.is_unique else "two columns of one name"
        raise FarfeelError(f"{source} has {number}, expected one for each of two or more emotions; correct the columns")
    if table.empty:
        raise FarfeelError(f"{source} has no rows, expected one per clip and room; check the corpus and the split")
    for name in NAMES:
        if table[name].isna().any():
            raise FarfeelError(f"{source} has {table[name].isna().sum()} row(s) without a {name}; fill them in")
    known = [prefix + e for prefix in (PREFIX, UNCALIBRATED) for e in emotions if prefix + e in table.columns]
    wrong = [column for column in known if not pd.api.types.is_float_dtype(table[column])]
    if wrong:
        raise FarfeelError(f"{source}: column {wrong[0]} is not floating point, expected probabilities; convert it")
    table = table.astype(dict.fromkeys(NAMES, "str")).reset_index(drop=True)
    unknown = sorted(set(table["target"]) - set(emotions))
    if unknown:
        raise FarfeelError(
            f"{source} has the target {unknown[0]}, expected one of {', '.join(emotions)}; "
            "evaluate with a recipe that has this emotion, or remove these clips"
        )
    duplicate = table[table.duplicated(ROW)]
    if len(duplicate):
        first = duplicate.iloc[0]
        raise FarfeelError(
            f"{source} has clip {first['clip']} in room {first['room']} twice ({len(duplicate)} row(s) are repeated), "
            "expected one row per clip and room; give each condition a room name of its own"
        )
    raw = uncalibrated(table)
    for what, part in (("", table), (" before calibration (q_…)", raw)):
        bad = np.zeros(0, dtype=bool) if part is None else _no_probabilities(part)
        if bad.any():
            clip = table["clip"][int(np.argmax(bad))]
            raise FarfeelError(
                f"{source}: {bad.sum()} row(s), first clip {clip}, are not probabilities{what}, "
                "expected finite numbers from 0 to 1 with sum 1; write the softmax, not the logits"
            )
    return table


def _no_probabilities(table: pd.DataFrame) -> np.ndarray:
    """(N,) bool: rows that are not finite, have a negative number, or do not sum to 1."""
    probabilities = probabilities_of(table)
    bad = ~np.isfinite(probabilities).all(axis=1) | (probabilities < 0).any(axis=1)
    return np.asarray(bad | ~(np.abs(np.nan_to_num(probabilities).sum(axis=1) - 1) <= SUM_TOLERANCE))


def aligned(tables: Mapping[str, pd.DataFrame], intersection: bool = False) -> dict[str, pd.DataFrame]:
    """Tables with the same rows and emotions in the same order as the first, matched by clip and room.

    tables: name → prediction table. intersection: drop rows that some table lacks.
    Raises FarfeelError if targets, speakers or emotions differ, or if rows differ without `intersection`.
    """
    remedy = (
        "evaluate both on the same clips and rooms, or use only the rows in common (farfeel compare --intersection)"
    )
    first_name, first = next(iter(tables.items()))
    common = pd.MultiIndex.from_frame(first[ROW])
    for name, other in tables.items():
        if set(emotions_of(other)) != set(emotions_of(first)):
            raise FarfeelError(
                f"{first_name} has the emotions {', '.join(emotions_of(first))}, {name} has "
                f"{', '.join(emotions_of(other))}, expected the same; evaluate both with the same emotions"
            )
        rows = pd.MultiIndex.from_frame(other[ROW])
        shared = common[common.isin(rows)]
        whole = len(shared) == len(common) == len(rows)
        if not len(shared) or not (whole or intersection):
            raise FarfeelError(
                f"{first_name} has {len(common)} rows and {name} has {len(rows)}, {len(shared)} match by clip and "
                f"room, expected all to match; {remedy}"
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
                    f"{first_name} and {name} differ in the {fact} of {differ.sum()} row(s), first clip {clip}, "
                    "expected the same; evaluate both on the same corpus"
                )
    for name, table in result.items():
        order = iter(emotions_of(first))
        result[name] = table[[PREFIX + next(order) if str(c).startswith(PREFIX) else c for c in table.columns]]
    return result


def ensemble(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of the probabilities of several models on the same clips and rooms.

    tables: one prediction table per model. Returns the first table with the mean probabilities.
    Raises FarfeelError if the rows do not match.
    """
    members = list(aligned({f"table {i + 1}": table for i, table in enumerate(tables)}).values())
    before = [uncalibrated(member) for member in members]
    result = _all_or_none(members)[0].copy()
    for prefix, complete in ((PREFIX, members), (UNCALIBRATED, [table for table in before if table is not None])):
        if len(complete) == len(members):
            columns = [prefix + emotion for emotion in emotions_of(result)]
            result[columns] = np.mean([probabilities_of(member) for member in complete], axis=0)
    return result


def concatenate(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the folds of a cross-validation, or evaluations in different rooms, into one table.

    Raises FarfeelError if the emotions differ, or if a clip and room occur in two tables: in a cross-validation each
    clip is tested once, by the model that was not trained on its speaker.
    """
    emotions = emotions_of(tables[0])
    for i, table in enumerate(tables):
        if set(emotions_of(table)) != set(emotions):
            raise FarfeelError(
                f"table {i + 1} has the emotions {', '.join(emotions_of(table))}, the first {', '.join(emotions)}, "
                "expected the same; join only tables with the same emotions"
            )
    return checked(pd.concat(_all_or_none(tables), ignore_index=True), source="the joined table")


def _all_or_none(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables; without the columns q_<emotion> if one of them lacks these."""
    if all(uncalibrated(table) is not None for table in tables):
        return list(tables)
    return [table.drop(columns=[UNCALIBRATED + e for e in emotions_of(table)], errors="ignore") for table in tables]
