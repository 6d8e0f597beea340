"""Accuracy by dead microphones, noise, reverberation, distance and front-ends, as a table and plots.

    pip install 'farfeel[bench]'
    python -m benchmarks.sweeps RAVDESS ROOMS OUT CHECKPOINT[,CHECKPOINT…] [CHECKPOINT…] [only=CONDITION,CONDITION…]

Each checkpoint (or ensemble, separated by commas) is tested on the test speakers of its own split folds-N:K. With all
folds of a cross-validation, every speaker is tested by a model that was not trained on it, and intervals resample all
speakers. Tests with noise, dead microphones or shortened responses use only one room, the middle one of the bank,
which takes a third of the time. OUT/CONDITION/foldK are evaluations for `farfeel compare`. OUT/sweeps.csv and the
plots OUT/*.svg are made from them. Results that exist are not computed again, so that several processes can compute
some folds each, and one more can then join them. only= chooses conditions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.evaluate.metrics import Interval, metrics
from farfeel.evaluate.report import write_evaluation
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.table import concatenate, read_predictions
from farfeel.evaluate.test_set import NONE, Conditions, EvaluationSet
from farfeel.recipe import Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.windows import FRONT_ENDS
from farfeel.rooms.acoustics import onset
from farfeel.rooms.bank import Bank
from farfeel.types import Clip

matplotlib.use("svg")
from matplotlib import pyplot

NOISES = ("white", "babble", "fan")
SNRS = (20, 10, 0)
DEAD = (2, 4, 6)
KEPT_MS = (3, 20, 50, 100)
DRR_EDGES = (-3, 0, 3, 6)
COLOURS = ("#1f5a8a", "#c2571a", "#3d7a3d", "#7a3d7a")


@dataclass(frozen=True)
class Condition:
    name: str
    mics: tuple[int, ...]
    conditions: Conditions = NONE
    one_room: bool = True
    kept_ms: int | None = None
    front_end: str = "none"
    dry: bool = False


class EarlyPart(Bank):
    """A bank whose responses end `kept_ms` after the direct sound, to measure the effect of late reverberation."""

    kept_ms = 0

    def taps(self, index: int, mics: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        response = super().taps(index, mics)
        response[:, onset(response) + self.kept_ms * self.sample_rate // 1000 :] = 0
        return response


def conditions(mics: int) -> list[Condition]:
    every = tuple(range(mics))
    arrays = [every[:1], every[:3], every]
    found = [Condition("dry", every[:1], dry=True)]
    found += [Condition(f"mics-{len(array)}", array, one_room=False) for array in arrays]
    found += [Condition(name, every, one_room=False, front_end=name) for name in FRONT_ENDS]
    found += [Condition(f"wpe-mics-{len(few)}", few, one_room=False, front_end="wpe") for few in arrays[:-1]]
    found += [Condition(f"dead-{dead}", every, Conditions(dead_mics=dead)) for dead in DEAD if dead < mics]
    found += [Condition(f"early-{kept}", every[:1], kept_ms=kept) for kept in KEPT_MS]
    for noise in NOISES:
        for snr in SNRS:
            conditions = Conditions(snr_db=snr, noise=noise)
            found += [Condition(f"{noise}-{snr}-mics-{len(array)}", array, conditions) for array in (every[:1], every)]
            found += [Condition(f"{noise}-{snr}-{name}", every, conditions, front_end=name) for name in FRONT_ENDS]
    return found


def main(ravdess: Path, rooms: Path, out: Path, checkpoints: Sequence[str], only: Sequence[str] = ()) -> None:
    bank, clips = Bank.open(rooms), load_clips("ravdess", ravdess)
    middle = middle_of(bank)
    tables: dict[str, list[pd.DataFrame]] = {}
    for checkpoint in checkpoints:
        members = list(map(Path, checkpoint.split(",")))
        recognizers = {name: Recognizer.load(members, front_end=name) for name in ("none", *FRONT_ENDS)}
        recipe = recognizers["none"].recipe
        test = split_clips(clips, recipe.data.split).part("test")
        fold = recipe.data.split.partition(":")[2]
        for condition in conditions(bank.mics):
            if only and condition.name not in only:
                continue
            place = out / condition.name / f"fold{fold}"
            if not (place / "metrics.json").exists():
                takes = recordings(condition, test, recipe, rooms)
                about = {
                    "checkpoint": checkpoint,
                    "front-end": condition.front_end,
                    **condition.conditions.as_details(),
                }
                table = prediction_table(recognizers[condition.front_end], takes)
                write_evaluation(table, place, condition.name, about)
            tables.setdefault(condition.name, []).append(read_predictions(place))
        print(f"{checkpoint}: done", flush=True)
    joined = {name: concatenate(folds) for name, folds in tables.items()}
    rows = [row(name, table) for name, table in joined.items()]
    quiet = [name for name in ("mics-1", f"mics-{bank.mics}", *FRONT_ENDS) if name in joined]
    rows += [row(f"quiet-{name}", in_room(joined[name], middle)) for name in quiet]
    if (all_mics := joined.get(f"mics-{bank.mics}")) is not None:
        rows += [row(f"t60-{t60:.2f}", in_room(all_mics, room)) for room, t60 in t60_of(bank).items()]
        drr_db = drr_of(bank)
        drr = all_mics.apply(lambda one: drr_db[one["room"], one["position"]], axis=1)
        for low, high in zip((-np.inf, *DRR_EDGES), (*DRR_EDGES, np.inf), strict=True):
            if len(near := all_mics[(drr >= low) & (drr < high)]):
                rows.append(row(f"drr-{drr[near.index].mean():.1f}", near))
    frame = pd.DataFrame(rows)
    frame.to_csv(out / "sweeps.csv", index=False)
    print(frame.to_string(index=False, float_format="%.1f"))
    plots(frame, out, bank.mics)


def recordings(condition: Condition, clips: Sequence[Clip], recipe: Recipe, rooms: Path) -> EvaluationSet:
    """The recordings of the clips in the bank `rooms` under this condition."""
    bank = EarlyPart.open(rooms) if condition.kept_ms else Bank.open(rooms)
    if isinstance(bank, EarlyPart):
        bank.kept_ms = condition.kept_ms or 0
    banks, chosen = [] if condition.dry else [bank], [middle_of(bank)] if condition.one_room else None
    return EvaluationSet(clips, recipe, banks, condition.mics, chosen, conditions=condition.conditions)


def middle_of(bank: Bank) -> str:
    return bank.rooms[len(bank.rooms) // 2]


def row(name: str, table: pd.DataFrame) -> dict[str, object]:
    return {"condition": name, "recordings": len(table), **per_cent(metrics(table).overall.accuracy)}


def per_cent(found: Interval) -> dict[str, float]:
    """The columns of a point for `draw`, except its x."""
    return {"value": 100 * found.value, "low": 100 * found.low, "high": 100 * found.high}


def in_room(table: pd.DataFrame, room: str) -> pd.DataFrame:
    return table[table["room"] == room]


def t60_of(bank: Bank) -> dict[str, float]:
    """Median T60 of each room, in seconds."""
    return {room: float(np.median([bank[int(i)].t60_s for i in bank.indices(room)])) for room in bank.rooms}


def drr_of(bank: Bank) -> dict[tuple[str, str], float]:
    """(room, position) → direct-to-reverberant ratio in dB, which falls with the distance."""
    return {(bank[i].room, bank[i].position): float(bank[i].drr_db) for i in range(len(bank))}


def plots(frame: pd.DataFrame, out: Path, mics: int) -> None:
    """Draw one SVG for each kind of condition."""
    quiet = {name: frame[frame["condition"] == f"quiet-{name}"] for name in ("mics-1", f"mics-{mics}", *FRONT_ENDS)}
    heard = {
        "mics-1": "1 microphone",
        f"mics-{mics}": f"{mics} microphones",
        "mvdr": f"{mics}, beamformer",
        "wpe": f"{mics}, dereverberated",
    }

    def points(prefix: str, suffix: str = "") -> pd.DataFrame:
        found = frame[frame["condition"].str.fullmatch(f"{prefix}(-?[0-9.]+){suffix}")].copy()
        found["x"] = found["condition"].str.extract(f"{prefix}(-?[0-9.]+){suffix}")[0].astype(float)
        return found.sort_values("x")

    dead = pd.concat([quiet[f"mics-{mics}"].assign(x=0.0), points("dead-")])
    draw(out / "dead.svg", {f"of {mics} microphones": dead}, "dead microphones")
    for noise in NOISES:
        lines = {
            label: pd.concat([points(f"{noise}-", f"-{name}"), quiet[name].assign(x=30.0)])
            for name, label in heard.items()
        }
        draw(out / f"{noise}.svg", lines, f"SNR in dB, {noise} noise (30: none added)")
    early = pd.concat([points("early-"), quiet["mics-1"].assign(x=1000.0)])
    draw(out / "early.svg", {"1 microphone": early}, "milliseconds of the response that are kept (1000: all)", log=True)
    draw(out / "t60.svg", {f"{mics} microphones": points("t60-")}, "T60 in s, median of the room")
    draw(out / "drr.svg", {f"{mics} microphones": points("drr-")}, "direct-to-reverberant ratio in dB")


def draw(path: Path, lines: dict[str, pd.DataFrame], label: str, log: bool = False) -> None:
    """Draw accuracies with their intervals as an SVG: name → columns x, value, low, high. label: of the x axis."""
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:  # excluded by only=
        return
    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        around = line["value"] - line["low"], line["high"] - line["value"]
        axes.errorbar(line["x"], line["value"], yerr=around, label=name, color=colour, marker="o", capsize=3)
    axes.set(xlabel=label, ylabel="accuracy in %", ylim=(0, 100))
    axes.axhline(12.5, color="#888888", linestyle=":", label="chance")
    if log:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    ravdess, rooms, out = map(Path, sys.argv[1:4])
    named = [word for word in sys.argv[4:] if not word.startswith("only=")]
    only = ",".join(word.removeprefix("only=") for word in sys.argv[4:] if word.startswith("only="))
    main(ravdess, rooms, out, named, only.split(",") if only else ())
