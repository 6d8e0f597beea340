"""Calibration: fit a model's temperatures on recordings that it was not trained on.

There is one temperature for each combination of inputs: audio alone, video alone, both. Each recording is recognised as
it is, without its video, and without its audio. A temperature maximises the likelihood of the recordings'
probabilities, which are means over windows, and not that of single windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from farfeel.evaluate.metrics import ece_by_chance, expected_calibration_error
from farfeel.evaluate.table import emotions_of, probabilities_of, targets_of, uncalibrated
from farfeel.evaluate.test_set import EvaluationItem
from farfeel.models.emotion import EmotionModel
from farfeel.recognise.decoding import views_of
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import in_batches
from farfeel.recognise.temperature import (
    COMBINATIONS,
    combinations_of,
    fit_temperature,
    mean_over_windows,
    negative_log_likelihood,
)
from farfeel.recognise.windows import Recording
from farfeel.types import FarfeelError

HEADING = "## Calibration"
UNDECIDED_BELOW = (0.5, 0.7)  # thresholds of farfeel predict --abstain-below whose effect is shown


@dataclass(frozen=True)
class Fitted:
    """The result for one combination of inputs.

    nll, ece: negative log-likelihood and expected calibration error of the recordings it was fitted on, before and
    after calibration. ece_by_chance: the mean expected calibration error that perfectly calibrated probabilities would
    have on as many recordings. ece_of_others: the error if each speaker gets the temperature fitted on all other
    speakers. answered_by_others: with these temperatures, for each threshold of UNDECIDED_BELOW the share of recordings
    that get a label and the share of these that are right. Both are None if there is only one speaker.
    """

    combination: str
    temperature: float
    recordings: int
    nll: tuple[float, float]
    ece: tuple[float, float]
    ece_of_others: float | None
    answered_by_others: tuple[tuple[float, float], ...] | None
    ece_by_chance: float

    def line(self) -> str:
        """The result as one line of labelled values."""
        others = "" if self.ece_of_others is None else f", {self.ece_of_others:.3f} on speakers not fitted on"
        undecided = "".join(
            f"; with --abstain-below {below}: {share:.0%} get a label, {right:.0%} of these right"
            for below, (share, right) in zip(UNDECIDED_BELOW, self.answered_by_others or (), strict=False)
            if share > 0
        )
        return (
            f"{self.combination}: temperature {self.temperature:.3f}; expected calibration error {self.ece[0]:.3f} "
            f"before, {self.ece[1]:.3f} after{others} ({self.ece_by_chance:.3f} would remain by chance with this many "
            f"recordings); negative log-likelihood {self.nll[0]:.3f} before, {self.nll[1]:.3f} after; "
            f"{self.recordings} recordings{undecided}"
        )


def calibrate(
    model: EmotionModel,
    recordings: Sequence[EvaluationItem],
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Fitted]:
    """Fit `model.temperature` on these recordings.

    model: its temperatures are changed in place. A combination of inputs that no recording has keeps temperature 1.
    device: PyTorch device to compute on. on_progress: called with (recordings done, recordings in all).
    Returns the result for each combination that occurs.
    """
    model.temperature.fill_(1.0)
    engine, recipe = TorchEngine(model, device), model.recipe
    windows: list[list[np.ndarray]] = [[] for _ in COMBINATIONS]
    targets: list[list[int]] = [[] for _ in COMBINATIONS]
    speakers: list[list[str]] = [[] for _ in COMBINATIONS]
    for done, item in enumerate(recordings, start=1):
        for recording in _with_each_modality(item.recording, recipe.modalities):
            (view,) = views_of(recording, [recipe])
            combinations = combinations_of(recipe.modalities, view.windows.mic_mask, view.seen)
            if (combinations == combinations[0]).all():  # a video that ends early leaves windows of two combinations
                inputs = view.windows.audio, view.windows.mic_mask, view.frames, view.seen
                windows[combinations[0]].append(in_batches(engine, *inputs))
                targets[combinations[0]].append(recipe.data.emotions.index(item.clip.emotion))
                speakers[combinations[0]].append(item.clip.speaker)
        if on_progress:
            on_progress(done, len(recordings))
    results = []
    for index, combination in enumerate(COMBINATIONS):
        if windows[index]:
            results.append(_fitted(combination, windows[index], np.array(targets[index]), np.array(speakers[index])))
            model.temperature[index] = results[-1].temperature
    return results


def calibrate_by(model: EmotionModel, table: pd.DataFrame) -> Fitted:
    """Fit one temperature on the predictions of other models, for a model that was trained on all speakers.

    model: its temperature of audio alone is changed in place; of a model of video, that of video alone.
    table: predictions of the models of a cross-validation with the same recipe, each on speakers that it was not
    trained on. A recording of several windows counts once, by its mean.
    Raises FarfeelError if the table has other emotions, or lacks the probabilities before calibration.
    """
    emotions, raw = model.recipe.data.emotions, uncalibrated(table)
    if emotions_of(table) != emotions:
        raise FarfeelError(
            f"the evaluations have the emotions {', '.join(emotions_of(table))}, the checkpoint has "
            f"{', '.join(emotions)}, expected the same in the same order; use evaluations of checkpoints of the same "
            "recipe"
        )
    if raw is None:
        raise FarfeelError("the evaluations have no columns q_<emotion>; run farfeel evaluate again")
    index = 1 if model.recipe.modalities == "video" else 0  # of COMBINATIONS
    windows, speakers = list(probabilities_of(raw)[:, None]), raw["speaker"].to_numpy(str)
    result = _fitted(COMBINATIONS[index], windows, targets_of(raw), speakers)
    model.temperature[index] = result.temperature
    return result


def card_with(card: str, fitted: Sequence[Fitted], fitted_on: str) -> str:
    """A checkpoint's card with a section on its calibration, at the end. It replaces that of an earlier calibration.

    card: the text of card.md. fitted: results of `calibrate`. fitted_on: the recordings in words.
    """
    lines = [
        HEADING,
        "",
        f"Temperatures of maximum likelihood (Guo et al., 2017), fitted on {fitted_on}. The expected calibration "
        "error has 15 bins; with few recordings in a bin, chance adds to it. Values after calibration are of the same "
        "recordings. Values on speakers not fitted on, and those with --abstain-below, give each speaker the "
        "temperature fitted on all other speakers.",
        "",
        *(f"- {result.line()}" for result in fitted),
    ]
    return card.partition(HEADING)[0].rstrip() + "\n\n" + "\n".join(lines) + "\n"


def _with_each_modality(recording: Recording, modalities: str) -> Iterator[Recording]:
    """The recording as it is; for a model of both also its audio alone and its video alone."""
    yield recording
    if modalities == "both" and recording.audio is not None and recording.video is not None:
        yield Recording(recording.audio)
        yield Recording(None, recording.video)


def _fitted(combination: str, windows: list[np.ndarray], target: np.ndarray, speakers: np.ndarray) -> Fitted:
    temperature = fit_temperature(windows, target)
    before, after = mean_over_windows(windows, 1.0), mean_over_windows(windows, temperature)
    others = _by_others(windows, target, speakers)
    return Fitted(
        combination,
        temperature,
        len(target),
        (negative_log_likelihood(before, target), negative_log_likelihood(after, target)),
        (_error(before, target), _error(after, target)),
        None if others is None else _error(others, target),
        None if others is None else tuple(_answered(others, target, below) for below in UNDECIDED_BELOW),
        ece_by_chance(after.max(axis=1), np.random.default_rng(0)),
    )


def _error(probabilities: np.ndarray, target: np.ndarray) -> float:
    return expected_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == target)


def _answered(probabilities: np.ndarray, target: np.ndarray, below: float) -> tuple[float, float]:
    """Share of recordings whose highest probability is at least `below`, and the share of these that are right."""
    sure = probabilities.max(axis=1) >= below
    return float(sure.mean()), float((probabilities.argmax(axis=1) == target)[sure].mean()) if sure.any() else np.nan


def _by_others(windows: list[np.ndarray], target: np.ndarray, speakers: np.ndarray) -> np.ndarray | None:
    """(N, K) probabilities, each speaker with the temperature fitted on all others. None if there is one speaker."""
    if len(people := np.unique(speakers)) < 2:
        return None
    probabilities = np.empty((len(target), windows[0].shape[1]))
    for person in people:
        own = np.flatnonzero(speakers == person)
        others = np.flatnonzero(speakers != person)
        temperature = fit_temperature([windows[i] for i in others], target[others])
        probabilities[own] = mean_over_windows([windows[i] for i in own], temperature)
    return probabilities
