"""Evaluate a model: recognise every recording of a test set, and write the predictions, metrics and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from farfeel.corpora.corpus import SURROGATE
from farfeel.corpora.labels import label_details
from farfeel.evaluate.metrics import Metrics
from farfeel.evaluate.prepared_test_set import PreparedEvaluationSet
from farfeel.evaluate.report import write_evaluation
from farfeel.evaluate.table import PREFIX, UNCALIBRATED, emotions_of
from farfeel.evaluate.test_set import NONE, Conditions, EvaluationItem, EvaluationSet
from farfeel.recipe import Data, Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.rooms.bank import Bank
from farfeel.shards.store import Shards
from farfeel.support.console import progress
from farfeel.types import Clip, FarfeelError

BATCH_RECORDINGS = 16  # recordings in memory at once


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
    """Evaluate, show a progress bar, and write the folder of the evaluation.

    clips: what to test on. banks: rooms to test in; none means dry speech. out: folder to write.
    mics: microphones to use, numbered from 0. details: facts for the report's section "Protocol".
    conditions: noise, dead microphones and missing video to add. data: emotions and their merging, if they differ from
    the checkpoint's. shards: the prepared corpus of the clips; then `banks` is not used.
    Returns the metrics. Raises FarfeelError if the conditions cannot be met.
    """
    recipe = recognizer.recipe
    data = data or recipe.data
    recordings: EvaluationSet | PreparedEvaluationSet
    if shards:
        if conditions != NONE:
            raise FarfeelError("prepared clips are tested as they are; remove --snr, --dead-mics and --camera-off")
        recordings = PreparedEvaluationSet(clips, recipe, shards, mics)
    else:
        recordings = EvaluationSet(clips, recipe, banks, mics, conditions=conditions)
    with progress("evaluating", "recordings") as advance:
        table = in_classes(prediction_table(recognizer, recordings, advance), data)
    with_audio = sum(clip.audio is not None for clip in clips) * (recipe.modalities != "video")
    with_video = sum(recordings.has_video(clip) for clip in clips) * (recipe.modalities != "audio")
    microphones = ", ".join(map(str, mics)) if banks or shards else "the dry signal"
    classes = f"{', '.join(data.emotions)}; the checkpoint's other emotions are merged into these or ignored"
    facts = {
        "recipe": recipe.name,
        **({"classes": classes} if set(data.emotions) != set(recognizer.emotions) else {}),
        "sound": f"{with_audio} of {len(clips)} clips",
        "film": f"{with_video} of {len(clips)} clips",
    }
    title = f"{recipe.name}: {recipe.modalities}, {recipe.microphones.strategy}"
    if any(clip.corpus.endswith(SURROGATE) for clip in clips):
        title += " (surrogate video: not a result on video of people who speak)"
    return write_evaluation(table, out, title, details | facts | ({"microphones": microphones} if with_audio else {}))


def protocol(
    recipe: Recipe,
    clips: Sequence[Clip],
    source: str,
    part: str,
    rooms: Sequence[Path],
    shards: Shards | None,
    conditions: Conditions,
    modalities: str | None = None,
) -> dict[str, str]:
    """The facts for the report's section "Protocol" that every evaluation has.

    source: where the clips are from. part: the part of the split. rooms: the banks. modalities: those that were chosen
    for the test; None: nobody chose.
    """
    without_banks = "those of the shards" if shards else "none (dry speech)"
    return {
        "corpus": f"{', '.join(sorted({clip.corpus for clip in clips}))} ({source})",
        **label_details(recipe.data),
        "split": f"{recipe.data.split}, {part} part",
        "rooms": ", ".join(map(str, rooms)) or without_banks,
        **({} if modalities is None else {"tested on": modalities}),
        "front-end": recipe.microphones.front_end,
        **conditions.as_details(),
    }


def in_classes(table: pd.DataFrame, data: Data) -> pd.DataFrame:
    """A prediction table with the classes of `data` instead of the model's emotions.

    Probabilities of emotions that count as one class are added. Emotions that are no class are dropped, and the rest is
    scaled to sum to 1.
    """
    known = emotions_of(table)
    if set(known) == set(data.emotions):
        return table
    columns: dict[str, np.ndarray] = {}
    for prefix in (PREFIX, UNCALIBRATED):
        of_class = [[e for e in known if data.merge.get(e, e) == emotion] for emotion in data.emotions]
        shares = np.stack([table[[prefix + e for e in some]].to_numpy().sum(axis=1) for some in of_class], axis=1)
        shares += np.finfo(np.float32).tiny  # all probability may be on dropped emotions
        shares /= shares.sum(axis=1, keepdims=True)
        columns |= {prefix + emotion: shares[:, i] for i, emotion in enumerate(data.emotions)}
    rest = table.drop(columns=[prefix + e for prefix in (PREFIX, UNCALIBRATED) for e in known])
    return rest.assign(**columns)


def prediction_table(
    recognizer: Recognizer, recordings: Sequence[EvaluationItem], on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Recognise every recording.

    Returns a table with one row each and the columns clip, speaker, room, position, target, p_<emotion>… and
    q_<emotion>… (before calibration). on_progress: called with (recordings done, recordings in all).
    """
    rows = []
    for start in range(0, len(recordings), BATCH_RECORDINGS):
        batch = [recordings[i] for i in range(start, min(start + BATCH_RECORDINGS, len(recordings)))]
        predictions = recognizer.calibrated_and_not([item.recording for item in batch])
        for item, (calibrated, raw) in zip(batch, predictions, strict=True):
            clip = item.clip
            names = {"clip": clip.id, "speaker": clip.speaker, "room": item.room, "position": item.position}
            columns = {f"p_{emotion}": p for emotion, p in zip(recognizer.emotions, calibrated, strict=True)}
            columns |= {f"q_{emotion}": q for emotion, q in zip(recognizer.emotions, raw, strict=True)}
            rows.append(names | {"target": clip.emotion} | columns)
        if on_progress:
            on_progress(len(rows), len(recordings))
    return pd.DataFrame(rows)
