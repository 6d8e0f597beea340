"""The two long steps that the command line and the demo share: train a run, evaluate a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from farfeel.console import note, progress
from farfeel.corpora import CORPORA
from farfeel.corpora.corpus import SURROGATE, few
from farfeel.corpora.labels import about as about_labels
from farfeel.data import TrainingClips, divide_rooms
from farfeel.evaluate.metrics import Metrics
from farfeel.evaluate.report import write_evaluation
from farfeel.evaluate.table import PREFIX, UNCALIBRATED, emotions_of
from farfeel.infer import Recognizer
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.reference import LoadReport, fill, fill_video, load_reference, read_video_weights
from farfeel.models.video import kinetics_weights
from farfeel.prepared import PreparedRecordings, PreparedTraining
from farfeel.recipe import Data, Recipe
from farfeel.rooms.bank import Bank
from farfeel.shards import Shards
from farfeel.takes import NONE, Recordings, Take, Trouble, prediction_table
from farfeel.train import fit
from farfeel.types import Clip, FarfeelError

TAKES = {"audio": "speech", "video": "faces", "both": "speech and faces, or either alone"}


def run_training(
    recipe: Recipe,
    train: Sequence[Clip],
    val: Sequence[Clip],
    bank: Bank | None,
    out: Path,
    resume: bool = False,
    init: Path | None = None,
    video_weights: str | None = None,
    trackers: Sequence[str] = (),
    shards: Shards | None = None,
) -> Path:
    """Train with a progress bar and a line per epoch. The folder of the resulting checkpoint. `shards`: the prepared
    corpus that the clips are of."""
    torch.manual_seed(recipe.seed)
    model = EmotionModel(recipe)
    if not (resume and (out / "last.ckpt").exists()):  # it has all weights; a run killed in its first epoch has none
        loaded = initialise(model, init) if init else None
        if loaded:
            note("\n".join(loaded.lines()))
        if video_weights or not (loaded and loaded.has_face):
            initialise_video(model, video_weights)
    if recipe.data.learn_validation:
        train = [*train, *val]
    mics = range(recipe.microphones.count)
    clips: TrainingClips
    validation: Sequence[Take]
    if shards:
        clips = PreparedTraining(train, recipe, shards)
        validation = PreparedRecordings(val, recipe, shards, mics, one_each=True)
    else:
        training_rooms, validation_rooms = divide_rooms(bank)
        clips = TrainingClips(train, recipe, bank, training_rooms)
        banks = [bank] if bank else []
        validation = Recordings(val, recipe, banks, mics, validation_rooms, one_room_each=True)
    if recipe.rooms.snr_db and (absent := sorted(set(recipe.rooms.noise) - set(clips.noises))):
        note(f"noise without {' and '.join(absent)}: prepared clips have no place for it, a speaker alone no others")
    note(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters; run in {out}")
    with progress("training", "clips") as advance:

        def on_batch(epoch: int, done: int, total: int) -> None:
            advance(epoch * total + done, recipe.train.epochs * total)

        card = training_card(recipe, train, val, bank)
        for report in fit(model, clips, validation, recipe, out, resume, card, trackers, on_batch):
            validated = (
                ""
                if recipe.data.learn_validation
                else f"validation: loss {report.val_loss:.3f}  accuracy {report.val_accuracy:6.1%}  "
                f"UAR {report.val_uar:6.1%}  "
            )
            note(f"epoch {report.epoch:>3}  loss {report.train_loss:.3f}  {validated}{report.clips_per_s:.1f} clips/s")
    return out / "best"


def initialise(model: EmotionModel, path: Path) -> LoadReport:
    """Fill a model from a checkpoint folder of ours or from a reference's file of weights."""
    if path.is_dir():
        return fill(model, load_checkpoint(path).state_dict(), LoadReport(f"checkpoint {path}"))
    return load_reference(model, path)


def initialise_video(model: EmotionModel, weights: str | None) -> None:
    """Fill the face branch: `weights` is kinetics, none, a file of R(2+1)D weights or a checkpoint folder of ours;
    None: kinetics where the recipe has the network they fit."""
    recipe = model.recipe
    if recipe.modalities == "audio":
        if weights:
            raise FarfeelError("--video-weights are given, the recipe has modalities=audio; choose video or both")
        return
    weights = weights or ("kinetics" if recipe.video.network == "r2plus1d_18" else "none")
    if weights == "none":
        return
    state = kinetics_weights() if weights == "kinetics" else read_video_weights(Path(weights))
    note("\n".join(fill_video(model, state, f"face branch from {weights}").lines()))


def run_evaluation(
    recognizer: Recognizer,
    clips: Sequence[Clip],
    banks: Sequence[Bank],
    out: Path,
    mics: Sequence[int],
    details: dict[str, str],
    trouble: Trouble = NONE,
    data: Data | None = None,
    shards: Shards | None = None,
) -> Metrics:
    """Evaluate with a progress bar and write the evaluation's folder. `data`: the classes, where they are not those of
    the checkpoint. `shards`: the prepared corpus that the clips are of."""
    recipe = recognizer.recipe
    data = data or recipe.data
    recordings: Recordings | PreparedRecordings
    if shards:
        if trouble != NONE:
            raise FarfeelError("prepared clips are tested as they are; leave out --snr, --dead-mics and --camera-off")
        recordings = PreparedRecordings(clips, recipe, shards, mics)
    else:
        recordings = Recordings(clips, recipe, banks, mics, trouble=trouble)
    with progress("evaluating", "recordings") as advance:
        table = in_classes(prediction_table(recognizer, recordings, advance), data)
    heard = sum(clip.audio is not None for clip in clips) * (recipe.modalities != "video")
    filmed = sum(recordings.is_filmed(clip) for clip in clips) * (recipe.modalities != "audio")
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


def training_card(recipe: Recipe, train: Sequence[Clip], val: Sequence[Clip], bank: Bank | None) -> str:
    """The card of a checkpoint: what it is, what it was trained on, how, and what that means for its use."""
    validated = "validation, also learned" if recipe.data.learn_validation else "validation (chooses the epoch)"
    parts = [
        f"- {what}: {len(clips)} clips of {', '.join(sorted({clip.corpus for clip in clips}))}, "
        f"speakers {few(sorted({clip.speaker for clip in clips}), 40)}"
        for what, clips in (("training", train), (validated, val))
    ]
    origins = {bank[i].origin for i in range(len(bank))} if bank else set()
    rooms = (
        f"{len(bank)} {' and '.join(sorted(origins))} responses of {bank.mics} microphones" if bank else "none (dry)"
    )
    names = sorted({clip.corpus.removesuffix(SURROGATE) for clip in train})
    licences = "; ".join(f"{CORPORA[name].title}: {CORPORA[name].licence}" for name in names if name in CORPORA)
    surrogate = any(clip.corpus.endswith(SURROGATE) for clip in train)
    weights = ", ".join(f"{corpus} {weight:g}" for corpus, weight in recipe.data.weights.items())
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            f"Recognises {', '.join(recipe.data.emotions)} in {TAKES[recipe.modalities]}; "
            f"microphones: {recipe.microphones.strategy}.",
            "",
            *parts,
            *(f"- {what}: {told}" for what, told in about_labels(recipe.data).items()),
            *([f"- drawn: {weights}"] if weights else []),
            f"- rooms: {rooms}",
            *(["- the films are surrogates, made of stills of other people"] if surrogate else []),
            f"- split: {recipe.data.split}, seed {recipe.seed}; all knobs in recipe.yaml",
            "",
            f"Licence of the data, which the weights inherit: {licences}.",
            "",
            "Acted emotions of few speakers: expect less on others.",
        ]
    )
