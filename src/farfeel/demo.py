"""Everything once, on artificial people: a corpus, simulated rooms, three trainings, and what each modality is worth.

Three systems of the `tiny` recipe are compared: one hears (three microphones, mels averaged), one sees, one does both.
All are tested on speakers and in rooms that none has met: close to the speaker (clean) and in the rooms; the third also
with the camera off for a third of the clips. A second call with the same folder goes on where the first stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import torch

from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.corpora.synthetic import generate
from farfeel.evaluate.report import write_side_by_side
from farfeel.evaluate.run import run_evaluation
from farfeel.evaluate.table import read_predictions
from farfeel.evaluate.test_set import Conditions
from farfeel.evaluate.text import systems_table
from farfeel.recipe import Recipe, load_recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.rooms.bank import Bank
from farfeel.rooms.simulate import simulate
from farfeel.support.console import note, progress
from farfeel.training.run import run_training

PICTURE = """\
    o   one of 24 artificial people says a phrase in one of 8 emotions
   /|\\  ~ ~ ~ ~ ~ ~ ~.  direct sound       +-----------+  log-mels   +--------+
   / \\       walls ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ > | 3 distant | ----------> | HTS-AT | --.            neutral   ▏
    |   ~ ~ ~ ~ ~ ~ ~ ~ reverberation      |   mics    |             +--------+   \\  late      happy     ██████
    |                                      +-----------+                            > fusion -> angry     █▌
    |                                      |  camera   |   frames    +---------+  /             ...
    `. . . . . . . . . light . . . . . . > |           | ----------> | R(2+1)D | '
                                           +-----------+             +---------+
"""
SPEAKERS, CLIPS_PER_EMOTION = 24, 3
TRAINING_ROOMS, TEST_ROOMS, MICS = 32, 8, 3
SYSTEMS = {"sound": "audio", "film": "video", "both": "both"}  # as the tables call them → the recipe's modalities
CAMERA_OFF = 1 / 3
BLIND = "both, camera off in a third"


def demo(out: Path, seed: int = 1) -> None:
    """Run it all into the folder `out`, print the tables of the three systems and the reports' paths."""
    print(PICTURE)
    corpus, rooms = out / "corpus", {"train": out / "rooms-train", "test": out / "rooms-test"}
    with progress("1/4 artificial people", "speakers") as advance:
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
    tables: dict[str, dict[str, pd.DataFrame]] = {"clean": {}, "in rooms": {}}
    for system, modalities in SYSTEMS.items():
        note(f"3/4 training: {system}")
        own = load_recipe("tiny", [f"seed={seed}", f"modalities={modalities}"])
        best = run_training(own, split.train, split.val, training, out / system, resume=True)
        recognizer = Recognizer.load([best], "cuda" if torch.cuda.is_available() else "cpu")
        tests = [(system, Conditions())] + [(BLIND, Conditions(camera_off=CAMERA_OFF))] * (modalities == "both")
        for name, conditions in tests:
            for where, banks in (("clean", []), ("in rooms", [testing])):
                place = out / system / f"test-{where.replace(' ', '-')}{'-camera-off' if conditions.camera_off else ''}"
                run_evaluation(recognizer, split.test, banks, place, range(MICS), details(own, name), conditions)
                tables[where][name] = read_predictions(place)
    note("4/4 report")
    about = {
        "what": "three systems of the tiny recipe, trained and tested on artificial people in simulated rooms",
        "corpus": f"synthetic, {len(split.train)} training, {len(split.val)} validation, {len(split.test)} test clips",
        "rooms": f"{TRAINING_ROOMS} simulated rooms for training and validation, {TEST_ROOMS} others for the test",
        "command": f"farfeel demo --out {out} --seed {seed}",
    }
    for where, systems in tables.items():
        place = out / f"report-{where.replace(' ', '-')}"
        found = write_side_by_side(systems, place, f"Demo: what sound and film are worth, {where}", about)
        print(systems_table(found))
        print(f"report: {place / 'report.html'}\n")
    example = split.test[0]
    print(
        f"next: farfeel predict {example.video} --audio {example.audio} --face whole --checkpoint {out / 'both/best'}"
    )


def details(recipe: Recipe, system: str) -> dict[str, str]:
    return {"system": system, "corpus": "synthetic", "split": f"{recipe.data.split}, test part"}
