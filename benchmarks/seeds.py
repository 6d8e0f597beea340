r"""Results of a cross-validation over several seeds: right decisions of each speaker, accuracies and differences.

    python -m benchmarks.seeds test RAVDESS ROOMS CV TABLE FOLD[,FOLD…] SEED[,SEED…] NAME[+NAME…][@SEED+SEED…] … \
        [only=CONDITION,…]
    python -m benchmarks.seeds show TABLE [NAME:CONDITION NAME:CONDITION …] [seeds=SEED,…] [folds=FOLD,…]
    python -m benchmarks.seeds plot TABLE PLOT.svg LABEL X=NAME … only=CONDITION,… [seeds=SEED,…] [folds=FOLD,…]

`test` tests CV/NAME/foldK-seedS/best, which `benchmarks.folds` trains, in the conditions of `benchmarks.sweeps`. It
adds a row to the CSV file TABLE for each network, seed, condition, room and speaker: the number of clips, and how many
were right. NAME+NAME averages the probabilities of two networks, NAME+NAME@1+2 those of four: both seeds of both. A
network of one microphone is tested with one. Rows that TABLE has are not computed again. Log-mels are computed once,
so all networks must have the same section `audio`.

`show` prints the accuracy of each network in each condition, averaged over its seeds. For each pair of words it prints
the difference, the second minus the first, over the rooms and speakers that both have; between dry speech and rooms,
over the speakers. seeds= and folds= choose seeds (1+2 is one) and folds. Intervals and tests resample speakers, as in
`farfeel compare`.

`plot` draws the accuracies of networks that differ in one number X, a line for each condition. LABEL is the name of X.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.sweeps import conditions, draw, per_cent, recordings
from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.evaluate.compare import p_equals, span, t_test
from farfeel.evaluate.metrics import LEVEL, RESAMPLES, SEED, Interval, interval, standard_error
from farfeel.evaluate.run import BATCH_RECORDINGS
from farfeel.evaluate.test_set import EvaluationItem
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import LogMel, front_end
from farfeel.recipe import Recipe
from farfeel.recognise.decoding import views_of
from farfeel.recognise.windows import with_front_end
from farfeel.rooms.bank import Bank
from farfeel.support.console import progress
from farfeel.support.files import replacing_file

KEY = ["network", "seed", "condition", "fold"]


def test(
    ravdess: Path, rooms: Path, cv: Path, table: Path, folds: Sequence[int], seeds: Sequence[int], names: Sequence[str],
    only: Sequence[str],
) -> None:  # fmt: skip
    clips, mics = load_clips("ravdess", ravdess), Bank.open(rooms).mics
    judges = {key: members for name in names for key, members in judges_of(name, seeds).items()}
    for fold in folds:
        networks = {
            (member, seed): load_checkpoint(cv / member / f"fold{fold}-seed{seed}" / "best").eval()
            for member, seed in sorted({one for members in judges.values() for one in members})
        }
        recipe = next(iter(networks.values())).recipe
        if any(network.recipe.audio != recipe.audio for network in networks.values()):
            sys.exit("the networks have different sections audio, expected the same; test them separately")
        single = {key for key, one in networks.items() if one.recipe.microphones.strategy == "single"}
        tested = split_clips(clips, recipe.data.split).part("test")
        for condition in conditions(mics):
            done = set() if not table.exists() else set(read(table)[KEY].itertuples(index=False, name=None))
            wanted = {
                (name, seed): members
                for (name, seed), members in judges.items()
                if (name, seed, condition.name, fold) not in done
                and (len(condition.mics) == 1 or single.isdisjoint(members))
            }
            if not wanted or (only and condition.name not in only):
                continue
            asked = {one: networks[one] for members in wanted.values() for one in members}
            items = recordings(condition, tested, recipe, rooms)
            about, found = judged(items, asked, with_front_end(recipe, condition.front_end), condition.name)
            rows = []
            for (name, seed), members in wanted.items():
                decided = np.mean([found[one] for one in members], axis=0).argmax(axis=1)
                right = about.assign(right=about["target"].to_numpy() == decided, clips=1)
                sums = right.groupby(["room", "speaker"], as_index=False)[["clips", "right"]].sum()
                keys = dict(zip(KEY, (name, seed, condition.name, fold), strict=True))
                rows.append(sums.assign(**keys)[[*KEY, "room", "speaker", "clips", "right"]])
            before = [read(table)] if table.exists() else []
            with replacing_file(table) as partial:
                pd.concat([*before, *rows]).to_csv(partial, index=False)


def judges_of(name: str, seeds: Sequence[int]) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """(network, seed) of a row → the names and seeds of the networks that it averages."""
    names, _, together = name.partition("@")
    members = names.split("+")
    if together:
        return {(name, together): [(member, int(seed)) for seed in together.split("+") for member in members]}
    return {(name, str(seed)): [(member, seed) for member in members] for seed in seeds}


@torch.inference_mode()
def judged(
    items: Sequence[EvaluationItem], networks: dict[tuple[str, int], EmotionModel], recipe: Recipe, title: str
) -> tuple[pd.DataFrame, dict[tuple[str, int], np.ndarray]]:
    """Room, speaker and target index of each recording; each network's mean probabilities (N, K) over windows."""
    logmel, about = LogMel(recipe.audio), []
    found: dict[tuple[str, int], list[np.ndarray]] = {key: [] for key in networks}
    with progress(title, "recordings") as advance:
        for start in range(0, len(items), BATCH_RECORDINGS):
            batch = [items[i] for i in range(start, min(start + BATCH_RECORDINGS, len(items)))]
            cut = [views_of(item.recording, [recipe])[0].windows for item in batch]
            windows = torch.from_numpy(np.concatenate([each.audio for each in cut]))
            alive = torch.from_numpy(np.concatenate([each.mic_mask for each in cut]))
            mels = front_end(windows, logmel, recipe.audio)
            ends = np.cumsum([len(each.audio) for each in cut])[:-1]
            for key, network in networks.items():
                each = network.probabilities(mels, alive).numpy()
                found[key] += [part.mean(axis=0) for part in np.split(each, ends)]
            about += [(item.room, item.clip.speaker, recipe.data.emotions.index(item.clip.emotion)) for item in batch]
            advance(len(about), len(items))
    return pd.DataFrame(about, columns=["room", "speaker", "target"]), {k: np.stack(v) for k, v in found.items()}


def show(rows: pd.DataFrame, pairs: Sequence[str]) -> None:
    for (network, condition), part in rows.groupby(["network", "condition"], sort=False):
        one = accuracy(part)
        apart = "".join(f" {100 * each['right'].sum() / each['clips'].sum():.1f}" for _, each in part.groupby("seed"))
        print(
            f"{network:16} {condition:18} {100 * one.value:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})  "
            f"seeds{apart}, {part['speaker'].nunique()} speakers"
        )
    for pair in zip(pairs[::2], pairs[1::2], strict=True):
        chosen = [rows[rows["network"] + ":" + rows["condition"] == word] for word in pair]
        first, second = map(over_seeds, chosen)
        if first.index.intersection(second.index).empty:
            first, second = (one.groupby("speaker").sum() for one in (first, second))
        both = first.merge(second, left_index=True, right_index=True, suffixes=("_a", "_b"))
        if both.empty:
            sys.exit(
                f"{pair[0]} and {pair[1]} have no speaker in common, expected the same speakers; test both on them"
            )
        right_a, clips_a, right_b, clips_b = both.groupby("speaker").sum().to_numpy(float).T
        weights = drawn(len(right_a))
        spread = weights @ right_b / (weights @ clips_b) - weights @ right_a / (weights @ clips_a)
        difference = right_b.sum() / clips_b.sum() - right_a.sum() / clips_a.sum()
        low, high, p = t_test(difference, standard_error(spread, len(right_a)), len(right_a), LEVEL)
        seeds = " minus ".join(",".join(sorted(set(one["seed"]))) for one in chosen[::-1])
        print(
            f"{pair[1]} minus {pair[0]}: {100 * difference:+.1f} ({span(100 * low, 100 * high, 1)}), {p_equals(p)}, "
            f"seeds {seeds}, {len(right_a)} speakers"
        )


def plot(rows: pd.DataFrame, place: Path, label: str, points: Sequence[str], shown: Sequence[str]) -> None:
    lines = {}
    for condition in shown:
        tested = rows[rows["condition"] == condition]
        found = []
        for point in points:
            x, _, network = point.partition("=")
            if (part := tested[tested["network"] == network]).empty:
                sys.exit(f"the table has no {network}:{condition}; run `test` for it first")
            found.append({"x": float(x)} | per_cent(accuracy(part)))
        lines[condition] = pd.DataFrame(found)
    draw(place, lines, label)


def accuracy(rows: pd.DataFrame) -> Interval:
    """Accuracy averaged over seeds, rooms and speakers. The interval resamples speakers."""
    right, clips = sums_of(over_seeds(rows))
    weights = drawn(len(right))
    return interval(right.sum() / clips.sum(), weights @ right / (weights @ clips), len(right), clips.sum(), LEVEL)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Right decisions and clips of each room and speaker, averaged over seeds."""
    return rows.groupby(["room", "speaker"])[["right", "clips"]].mean()


def read(table: Path) -> pd.DataFrame:
    return pd.read_csv(table, dtype={"speaker": str, "seed": str})


def sums_of(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Right decisions and clips of each speaker (S,), summed over rooms."""
    sums = rows.groupby("speaker")[["right", "clips"]].sum()
    return sums["right"].to_numpy(float), sums["clips"].to_numpy(float)


def drawn(speakers: int) -> np.ndarray:
    """(R, S): how often each speaker is drawn. The draws are always the same, so that differences are paired."""
    rng = np.random.default_rng(SEED)
    return np.asarray(rng.multinomial(speakers, np.full(speakers, 1 / speakers), size=RESAMPLES), dtype=np.float64)


def split_off(words: Sequence[str], option: str) -> tuple[list[str], list[str]]:
    """The words without OPTION=A,B, and the values A, B of these."""
    listed = [word.removeprefix(option) for word in words if word.startswith(option)]
    return [word for word in words if not word.startswith(option)], ",".join(listed).split(",") if listed else []


if __name__ == "__main__":
    words, seen = split_off(sys.argv[1:], "seeds=")
    words, places = split_off(words, "folds=")
    words, only = split_off(words, "only=")
    if words[:1] in (["show"], ["plot"]) and len(words) > 1:
        rows = read(Path(words[1]))
        rows = rows[rows["seed"].isin(seen)] if seen else rows
        rows = rows[rows["fold"].isin(map(int, places))] if places else rows
        if words[0] == "show":
            show(rows, words[2:])
        elif len(words) > 4 and only:
            plot(rows, Path(words[2]), words[3], words[4:], only)
        else:
            sys.exit(__doc__)
    elif words[:1] == ["test"] and len(words) > 7:
        ravdess, rooms, cv, table = map(Path, words[1:5])
        folds, seeds = ([int(word) for word in text.split(",")] for text in words[5:7])
        test(ravdess, rooms, cv, table, folds, seeds, words[7:], only)
    else:
        sys.exit(__doc__)
