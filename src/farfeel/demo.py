"""The demo: all steps on artificial people, from a corpus and simulated rooms to a comparison of audio and video.

Three systems of the `tiny` recipe are trained: audio (three microphones, averaged log-mels), video, and both. They are
tested on speakers and rooms that none was trained on: close to the speaker (clean), and in the rooms. The third is also
tested with the camera off for a third of the clips. If the demo is stopped, a second call with the same folder resumes.
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
SYSTEMS = ("audio", "video", "both")  # names in the tables, and the modalities of the recipe
CAMERA_OFF = 1 / 3
CAMERA_OFF_SYSTEM = "both, camera off in a third"


def demo(out: Path, seed: int = 1) -> None:
    """Run all steps, and print the tables of the systems and the paths of the reports.

    out: folder for everything that is made; what a stopped demo finished there is used again. seed: of all random
    choices.
    """
    print(PICTURE)
    corpus, rooms = out / "corpus", {"train": out / "rooms-train", "test": out / "rooms-test"}
    with progress("1/4 artificial people", "speakers") as advance:
        generate(corpus, SPEAKERS, clips_per_emotion=CLIPS_PER_EMOTION, seed=seed, progress=advance)
    recipe = load_recipe("tiny", [f"seed={seed}"])
    for part, count in (("train", TRAINING_ROOMS), ("test", TEST_ROOMS)):
        own_seed = seed + (part == "test")  # so that the test rooms differ from the training rooms
        with progress(f"2/4 simulated rooms, {part}", "rooms") as advance:
            simulate(
                count, MICS, recipe.simulation, own_seed, rooms[part], workers=os.cpu_count() or 1, on_progress=advance
            )
    training, testing = Bank.open(rooms["train"]), Bank.open(rooms["test"])
    split = split_clips(load_clips("synthetic", corpus), recipe.data.split)
    tables: dict[str, dict[str, pd.DataFrame]] = {"clean": {}, "in rooms": {}}
    for system in SYSTEMS:
        note(f"3/4 training: {system}")
        own = load_recipe("tiny", [f"seed={seed}", f"modalities={system}"])
        best = run_training(own, split.train, split.val, training, out / system, resume=True)
        recognizer = Recognizer.load([best], "cuda" if torch.cuda.is_available() else "cpu")
        tests = [(system, Conditions())]
        if system == "both":
            tests.append((CAMERA_OFF_SYSTEM, Conditions(camera_off=CAMERA_OFF)))
        for name, conditions in tests:
            suffix = "-camera-off" if conditions.camera_off else ""
            for setting, banks in (("clean", []), ("in rooms", [testing])):
                folder = out / system / f"test-{setting.replace(' ', '-')}{suffix}"
                run_evaluation(recognizer, split.test, banks, folder, range(MICS), details(own, name), conditions)
                tables[setting][name] = read_predictions(folder)
    note("4/4 report")
    facts = {
        "what": "three systems of the tiny recipe, trained and tested on artificial people in simulated rooms",
        "corpus": f"synthetic, {len(split.train)} training, {len(split.val)} validation, {len(split.test)} test clips",
        "rooms": f"{TRAINING_ROOMS} simulated rooms for training and validation, {TEST_ROOMS} other rooms for the test",
        "command": f"farfeel demo --out {out} --seed {seed}",
    }
    for setting, systems in tables.items():
        folder = out / f"report-{setting.replace(' ', '-')}"
        results = write_side_by_side(systems, folder, f"Demo: audio, video and both, {setting}", facts)
        print(systems_table(results))
        print(f"report: {folder / 'report.html'}\n")
    example = split.test[0]
    print(
        f"next step: farfeel predict {example.video} --audio {example.audio} --face whole --checkpoint "
        f"{out / 'both/best'}"
    )


def details(recipe: Recipe, system: str) -> dict[str, str]:
    """The facts that the report of one system shows."""
    return {"system": system, "corpus": "synthetic", "split": f"{recipe.data.split}, test part"}
