"""Laws of results in Python: they show their label, are the command line's objects, and let no name become code."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from farfeel.show.predictions import as_csv, render
from farfeel.show.timeline import as_csv as timeline_csv
from farfeel.show.timeline import as_json
from farfeel.types import Prediction, Timeline

EMOTIONS = ("happy", "sad", "angry")
SURE = Prediction((0.81, 0.1, 0.09), EMOTIONS, 0.0, 3.9, 2, ("audio", "video"), ("microphone 1 is silent",))
SILENT = Prediction((), EMOTIONS, 1.0, 5.0, 0, (), speech_share=0.0)
WINDOW = replace(SURE, start_s=0.0, end_s=4.0, speech_share=0.87654)
LINE = Timeline((WINDOW, SILENT), ((0.2, 3.1),), 5.00049, 1.0, 4.0)


def read(text: str) -> pd.DataFrame:
    import io

    return pd.read_csv(io.StringIO(text), keep_default_na=True)


@pytest.mark.parametrize(
    ("prediction", "shown"),
    [
        (SURE, "Prediction(happy 81 %, 0.0–3.9 s)"),
        (SURE.abstaining(0.9), "Prediction(undecided, perhaps happy 81 %, 0.0–3.9 s)"),
        (SILENT, "Prediction(no speech, 1.0–5.0 s)"),
    ],
)
def test_a_prediction_shows_its_label(prediction: Prediction, shown: str) -> None:
    assert repr(prediction) == shown


def test_a_timeline_counts_its_labels() -> None:
    assert repr(LINE) == "Timeline(5.0 s, 2 windows: 1 happy, 1 without a label)"
    assert repr(replace(LINE, predictions=())) == "Timeline(5.0 s, 0 windows)"


def test_the_dict_of_a_prediction_is_the_object_of_the_command_line() -> None:
    (row,) = json.loads(render([(Path("a.wav"), SURE)], "runs/best", "json"))
    assert SURE.to_dict("a.wav", "runs/best") == row
    assert "speech_share" not in row


def test_the_dict_of_a_timeline_holds_the_rows_of_the_command_line() -> None:
    found = LINE.to_dict("a.wav", "runs/best")
    assert found["predictions"] == json.loads(as_json(Path("a.wav"), LINE, "runs/best"))
    assert [row["speech_share"] for row in found["predictions"]] == [0.877, 0.0]
    assert (found["seconds"], found["speech"]) == (5.0, [[0.2, 3.1]])
    assert json.loads(json.dumps(found)) == found


def test_a_window_without_a_search_for_speech_says_so_in_a_timeline() -> None:
    line = replace(LINE, predictions=(SURE,))
    assert line.to_dict()["predictions"][0]["speech_share"] is None


def test_the_frame_of_a_prediction_is_the_table_of_the_command_line() -> None:
    expected = read(as_csv([(Path("a.wav"), SURE)]))
    pd.testing.assert_frame_equal(SURE.to_frame("a.wav"), expected, check_dtype=False)


def test_the_frame_of_a_timeline_is_the_table_of_the_command_line() -> None:
    found, expected = LINE.to_frame("a.wav"), read(timeline_csv(Path("a.wav"), LINE, "runs/best"))
    assert list(found) == list(expected)
    numbers = ["start_s", "end_s", "p_happy", "p_sad", "p_angry", "microphones", "speech_share"]
    np.testing.assert_allclose(found[numbers].astype(float), expected[numbers].astype(float), atol=1e-3)
    assert found["p_happy"].isna().tolist() == [False, True]


def test_no_name_becomes_code_in_a_notebook() -> None:
    bad = "<img src=x onerror=alert(1)>"
    one = Prediction((0.5, 0.5), (bad, "sad"), 0.0, 1.0, warnings=(bad,))
    for shown in (one._repr_html_(), Timeline((one,), (), 1.0, 1.0, 1.0)._repr_html_()):
        assert "<img" not in shown
        assert "&lt;img" in shown
        assert "http" not in shown


@pytest.mark.parametrize("windows", [0, 1, 7, 5000])
def test_a_timeline_of_any_length_is_a_small_drawing(windows: int) -> None:
    predictions = tuple(replace(WINDOW, start_s=float(at), end_s=at + 4.0) for at in range(windows))
    shown = Timeline(predictions, (), windows + 3.0, 1.0, 4.0)._repr_html_()
    assert shown.count("<rect") == len(EMOTIONS) * min(windows, -(-windows // max(1, -(-windows // 240))))
    assert len(shown) < 150_000
