"""A training run from clips to a checkpoint: what the command line and the demo share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from farfeel.corpora import corpus_of
from farfeel.corpora.corpus import SURROGATE
from farfeel.corpora.labels import label_details
from farfeel.evaluate.prepared_test_set import PreparedEvaluationSet
from farfeel.evaluate.test_set import EvaluationItem, EvaluationSet
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.reference import LoadReport, fill, fill_video, load_reference, read_video_weights
from farfeel.models.video_networks import kinetics_weights
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank
from farfeel.shards.store import Shards
from farfeel.support.console import note, progress
from farfeel.support.text import few
from farfeel.training.examples import TrainingSet, divide_rooms
from farfeel.training.loop import fit
from farfeel.training.prepared_examples import PreparedTrainingSet
from farfeel.types import Clip, FarfeelError
from farfeel.variants import VIDEO_NETWORKS

INPUTS = {"audio": "speech", "video": "faces", "both": "speech and faces, or either alone"}


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
    """Train with a progress bar and a line per epoch; the folder of the resulting checkpoint.

    bank: the rooms to train in; None: dry speech. resume: continue an interrupted run in `out`. init: a checkpoint
    folder or a file of weights to start from. video_weights: see `initialise_video`. trackers: wandb, mlflow. shards:
    the prepared corpus that the clips are from.
    """
    torch.manual_seed(recipe.seed)
    model = EmotionModel(recipe)
    if not (resume and (out / "last.ckpt").exists()):  # last.ckpt has all weights
        loaded = initialise(model, init) if init else None
        if loaded:
            note("\n".join(loaded.lines()))
        if video_weights or not (loaded and loaded.has_face):
            initialise_video(model, video_weights)
    if recipe.data.learn_validation:
        train = [*train, *val]
    mics = range(recipe.microphones.count)
    clips: TrainingSet
    validation: Sequence[EvaluationItem]
    if shards:
        clips = PreparedTrainingSet(train, recipe, shards)
        validation = PreparedEvaluationSet(val, recipe, shards, mics, one_each=True)
    else:
        training_rooms, validation_rooms = divide_rooms(bank)
        clips = TrainingSet(train, recipe, bank, training_rooms)
        banks = [bank] if bank else []
        validation = EvaluationSet(val, recipe, banks, mics, validation_rooms, one_room_each=True)
    for kind, lacks in clips.lacking.items():
        note(f"training without {kind} noise: {lacks}")
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
    weights = weights or VIDEO_NETWORKS.variant(recipe.video.network).constant("pretrained", "none")
    if weights == "none":
        return
    state = kinetics_weights() if weights == "kinetics" else read_video_weights(Path(weights))
    note("\n".join(fill_video(model, state, f"face branch from {weights}").lines()))


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
    known = [corpus for name in names if (corpus := corpus_of(name))]
    licences = "; ".join(f"{corpus.title}: {corpus.licence}" for corpus in known)
    surrogate = any(clip.corpus.endswith(SURROGATE) for clip in train)
    weights = ", ".join(f"{corpus} {weight:g}" for corpus, weight in recipe.data.weights.items())
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            f"Recognises {', '.join(recipe.data.emotions)} in {INPUTS[recipe.modalities]}; "
            f"microphones: {recipe.microphones.strategy}.",
            "",
            *parts,
            *(f"- {what}: {fact}" for what, fact in label_details(recipe.data).items()),
            *([f"- drawn: {weights}"] if weights else []),
            f"- rooms: {rooms}",
            *(["- the videos are surrogates, made of stills of other people"] if surrogate else []),
            f"- split: {recipe.data.split}, seed {recipe.seed}; all settings in recipe.yaml",
            "",
            f"Licence of the data, which the weights inherit: {licences}.",
            "",
            "Acted emotions of few speakers: expect less on others.",
        ]
    )
