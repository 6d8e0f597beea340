"""Everything once, on artificial voices: a corpus, simulated rooms, three trainings, and their table in unseen rooms.

Three systems of the `tiny` recipe are compared: trained on dry speech with one microphone, trained in rooms with one,
and trained in rooms with three whose mels are averaged. All are tested on speakers and in rooms that none has met.
A second call with the same folder goes on where the first stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from farfeel.console import note, progress
from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.corpora.synthetic import generate
from farfeel.evaluate.report import write_side_by_side
from farfeel.evaluate.table import read_predictions
from farfeel.infer import Recognizer
from farfeel.recipe import Recipe, load_recipe
from farfeel.rooms.bank import Bank
from farfeel.rooms.simulate import simulate
from farfeel.show import systems_table
from farfeel.workflow import run_evaluation, run_training

PICTURE = """\
    o   one of 24 artificial speakers says a phrase in one of 8 emotions
   /|\\  ~ ~ ~ ~ ~ ~ ~.  direct sound       +----------+   log-mels    +--------+    neutral   ▏
   / \\       walls ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ > | 1 or 3   | ------------> | HTS-AT | -> happy     ██████
        ~ ~ ~ ~ ~ ~ ~ ~ reverberation      | distant  |  fused into   | (tiny) |    angry     █▌
                                           | mics     |  one image    +--------+    ...
                                           +----------+
"""
SPEAKERS, CLIPS_PER_EMOTION = 24, 3
TRAINING_ROOMS, TEST_ROOMS, MICS = 32, 8, 3
SYSTEMS = {
    "dry, 1 mic": ("dry-1", ["microphones.strategy=single", "microphones.count=1"], False),
    "rooms, 1 mic": ("rooms-1", ["microphones.strategy=single", "microphones.count=1"], True),
    "rooms, 3 mics": ("rooms-3", [], True),
}


def demo(out: Path, seed: int = 1) -> None:
    """Run it all into the folder `out`, print the table of the three systems and the report's path."""
    print(PICTURE)
    corpus, rooms = out / "corpus", {"train": out / "rooms-train", "test": out / "rooms-test"}
    with progress("1/4 artificial voices", "speakers") as advance:
        generate(corpus, SPEAKERS, clips_per_emotion=CLIPS_PER_EMOTION, seed=seed, progress=advance)
    recipe = load_recipe("tiny", [f"seed={seed}"])
    for part, count in (("train", TRAINING_ROOMS), ("test", TEST_ROOMS)):
        own_seed = seed + (part == "test")  # other rooms, not the same ones again
        with progress(f"2/4 simulated rooms, {part}", "rooms") as advance:
            simulate(
                count, MICS, recipe.simulation, own_seed, rooms[part], workers=os.cpu_count() or 1, on_progress=advance
            )
    training, testing = Bank.open(rooms["train"]), Bank.open(rooms["test"])
    split = split_clips(load_clips("synthetic", corpus), recipe.data.split)
    tables = {}
    for system, (folder, overrides, in_rooms) in SYSTEMS.items():
        note(f"3/4 training: {system}")
        own = load_recipe("tiny", [f"seed={seed}", *overrides])
        run = out / folder
        best = run_training(own, split.train, split.val, training if in_rooms else None, run, resume=True)
        recognizer = Recognizer.load([best], "cuda" if torch.cuda.is_available() else "cpu")
        run_evaluation(
            recognizer, split.test, [testing], run / "test", range(own.microphones.count), details(own, system)
        )
        tables[system] = read_predictions(run / "test")
    note("4/4 report")
    about = {
        "what": "three systems of the tiny recipe, trained and tested on artificial voices in simulated rooms",
        "corpus": f"synthetic, {len(split.train)} training, {len(split.val)} validation, {len(split.test)} test clips",
        "rooms": f"{TRAINING_ROOMS} simulated rooms for training and validation, {TEST_ROOMS} others for the test",
        "command": f"farfeel demo --out {out} --seed {seed}",
    }
    found = write_side_by_side(tables, out / "report", "Demo: what rooms and microphones change", about)
    print(systems_table(found))
    print(f"\nreport: {out / 'report' / 'report.html'}")
    print(f"next:   farfeel predict {split.test[0].audio} --checkpoint {out / 'rooms-3' / 'best'} --mics 0")


def details(recipe: Recipe, system: str) -> dict[str, str]:
    return {"system": system, "corpus": "synthetic", "split": f"{recipe.data.split}, test part"}
