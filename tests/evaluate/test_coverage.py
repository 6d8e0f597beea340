"""How often the intervals hold the truth. `python tests/evaluate/test_coverage.py` prints the table that
`farfeel/evaluate/metrics.py` and `compare.py` quote; the tests run a small part of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from farfeel.evaluate.compare import compare
from farfeel.evaluate.metrics import LEVEL, SpeakerSums, metrics, values

Draw = Callable[..., pd.DataFrame]
HARD, EASY = {"logit": 0.4, "speaker_sd": 0.6}, {"logit": 2.4, "speaker_sd": 0.6}


def truth(draw: Draw, condition: dict[str, float]) -> np.ndarray:
    """SCORES of very many speakers: what the intervals are about."""
    table = draw(np.random.default_rng(0), speakers=800, clips=48, rooms=("dry", "lab"), **condition)
    return values(SpeakerSums(table).overall.sum(axis=0))


def coverage(draw: Draw, condition: dict[str, float], speakers: int, count: int, resamples: int) -> dict[str, float]:
    """Share of `count` tables whose interval holds the true accuracy, for each way to make one; and the true macro-F1.

    Not UAR: with as many clips of each emotion it is the accuracy."""
    expected = truth(draw, condition)
    held = dict.fromkeys(("t over speakers", "percentile over speakers", "percentile over clips", "t, macro-F1"), 0)
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    for i in range(count):
        rng = np.random.default_rng((speakers, i))
        table = draw(rng, speakers=speakers, clips=48, rooms=("dry", "lab"), **condition)
        ours = metrics(table, resamples=resamples, seed=i).overall
        sums = SpeakerSums(table)
        over_speakers = values(sums.draw(rng, resamples) @ sums.overall)[:, 0]
        by_clip = SpeakerSums(table.assign(speaker=table["clip"]))  # each clip a speaker of its own
        over_clips = values(by_clip.draw(rng, resamples) @ by_clip.overall)[:, 0]
        for name, (low, high), true in (
            ("t over speakers", (ours.accuracy.low, ours.accuracy.high), expected[0]),
            ("percentile over speakers", np.percentile(over_speakers, tails), expected[0]),
            ("percentile over clips", np.percentile(over_clips, tails), expected[0]),
            ("t, macro-F1", (ours.macro_f1.low, ours.macro_f1.high), expected[2]),
        ):
            held[name] += bool(low <= true <= high)
    return {name: held[name] / count for name in held}


def false_alarms(draw: Draw, speakers: int, count: int, resamples: int) -> float:
    """Share of comparisons with p < 0.05 of two systems that are equally good over all speakers: two independent
    draws, so that some speakers are easier for the one and some for the other."""
    alarms = 0
    for i in range(count):
        rng = np.random.default_rng((speakers, i, 1))
        a = draw(rng, speakers=speakers, clips=48, rooms=("dry", "lab"), **HARD)
        b = draw(rng, speakers=speakers, clips=48, rooms=("dry", "lab"), **HARD)
        alarms += compare(a, b, resamples=resamples, seed=i).overall.p_value < 0.05
    return alarms / count


def test_intervals_over_speakers_hold_the_truth_more_often_than_those_over_clips(fake_table: Draw) -> None:
    held = coverage(fake_table, HARD, speakers=7, count=40, resamples=200)
    assert held["percentile over clips"] < 0.85
    assert held["t over speakers"] > held["percentile over clips"] + 0.1
    assert held["t over speakers"] >= 0.85


def test_three_speakers_are_too_few_for_percentiles_and_enough_for_t(fake_table: Draw) -> None:
    held = coverage(fake_table, HARD, speakers=3, count=40, resamples=200)
    assert held["percentile over speakers"] < 0.85 <= held["t over speakers"]


if __name__ == "__main__":
    from conftest import draw_table

    for name, condition in (("hard", HARD), ("easy", EASY)):
        print(f"{name}: true accuracy {truth(draw_table, condition)[0]:.2f}")
        for speakers in (3, 7, 21):
            print(f"  {speakers} speakers", coverage(draw_table, condition, speakers, count=400, resamples=500))
    for speakers in (3, 7, 21):
        print(f"false alarms at 5 %, {speakers} speakers: {false_alarms(draw_table, speakers, 400, 500)}")
