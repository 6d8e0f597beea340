"""The usual alternative: openSMILE's functionals and a support vector machine, on the same folds and rooms.

    pip install 'farfeel[bench]'
    python -m benchmarks.baseline RAVDESS TRAINING_ROOMS TEST_ROOMS OUT [ComParE_2016 | eGeMAPSv02] [FOLD…]

Training clips are those of the networks, with the validation clips. Each is used dry and in VERSIONS simulated rooms,
with one microphone and without noise, because the test has none. Test clips are dry and in the measured rooms, at the
positions and with the microphone of `farfeel evaluate --mics 0`. Silence at both ends of every clip is removed.
Features are standardised. The kernel is Gaussian and C is PENALTY, which was not tuned. OUT/foldK-rooms and
OUT/foldK-dry are evaluations for `farfeel compare` and `farfeel report`. Features are kept in OUT/features.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import opensmile
import pandas as pd
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from farfeel.corpora.decoded import DecodedClips
from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.evaluate.report import write_evaluation
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.media.audio import speech_span
from farfeel.models.logmel import normalise_level
from farfeel.recipe import Recipe, load_recipe
from farfeel.rooms.acoustics import remove_common_delay
from farfeel.rooms.bank import Bank
from farfeel.rooms.scene import in_room
from farfeel.support.console import progress
from farfeel.support.files import replacing_file
from farfeel.types import Clip

VERSIONS = 2
FOLDS = range(1, 8)
PENALTY = 10.0


def main(ravdess: Path, training_rooms: Path, test_rooms: Path, out: Path, features: str, folds: Sequence[int]) -> None:
    recipe = load_recipe("default")
    smile = opensmile.Smile(feature_set=features, feature_level="Functionals")
    clips = load_clips("ravdess", ravdess)
    bank, measured = Bank.open(training_rooms), Bank.open(test_rooms)

    def kept(name: str, count: int, sound: Callable[[int], np.ndarray]) -> np.ndarray:
        path = out / "features" / f"{features}-{name}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = []
            with progress(name, "clips") as advance:
                for index in range(count):
                    rows.append(smile.process_signal(sound(index), recipe.audio.sample_rate).to_numpy()[0])
                    advance(index + 1, count)
            with replacing_file(path) as partial, partial.open("wb") as file:
                np.save(file, np.nan_to_num(np.stack(rows)))
        return np.load(path, allow_pickle=False)

    in_training = {"dry": kept("train-dry", len(clips), in_rooms(clips, recipe, None, 0))}
    for version in range(VERSIONS):
        in_training[f"{version}"] = kept(f"train-{version}", len(clips), in_rooms(clips, recipe, bank, version))
    tests = {"rooms": EvaluationSet(clips, recipe, [measured], [0]), "dry": EvaluationSet(clips, recipe)}
    heard = {
        name: kept(f"test-{name}", len(items), lambda index, items=items: speech(items[index].recording.audio, recipe))  # type: ignore[misc]
        for name, items in tests.items()
    }
    place = {clip.id: index for index, clip in enumerate(clips)}
    for fold in folds:
        parts = split_clips(clips, f"folds-7:{fold}")
        learned = [place[clip.id] for clip in (*parts.train, *parts.val)]
        model = make_pipeline(StandardScaler(), SVC(C=PENALTY))
        model.fit(
            np.concatenate([rows[learned] for rows in in_training.values()]),
            [clips[index].emotion for index in learned] * len(in_training),
        )
        for name, items in tests.items():
            rows_each = len(items) // len(clips)
            rows = [place[clip.id] * rows_each + room for clip in parts.test for room in range(rows_each)]
            decision = model.decision_function(heard[name][rows])
            shares = np.exp(decision - decision.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            table = pd.DataFrame(
                [
                    {"clip": clip.id, "speaker": clip.speaker, "room": room, "target": clip.emotion}
                    for clip in parts.test
                    for room, _ in items.rooms
                ]
            )
            emotions = {emotion: column for column, emotion in enumerate(model.classes_)}
            for emotion in recipe.data.emotions:
                table[f"p_{emotion}"] = shares[:, emotions[emotion]]
            found = write_evaluation(
                table,
                out / f"fold{fold}-{name}",
                f"{features} and SVM",
                {"command": "python -m benchmarks.baseline", "split": f"folds-7:{fold}"},
            )
            print(fold, name, found.overall.accuracy, flush=True)


def in_rooms(clips: Sequence[Clip], recipe: Recipe, bank: Bank | None, version: int) -> Callable[[int], np.ndarray]:
    """A function: index → training clip (T,) as one microphone in a room records it; without a bank, dry."""
    trimmed_clips = DecodedClips(clips, recipe, trim=True)

    def sound(index: int) -> np.ndarray:
        found = trimmed_clips.dry(index)
        assert found is not None
        if bank is None:
            return speech(found[0][None], recipe)
        rng = np.random.default_rng((version, index))
        taps = bank.taps(int(rng.integers(len(bank))), [int(rng.integers(bank.mics))])
        return speech(in_room(found[0], remove_common_delay(taps)), recipe)

    return sound


def speech(audio: np.ndarray, recipe: Recipe) -> np.ndarray:
    """(1, T) → (T',) without silence at both ends, at the level of the networks' input.

    Functionals of digital silence are far from those of any room. Room responses differ in scale.
    """
    first, last = speech_span(audio, recipe.audio.sample_rate)
    return normalise_level(torch.from_numpy(audio[:, first:last])[None])[0, 0].numpy()


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    ravdess, training_rooms, test_rooms, out = map(Path, sys.argv[1:5])
    chosen = sys.argv[5] if len(sys.argv) > 5 else "ComParE_2016"
    main(ravdess, training_rooms, test_rooms, out, chosen, [int(word) for word in sys.argv[6:]] or FOLDS)
