r"""A cross-validation that renders the rooms once: all seeds and variants of the network train on the same log-mels.

    python -m benchmarks.folds RAVDESS ROOMS OUT FOLD[,FOLD…] SEED[,SEED…] \
        [NAME [speakers=N] [every=N] [section.key=value …]]

OUT/rendered/foldK holds the log-mels of `farfeel train --recipe default --split folds-7:K data.learn_validation=true
rooms.renderings=10 seed=1`, 1.6 GB each. From these, the training loop of farfeel makes OUT/NAME/foldK-seedS/best. With
seed 1 this is the same checkpoint as that of the command. The overrides may change the network, its microphone strategy
and its training, but not what is rendered (audio, rooms, the bank).

speakers=N trains on N of the 18 speakers only. They have consecutive numbers and begin at another speaker in each of
the folds 1 to 6; train.epochs=1080/N gives as many steps. every=N trains on every Nth clip of each speaker;
train.epochs=60N gives as many steps. Results that exist are not computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.seeds import split_off
from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe, load_recipe
from farfeel.rooms.bank import Bank
from farfeel.support.console import progress
from farfeel.support.files import replacing_file
from farfeel.training.examples import TrainingSet, divide_rooms
from farfeel.training.loop import fit
from farfeel.training.run import training_card
from farfeel.types import Batch

KNOBS = ["data.learn_validation=true", "rooms.renderings=10"]


class Rendered(TrainingSet):
    """Training clips whose log-mels (versions, clips, M, Q, F) are read from a file, with the mic_mask in another."""

    def keep(self, place: Path, rows: Sequence[int]) -> None:
        """Use the file `place`.npy. Clip i of this set is row rows[i] of the file."""
        self.rows = rows
        self.mels = np.load(place.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        self.mic_mask = np.load(place.with_suffix(".mask.npy"), allow_pickle=False)

    def render(self, index: int, version: int) -> Batch:
        row = self.rows[index]
        mels, mic_mask = np.array(self.mels[version, row]), self.mic_mask[version, row]
        return Batch(torch.from_numpy(mels), torch.from_numpy(mic_mask), torch.tensor(self.targets[index]))


def render(clips: TrainingSet, place: Path, name: str) -> None:
    """Write the log-mels of the clips, version by version, to `place`.npy."""
    recipe = clips.recipe
    place.parent.mkdir(parents=True, exist_ok=True)
    masks = np.zeros((recipe.rooms.renderings, len(clips), recipe.microphones.count), dtype=bool)
    with progress(f"rendering {name}", "clips") as advance, replacing_file(place.with_suffix(".npy")) as partial:
        with partial.open("wb") as file:
            for version in range(len(masks)):
                for index in range(len(clips)):
                    heard = clips.render(index, version)
                    if version == index == 0:
                        shape = (*masks.shape[:2], *heard.audio.shape)
                        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                    file.write(heard.audio.numpy().tobytes())
                    masks[version, index] = heard.mic_mask.numpy()
                    advance(version * len(clips) + index + 1, masks[..., 0].size)
        np.save(place.with_suffix(".mask.npy"), masks)


def main(
    ravdess: Path, rooms: Path, out: Path, folds: Sequence[int], seeds: Sequence[int], words: Sequence[str]
) -> None:
    name = words[0] if words else "default"
    overrides, few = split_off(words[1:], "speakers=")
    overrides, sparse = split_off(overrides, "every=")
    clips, bank = load_clips("ravdess", ravdess), Bank.open(rooms)
    training_rooms, _ = divide_rooms(bank)
    for fold in folds:
        parts = split_clips(clips, f"folds-7:{fold}")
        learned = [*parts.train, *parts.val]

        def recipe_of(seed: int, *more: str, fold: int = fold) -> Recipe:
            return load_recipe("default", [*KNOBS, f"data.split=folds-7:{fold}", f"seed={seed}", *more])

        place = out / "rendered" / f"fold{fold}"
        if not place.with_suffix(".npy").exists():  # this file is written last
            render(TrainingSet(learned, recipe_of(1), bank, training_rooms), place, place.name)
        people = sorted({clip.speaker for clip in learned})
        people = [*people[3 * fold :], *people[: 3 * fold]][: int(few[0]) if few else None]
        for seed in seeds:
            run = out / name / f"fold{fold}-seed{seed}"
            if (run / "best").exists():
                continue
            recipe = recipe_of(seed, *overrides)
            rows = [row for row, clip in enumerate(learned) if clip.speaker in people]
            if sparse:  # each speaker begins at another clip, so that together they cover all kinds of clips
                rows = [row for row in rows if (row + people.index(learned[row].speaker)) % int(sparse[0]) == 0]
            heard = Rendered([learned[row] for row in rows], recipe, bank, training_rooms)
            heard.keep(place, rows)
            torch.manual_seed(seed)
            train, val = ([clip for clip in part if clip.speaker in people] for part in (parts.train, parts.val))
            card = training_card(recipe, train, val, bank)
            with progress(f"{name} {run.name}", "clips") as advance:

                def on_batch(epoch: int, done: int, total: int, epochs: int = recipe.train.epochs) -> None:
                    advance(epoch * total + done, epochs * total)

                for _ in fit(
                    EmotionModel(recipe), heard, [], recipe, run, (run / "last.ckpt").exists(), card, (), on_batch
                ):
                    pass


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    folds, seeds = ([int(word) for word in text.split(",")] for text in sys.argv[4:6])
    ravdess, rooms, out = map(Path, sys.argv[1:4])
    main(ravdess, rooms, out, folds, seeds, sys.argv[6:])
