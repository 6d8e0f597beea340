"""Calibration: a temperature for each combination of what a model can take, fitted on recordings it did not train on.

They go the recogniser's way, as they are, without their film and without their sound; what is fitted is the
likelihood of the recordings' probabilities (means over windows), not that of single windows.
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
UNDECIDED_BELOW = (0.5, 0.7)  # thresholds of farfeel predict --abstain-below whose worth is told


@dataclass(frozen=True)
class Fitted:
    """What became of one combination: NLL and ECE (before, after) of the recordings it was fitted on, and the ECE of
    perfect probabilities of as few. Where each speaker has the temperature of the others (None: there is one): the ECE,
    and for each of UNDECIDED_BELOW the share of recordings that are still answered, and of these the share right."""

    combination: str
    temperature: float
    recordings: int
    nll: tuple[float, float]
    ece: tuple[float, float]
    ece_of_others: float | None
    answered_by_others: tuple[tuple[float, float], ...] | None
    ece_by_chance: float

    def line(self) -> str:
        others = "" if self.ece_of_others is None else f"; {self.ece_of_others:.3f} by the others' temperature"
        undecided = "".join(
            f"; undecided below {below}: {share:.0%} answered, {right:.0%} of these right"
            for below, (share, right) in zip(UNDECIDED_BELOW, self.answered_by_others or (), strict=False)
            if share > 0
        )
        return (
            f"{self.combination}: temperature {self.temperature:.3f}; ECE {self.ece[0]:.3f} before, "
            f"{self.ece[1]:.3f} after{others} ({self.ece_by_chance:.3f} were it perfect); "
            f"NLL {self.nll[0]:.3f} before, {self.nll[1]:.3f} after; {self.recordings} recordings{undecided}"
        )


def calibrate(
    model: EmotionModel,
    recordings: Sequence[EvaluationItem],
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Fitted]:
    """Set `model.temperature`, and tell what was fitted. A combination that no recording has keeps 1."""
    model.temperature.fill_(1.0)
    engine, recipe = TorchEngine(model, device), model.recipe
    windows: list[list[np.ndarray]] = [[] for _ in COMBINATIONS]
    targets: list[list[int]] = [[] for _ in COMBINATIONS]
    speakers: list[list[str]] = [[] for _ in COMBINATIONS]
    for index, take in enumerate(recordings):
        for recording in _with_less(take.recording, recipe.modalities):
            (view,) = views_of(recording, [recipe])
            which = combinations_of(recipe.modalities, view.windows.mic_mask, view.seen)
            if (which == which[0]).all():  # A film that ends early leaves windows of two combinations.
                heard = view.windows.audio, view.windows.mic_mask, view.frames, view.seen
                windows[which[0]].append(in_batches(engine, *heard))
                targets[which[0]].append(recipe.data.emotions.index(take.clip.emotion))
                speakers[which[0]].append(take.clip.speaker)
        if on_progress:
            on_progress(index + 1, len(recordings))
    fitted = []
    for place, combination in enumerate(COMBINATIONS):
        if windows[place]:
            fitted.append(_fitted(combination, windows[place], np.array(targets[place]), np.array(speakers[place])))
            model.temperature[place] = fitted[-1].temperature
    return fitted


def calibrate_by(model: EmotionModel, table: pd.DataFrame) -> Fitted:
    """Set the temperature of sound alone (of a model of film: of film alone) by the predictions of other models: those
    of a cross-validation, trained and tested in the same way, where this one has learned every speaker there is.

    A recording of several windows counts as one, by its mean. Raises FarfeelError where the table has other emotions,
    or does not tell what its probabilities were before calibration.
    """
    emotions, raw = model.recipe.data.emotions, uncalibrated(table)
    if emotions_of(table) != emotions:
        raise FarfeelError(
            f"the evaluations know {', '.join(emotions_of(table))}, the checkpoint {', '.join(emotions)}; "
            "expected the same emotions in the same order; take evaluations of checkpoints of its kind"
        )
    if raw is None:
        raise FarfeelError("the evaluations have no columns q_<emotion>; make them with farfeel evaluate")
    place = 1 if model.recipe.modalities == "video" else 0
    windows, speakers = list(probabilities_of(raw)[:, None]), raw["speaker"].to_numpy(str)
    fitted = _fitted(COMBINATIONS[place], windows, targets_of(raw), speakers)
    model.temperature[place] = fitted.temperature
    return fitted


def card_with(card: str, fitted: Sequence[Fitted], about: str) -> str:
    """A checkpoint's card with what was fitted; an earlier calibration's section, its last, is replaced."""
    lines = [
        HEADING,
        "",
        f"Temperatures that make the recordings' probabilities likeliest (Guo et al., 2017), fitted on {about}. ECE "
        "(15 bins) counts chance in bins with few recordings as error. After: of the same recordings; by the others' "
        "temperature, and undecided (--abstain-below): each speaker with the temperature of all but that one.",
        "",
        *(f"- {each.line()}" for each in fitted),
    ]
    return card.partition(HEADING)[0].rstrip() + "\n\n" + "\n".join(lines) + "\n"


def _with_less(recording: Recording, modalities: str) -> Iterator[Recording]:
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
    sure = probabilities.max(axis=1) >= below
    return float(sure.mean()), float((probabilities.argmax(axis=1) == target)[sure].mean()) if sure.any() else np.nan


def _by_others(windows: list[np.ndarray], target: np.ndarray, speakers: np.ndarray) -> np.ndarray | None:
    """(N, K) where each speaker has the temperature of the others: as on people who were not fitted on."""
    if len(people := np.unique(speakers)) < 2:
        return None
    probabilities = np.empty((len(target), windows[0].shape[1]))
    for person in people:
        own = np.flatnonzero(speakers == person)
        others = np.flatnonzero(speakers != person)
        temperature = fit_temperature([windows[i] for i in others], target[others])
        probabilities[own] = mean_over_windows([windows[i] for i in own], temperature)
    return probabilities
