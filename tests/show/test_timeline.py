"""Laws of a timeline's files: they say what the timeline says, hold together, and let no name become code."""

import csv
import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.show.intervals import clock, episodes, intervals
from farfeel.show.predictions import as_dict
from farfeel.show.timeline import (
    FORMATS,
    as_csv,
    as_html,
    as_json,
    as_textgrid,
    as_webvtt,
    format_of,
    render_timelines,
)
from farfeel.types import EMOTIONS, FarfeelError, Prediction, Timeline

PATH = Path("meeting.mp4")
CHECKPOINT = "runs/best"


def timeline(
    seconds: float = 20.0,
    step_s: float = 1.0,
    window_s: float = 4.0,
    seed: int = 0,
    emotions: tuple[str, ...] = EMOTIONS,
) -> Timeline:
    """Windows of random probabilities, some of silence, some undecided; and speech in spans of 1.2 s."""
    rng = np.random.default_rng(seed)
    count = 1 + max(0, int(np.ceil((seconds - window_s) / step_s)))
    predictions = []
    for index in range(count):
        quiet, start_s = rng.random() < 0.2, index * step_s
        shares = rng.dirichlet(np.full(len(emotions), 0.3))
        predictions.append(
            Prediction(
                probabilities=() if quiet else tuple(shares.tolist()),
                emotions=emotions,
                start_s=start_s,
                end_s=min(start_s + window_s, seconds),
                microphones=3,
                modalities=("audio", "video"),
                warnings=("microphone 2 is silent",) if index == 0 else (),
                speech_share=0.0 if quiet else 0.75,
                decided=bool(quiet or shares.max() > 0.4),
            )
        )
    speech = tuple((start_s, min(start_s + 1.2, seconds)) for start_s in np.arange(0.4, seconds, 2.5).tolist())
    return Timeline(tuple(predictions), speech, seconds, step_s, window_s)


TIMELINES = st.builds(
    timeline,
    seconds=st.floats(0.1, 90.0),
    step_s=st.sampled_from([0.1, 0.25, 0.3, 1.0, 2.0]),
    window_s=st.sampled_from([2.0, 4.0]),
    seed=st.integers(0, 9),
)


def tiers(text: str) -> dict[str, list[tuple[str, str, str]]]:
    """TextGrid → (xmin, xmax, text) of each tier's intervals."""
    found = {}
    for part in re.split(r"    item \[\d+\]:\n", text)[1:]:
        name = re.search(r'name = "(.*)"', part)
        assert name is not None
        pattern = r'intervals \[\d+\]:\s+xmin = (\S+)\s+xmax = (\S+)\s+text = "((?:[^"]|"")*)"'
        found[name[1]] = [(a, b, label.replace('""', '"')) for a, b, label in re.findall(pattern, part)]
        size = re.search(r"intervals: size = (\d+)", part)
        assert size is not None
        assert int(size[1]) == len(found[name[1]])
    return found


def test_json_has_the_values_of_predict_and_the_share_of_speech() -> None:
    line = timeline()
    rows = json.loads(as_json(PATH, line, CHECKPOINT))
    assert len(rows) == len(line.predictions)
    for row, prediction in zip(rows, line.predictions, strict=True):
        assert row["speech_share"] == prediction.speech_share
        assert row["label"] == prediction.label
        if prediction.probabilities:
            assert as_dict(PATH, prediction, CHECKPOINT).items() <= row.items()
        else:
            assert row["probabilities"] == {}


def test_csv_has_the_values_of_json() -> None:
    line = timeline()
    expected = json.loads(as_json(PATH, line, CHECKPOINT))
    for row, other in zip(csv.DictReader(io.StringIO(as_csv(PATH, line, CHECKPOINT))), expected, strict=True):
        assert row["label"] == (other["label"] or "")
        assert float(row["start_s"]) == other["start_s"]
        assert float(row["speech_share"]) == other["speech_share"]
        shares = {emotion: float(row[f"p_{emotion}"]) for emotion in EMOTIONS if row[f"p_{emotion}"]}
        assert shares == other["probabilities"]


@settings(deadline=None, max_examples=50)
@given(line=TIMELINES)
def test_each_interval_takes_the_window_centred_nearest(line: Timeline) -> None:
    parts = intervals(line)
    assert parts[0].start_s == 0
    assert parts[-1].end_s == line.seconds
    assert all(part.end_s == following.start_s for part, following in pairwise(parts))
    centres = np.array([(each.start_s + each.end_s) / 2 for each in line.predictions])
    for part in parts:
        gaps = np.abs(centres - (part.start_s + part.end_s) / 2)
        near = [line.predictions[index] for index in np.flatnonzero(gaps <= gaps.min() + 1e-9)]
        assert any(part.prediction is (each if each.probabilities else None) for each in near)


@settings(deadline=None, max_examples=50)
@given(line=TIMELINES)
def test_a_textgrid_tiles_the_recording_and_no_neighbours_are_alike(line: Timeline) -> None:
    for parts in tiers(as_textgrid(PATH, line, CHECKPOINT)).values():
        assert float(parts[0][0]) == 0
        assert parts[-1][1] == f"{line.seconds:.6f}"
        for (begin, end, label), (next_begin, _, next_label) in pairwise(parts):
            assert float(begin) < float(end)
            assert end == next_begin
            assert label != next_label


def test_a_textgrid_knows_speech_from_silence_and_doubles_quotes() -> None:
    line = timeline(emotions=('so "so"', "sad"))
    found = tiers(as_textgrid(PATH, line, CHECKPOINT))
    assert {label for _, _, label in found["emotion"]} == {'so "so"', "sad", ""}
    spoken = [(float(begin), float(end)) for begin, end, label in found["speech"] if label == "speech"]
    assert np.allclose(spoken, line.speech)


@settings(deadline=None, max_examples=50)
@given(line=TIMELINES)
def test_subtitles_ascend_without_overlap(line: Timeline) -> None:
    head, *cues = as_webvtt(PATH, line, CHECKPOINT).split("\n\n")
    assert head == "WEBVTT"
    last_s = 0.0
    for cue in cues:
        found = re.fullmatch(r"(\d\d):(\d\d):(\d\d\.\d{3}) --> (\d\d):(\d\d):(\d\d\.\d{3})\n(\w+) \d+ %", cue)
        assert found is not None
        start_s, end_s = (
            3600 * int(h) + 60 * int(m) + float(s) for h, m, s in (found.groups()[:3], found.groups()[3:6])
        )
        assert last_s <= start_s < end_s <= line.seconds + 5e-4
        last_s = end_s
        assert found[7] in EMOTIONS
    assert len(cues) == sum(1 for each in episodes(line) if each.label and round(1000 * (each.end_s - each.start_s)))


def test_silence_and_what_is_undecided_have_no_label() -> None:
    line = timeline(8.0)
    silent = replace(line, predictions=tuple(replace(each, probabilities=()) for each in line.predictions))
    unsure = replace(line, predictions=tuple(replace(each, decided=False) for each in line.predictions))
    for each in (silent, unsure):
        assert as_webvtt(PATH, each, CHECKPOINT) == "WEBVTT"
        assert [label for _, _, label in tiers(as_textgrid(PATH, each, CHECKPOINT))["emotion"]] == [""]
    assert 'class="area"' not in as_html(PATH, silent, CHECKPOINT)
    assert 'class="area"' in as_html(PATH, unsure, CHECKPOINT)


@pytest.mark.parametrize("seconds", [0.5, 3.9, 61.3, 10800.0])
def test_the_page_requests_nothing_from_a_network_and_stays_small(seconds: float) -> None:
    page = as_html(PATH, timeline(seconds), CHECKPOINT)
    assert not re.search(r"https?:|//\w|src=|@import|url\(", page)
    assert len(page) < 1_000_000
    assert "microphone 2 is silent" in page


def test_no_name_becomes_code_in_the_page() -> None:
    bad = "</script><script>alert(1)</script><img src=x onerror='alert(\"2\")'>"
    line = timeline(emotions=(bad, "sad"))
    line = replace(line, predictions=tuple(replace(each, warnings=(bad,)) for each in line.predictions))
    page = as_html(Path(bad.replace("/", "\\")), line, bad)
    assert page.count("<script") == 1
    assert page.count("</script") == 1
    assert "<img" not in page


@pytest.mark.parametrize("form", FORMATS)
def test_a_timeline_without_windows_can_be_written(form: str) -> None:
    for seconds in (0.0, 2.0):
        assert FORMATS[form](PATH, Timeline((), (), seconds, 1.0, 4.0), CHECKPOINT)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".html", ".TextGrid", ".textgrid", ".vtt"])
def test_the_suffix_chooses_the_form(suffix: str) -> None:
    assert format_of(Path(f"line{suffix}")) == suffix.removeprefix(".").lower()
    assert format_of(Path(f"line{suffix}")) in FORMATS


def test_an_unknown_suffix_is_one_clear_line() -> None:
    with pytest.raises(FarfeelError, match=r"line\.xyz ends in \.xyz, expected \.csv"):
        format_of(Path("line.xyz"))


def test_several_timelines_are_one_table() -> None:
    found = [(Path("a.wav"), timeline(seed=1)), (Path("b.wav"), timeline(seed=2))]
    rows = json.loads(render_timelines(found, CHECKPOINT, "json"))
    assert [row["path"] for row in rows] == ["a.wav"] * 17 + ["b.wav"] * 17
    assert len(render_timelines(found, CHECKPOINT, "csv").splitlines()) == 1 + 34
    assert "a.wav  (0:20" in render_timelines(found, CHECKPOINT, "table")


@pytest.mark.parametrize(
    ("time_s", "decimals", "text"),
    [(0, 0, "0:00"), (59.96, 1, "1:00.0"), (59.94, 1, "0:59.9"), (3599.6, 0, "1:00:00"), (10800, 0, "3:00:00")],
)
def test_time_is_written_in_minutes_and_hours(time_s: float, decimals: int, text: str) -> None:
    assert clock(time_s, decimals) == text
