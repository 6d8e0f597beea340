"""Evaluate a checkpoint: recognise every item of a test set, write the tables and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from farfeel.corpora.corpus import SURROGATE
from farfeel.evaluate.metrics import Metrics
from farfeel.evaluate.prepared_test_set import PreparedEvaluationSet
from farfeel.evaluate.report import write_evaluation
from farfeel.evaluate.table import PREFIX, UNCALIBRATED, emotions_of
from farfeel.evaluate.test_set import NONE, Conditions, EvaluationItem, EvaluationSet
from farfeel.recipe import Data
from farfeel.recognise.recognizer import Recognizer
from farfeel.rooms.bank import Bank
from farfeel.shards.store import Shards
from farfeel.support.console import progress
from farfeel.types import Clip, FarfeelError

BATCH_RECORDINGS = 16  # in memory at once


def run_evaluation(
    recognizer: Recognizer,
    clips: Sequence[Clip],
    banks: Sequence[Bank],
    out: Path,
    mics: Sequence[int],
    details: dict[str, str],
    conditions: Conditions = NONE,
    data: Data | None = None,
    shards: Shards | None = None,
) -> Metrics:
    """Evaluate with a progress bar and write the evaluation's folder. `data`: the classes, where they are not those of
    the checkpoint. `shards`: the prepared corpus that the clips are of."""
    recipe = recognizer.recipe
    data = data or recipe.data
    recordings: EvaluationSet | PreparedEvaluationSet
    if shards:
        if conditions != NONE:
            raise FarfeelError("prepared clips are tested as they are; leave out --snr, --dead-mics and --camera-off")
        recordings = PreparedEvaluationSet(clips, recipe, shards, mics)
    else:
        recordings = EvaluationSet(clips, recipe, banks, mics, conditions=conditions)
    with progress("evaluating", "recordings") as advance:
        table = in_classes(prediction_table(recognizer, recordings, advance), data)
    heard = sum(clip.audio is not None for clip in clips) * (recipe.modalities != "video")
    filmed = sum(recordings.has_video(clip) for clip in clips) * (recipe.modalities != "audio")
    microphones = ", ".join(map(str, mics)) if banks or shards else "the dry signal"
    fewer = f"{', '.join(data.emotions)}; the checkpoint's others count as these or are out of the question"
    about = {
        "recipe": recipe.name,
        **({"classes": fewer} if set(data.emotions) != set(recognizer.emotions) else {}),
        "sound": f"{heard} of {len(clips)} clips",
        "film": f"{filmed} of {len(clips)} clips",
    }
    title = f"{recipe.name}: {recipe.modalities}, {recipe.microphones.strategy}"
    if any(clip.corpus.endswith(SURROGATE) for clip in clips):
        title += " (surrogate films: no result on people filmed while they speak)"
    return write_evaluation(table, out, title, details | about | ({"microphones": microphones} if heard else {}))


def in_classes(table: pd.DataFrame, data: Data) -> pd.DataFrame:
    """A prediction table in the classes of `data`: the probabilities of what counts as one class add up; what is no
    class is out of the question, and the rest is scaled to sum to 1."""
    known = emotions_of(table)
    if set(known) == set(data.emotions):
        return table
    columns: dict[str, np.ndarray] = {}
    for prefix in (PREFIX, UNCALIBRATED):
        of_class = [[e for e in known if data.merge.get(e, e) == emotion] for emotion in data.emotions]
        shares = np.stack([table[[prefix + e for e in some]].to_numpy().sum(axis=1) for some in of_class], axis=1)
        shares += np.finfo(np.float32).tiny  # a model may be sure of what is out of the question
        shares /= shares.sum(axis=1, keepdims=True)
        columns |= {prefix + emotion: shares[:, i] for i, emotion in enumerate(data.emotions)}
    rest = table.drop(columns=[prefix + e for prefix in (PREFIX, UNCALIBRATED) for e in known])
    return rest.assign(**columns)


def prediction_table(
    recognizer: Recognizer, recordings: Sequence[EvaluationItem], on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Prediction table of every recording: clip, speaker, room, position, target, p_<emotion>…, q_<emotion>… (before
    calibration); one row each."""
    rows = []
    for start in range(0, len(recordings), BATCH_RECORDINGS):
        batch = [recordings[i] for i in range(start, min(start + BATCH_RECORDINGS, len(recordings)))]
        found = recognizer.calibrated_and_not([take.recording for take in batch])
        for take, (calibrated, not_yet) in zip(batch, found, strict=True):
            clip = take.clip
            about = {"clip": clip.id, "speaker": clip.speaker, "room": take.room, "position": take.position}
            shares = {f"p_{emotion}": p for emotion, p in zip(recognizer.emotions, calibrated, strict=True)}
            shares |= {f"q_{emotion}": q for emotion, q in zip(recognizer.emotions, not_yet, strict=True)}
            rows.append(about | {"target": clip.emotion} | shares)
        if on_progress:
            on_progress(len(rows), len(recordings))
    return pd.DataFrame(rows)
