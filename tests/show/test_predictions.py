"""Laws of results as text: each form says the same, and JSON and CSV are read back as they were written."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farfeel.evaluate.metrics import metrics
from farfeel.evaluate.text import systems_table
from farfeel.show.predictions import BAR, render
from farfeel.types import EMOTIONS, Prediction

KEYS = ["path", "start_s", "end_s", "label", "probabilities", "modalities", "microphones", "checkpoint", "warnings"]
names = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda n: "/" not in n
)


@st.composite
def predictions(draw: st.DrawFn) -> list[tuple[Path, Prediction]]:
    emotions = EMOTIONS[: draw(st.integers(2, len(EMOTIONS)))]
    found = []
    for _ in range(draw(st.integers(1, 3))):
        weights = draw(st.lists(st.floats(0.01, 1), min_size=len(emotions), max_size=len(emotions)))
        probabilities = tuple(weight / sum(weights) for weight in weights)
        warnings = tuple(draw(st.lists(names, max_size=2)))
        mics, end_s = draw(st.integers(1, 8)), draw(st.floats(0.1, 600))
        found.append((Path(draw(names)), Prediction(probabilities, emotions, 0.0, end_s, mics, warnings=warnings)))
    return found


@given(found=predictions())
def test_json_is_a_list_with_one_object_of_the_promised_keys_per_prediction(
    found: list[tuple[Path, Prediction]],
) -> None:
    read = json.loads(render(found, "runs/best", "json"))
    assert len(read) == len(found)
    for row, (path, prediction) in zip(read, found, strict=True):
        assert list(row) == KEYS
        assert (row["path"], row["label"], row["checkpoint"]) == (str(path), prediction.label, "runs/best")
        assert list(row["probabilities"]) == list(prediction.emotions)
        np.testing.assert_allclose(list(row["probabilities"].values()), prediction.probabilities, atol=1e-6)
        assert row["end_s"] == pytest.approx(prediction.end_s, abs=1e-3)
        assert (row["start_s"], row["microphones"], row["modalities"]) == (0.0, prediction.microphones, ["audio"])
        assert row["warnings"] == list(prediction.warnings)


@given(found=predictions())
def test_csv_has_the_values_of_json(found: list[tuple[Path, Prediction]]) -> None:
    rows = list(csv.DictReader(io.StringIO(render(found, "runs/best", "csv"))))
    objects = json.loads(render(found, "runs/best", "json"))
    assert len(rows) == len(objects)
    for row, said in zip(rows, objects, strict=True):
        assert (row["path"], row["label"]) == (said["path"], said["label"])
        assert {key[2:]: float(row[key]) for key in row if key.startswith("p_")} == said["probabilities"]
        assert (float(row["start_s"]), float(row["end_s"])) == (said["start_s"], said["end_s"])
        assert int(row["microphones"]) == said["microphones"]


@given(found=predictions())
def test_the_table_names_each_file_its_label_and_every_emotion_with_a_bar_of_its_share(
    found: list[tuple[Path, Prediction]],
) -> None:
    lines = render(found, "runs/best", "table").split("\n")
    for path, prediction in found:
        head, *bars = lines[: 1 + len(prediction.emotions)]
        assert head.startswith(f"{path}  (")
        assert f": {prediction.label} " in head
        assert [bar.split()[0] for bar in bars] == list(prediction.emotions)
        assert [bar.count("█") for bar in bars] == [round(p * BAR) for p in prediction.probabilities]
        lines = lines[1 + len(prediction.emotions) + len(prediction.warnings) :]
    assert not lines


def test_nothing_found_is_an_empty_list() -> None:
    assert json.loads(render([], "runs/best", "json")) == []


def test_systems_stand_side_by_side_one_row_per_room() -> None:
    rng = np.random.default_rng(1)
    rows = [
        {"clip": f"{speaker}-{i}", "speaker": speaker, "room": room, "target": EMOTIONS[i % 4]}
        for speaker in ("01", "02", "03")
        for i in range(8)
        for room in ("Hall", "Office")
    ]
    table = pd.DataFrame(rows)
    for emotion in EMOTIONS[:4]:
        table[f"p_{emotion}"] = 0.25 + 1e-3 * rng.random(len(table))
    table[[f"p_{e}" for e in EMOTIONS[:4]]] /= table[[f"p_{e}" for e in EMOTIONS[:4]]].sum(axis=1).to_numpy()[:, None]
    found = metrics(table)
    lines = systems_table({"one": found, "another": found}).split("\n")
    assert lines[0].split() == ["accuracy,", "%", "one", "another"]
    assert [line.split("  ")[0] for line in lines[2:-1]] == ["Hall", "Office", "mean over rooms", "UAR, overall"]
    assert f"{100 * found.rooms['Hall'].accuracy.value:.1f}" in lines[2]
    assert "3 speakers; 24 clips" in lines[-1]
