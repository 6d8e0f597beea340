"""The training loop: `fit` is a generator that yields a report after each epoch.

Resumption: the state after each epoch is in `last.ckpt`; everything random in an epoch follows from (seed, epoch), so
a run that was killed and resumed equals an uninterrupted one, bit for bit on the CPU. On disk, in the run's folder:
`recipe.yaml`, `metrics.csv`, TensorBoard events, `top/epoch_NNN/` (the best few), `best/` (the result), `last.ckpt`.

Several processes train together (`distributed`) where they were started together (`processes`). Each takes its part of
every batch. Only the first validates and writes.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from farfeel.evaluate.calibrate import calibrate, card_with
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.table import probabilities_of, targets_of
from farfeel.evaluate.test_set import EvaluationItem
from farfeel.models.checkpoint import (
    average_states,
    load_checkpoint,
    require_reloadable,
    save_checkpoint,
    with_temperature,
)
from farfeel.models.emotion import EmotionModel
from farfeel.models.tensor_files import read_tensors, require_finite, write_tensors
from farfeel.recipe import Augment, Recipe, recipe_from_tree, save_recipe
from farfeel.recipe import Train as TrainSettings
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import Recognizer
from farfeel.support.parameters import require_same
from farfeel.support.reading import damage
from farfeel.training.distributed import (
    BatchParts,
    average_statistics,
    gather,
    join,
    lost_peers,
    moving_average,
    restore_optimizer,
    set_up,
    total,
    whole,
)
from farfeel.training.examples import EpochOrder, TrainingSet, Unmixed, at_microphones, collate, collate_rendered
from farfeel.training.tracking import EpochReport, Tracker, require_trackers
from farfeel.types import Batch, FarfeelError

OnBatch = Callable[[int, int, int], None]


def fit(
    model: EmotionModel,
    train: TrainingSet,
    val: Sequence[EvaluationItem],
    recipe: Recipe,
    run_dir: Path,
    resume: bool = False,
    card: str = "",
    trackers: Sequence[str] = (),
    on_batch: OnBatch | None = None,
) -> Iterator[EpochReport]:
    """Train `model`; yield a report after each epoch; leave the result in `run_dir/best`.

    resume: continue after the last epoch in `run_dir/last.ckpt`; epochs done before are not yielded again. card: the
    text of the checkpoint's card. trackers: names of further trackers (wandb, mlflow); CSV and TensorBoard are always
    written. on_batch(epoch, clips done, clips in the epoch) is called after each step. Raises FarfeelError
    where the loss is no longer finite, where the run cannot be resumed, or where another process is lost.
    """
    require_trackers(trackers)
    require_reloadable(model, recipe)
    run_dir = Path(run_dir)
    training = _Training(model, train, val, recipe, run_dir, resume, card)
    history, writes = training.history, training.writes
    if writes and not history:
        _start_afresh(run_dir, recipe)
    tracked = closing(Tracker(run_dir, recipe, trackers, first_epoch=len(history))) if writes else nullcontext()
    with lost_peers(training.fabric), tracked as tracker:
        for epoch in range(len(history), recipe.train.epochs):
            if _out_of_patience(history, recipe):
                break
            report = training.epoch(epoch, on_batch)
            if tracker:
                tracker.log(history)
            yield report
    if writes:
        training.end()


class _Training:
    """One process of a training: the model, its optimiser, its part of every batch, and the epochs so far.

    `writes`: whether this process validates and writes; only one does.
    """

    def __init__(
        self,
        model: EmotionModel,
        train: TrainingSet,
        val: Sequence[EvaluationItem],
        recipe: Recipe,
        run_dir: Path,
        resume: bool,
        card: str,
    ) -> None:
        settings = recipe.train
        self.model, self.train, self.val, self.recipe = model, train, val, recipe
        self.run_dir, self.card = run_dir, card
        self.fabric = join(recipe, _precision(settings.precision))
        self.writes = self.fabric.is_global_zero
        model.temperature.fill_(1.0)  # The one that `model` came with was fitted to other weights.
        self.averaged = moving_average(model, settings.ema) if settings.ema else None
        self.history, optimizer_state = _restore(run_dir, recipe, model, self.averaged) if resume else ([], None)
        self.wrapped, self.kept = set_up(self.fabric, model, self.averaged)
        self.plain_optimizer = _optimizer(model, settings)
        if optimizer_state:  # Restored after the set-up: it goes where the parameters are.
            with damage(lambda reason: f"{run_dir / 'last.ckpt'} does not fit its own recipe ({reason}); train again"):
                restore_optimizer(self.plain_optimizer, optimizer_state)
        self.optimizer: Any = self.fabric.setup_optimizers(self.plain_optimizer)
        if settings.compile and recipe.modalities != "video":
            _compile(model)
        self.order = EpochOrder(len(train), recipe.seed, train.weights)
        self.parts = BatchParts(
            self.order, len(train), settings.batch_size, self.fabric.global_rank, self.fabric.world_size
        )
        self.loader: DataLoader[Any] = DataLoader(
            train,
            batch_sampler=self.parts,
            collate_fn=collate_rendered if recipe.rooms.renderings else collate,
            num_workers=settings.workers,
        )

    def epoch(self, epoch: int, on_batch: OnBatch | None) -> EpochReport:
        """Train one epoch, validate, and save the state; its report, which is now the last of the history."""
        started = time.perf_counter()
        torch.manual_seed(_epoch_seed(self.recipe.seed, epoch, self.fabric.global_rank))
        self.order.set_epoch(epoch)
        self.train.set_epoch(epoch)
        self.model.train()
        losses, done, rate = [], 0, 0.0
        for step, examples in enumerate(self.loader):
            rate = learning_rate(self.recipe.train, epoch + step / len(self.loader))
            losses.append(self.step(step, examples, rate) * self.parts.clips(step))
            done += self.parts.clips(step)
            if on_batch:
                on_batch(epoch, done, len(self.train))
        train_loss = total(self.fabric, sum(losses)) / (done * self.fabric.world_size)
        average_statistics(self.fabric, *[one for one in (self.model, self.averaged) if one])
        gather(self.kept, self.model, self.averaged)
        state = {  # Every process takes part in this: each may hold a part of the tensors.
            "model": whole(self.model.state_dict()),
            "averaged": whole(self.averaged.state_dict()) if self.averaged else {},
            "optimizer": whole(self.plain_optimizer.state_dict()),
        }
        report = self._report(epoch, train_loss, rate, done, started) if self.writes else None
        report = self.fabric.broadcast(report)
        assert report is not None
        self.history.append(report)
        if self.writes:
            _keep_top(self.run_dir, self.kept, self.recipe, self.history, self.card)
            _save_last(self.run_dir, state, self.recipe, self.history)
        return report

    def step(self, number: int, examples: Batch | Unmixed, rate: float) -> float:
        """One batch of the epoch: draw, mix, compute, learn. The mean loss over this process's clips, weighted."""
        augment = self.recipe.augment
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.fabric.to_device(examples)
        if isinstance(batch, Unmixed):
            batch = at_microphones(batch)
        batch = mixup(batch, augment.mixup, len(self.recipe.data.emotions))
        alone = self.recipe.modalities == "both" and augment.modality_dropout > 0
        logits = self.wrapped(batch.audio, batch.mic_mask, batch.frames, batch.video_mask, alone=alone).float()
        mean = dropout_loss(logits, batch, augment) if alone else _loss(logits, batch, augment).mean()
        loss = mean * self.parts.share(number)  # The share is 1 where one process trains.
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if max_norm := self.recipe.train.clip_norm:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=max_norm, error_if_nonfinite=False)
        self.optimizer.step()
        if self.averaged:
            self.averaged.update_parameters(self.model)
        return float(loss.item())

    def end(self) -> None:
        """Write the result of all epochs."""
        _write_best(self.run_dir, self.kept, self.val, self.recipe, self.history, self.card, device=self.fabric.device)

    def _report(self, epoch: int, train_loss: float, rate: float, clips: int, started: float) -> EpochReport:
        """Validate. Raises FarfeelError where the loss is no longer finite."""
        if not math.isfinite(train_loss):
            raise FarfeelError(
                f"the loss is no longer finite in epoch {epoch + 1}; lower train.learning_rate, "
                "or set train.precision=32-true"
            )
        trained_s = time.perf_counter() - started
        validated = (math.nan, math.nan, math.nan)
        if not self.recipe.data.learn_validation:
            validated = validate(self.kept, self.val, self.fabric.device)
        return EpochReport(epoch + 1, train_loss, *validated, rate, clips / trained_s, time.perf_counter() - started)


def _compile(model: EmotionModel) -> None:
    for member in model.hearing:
        for part in ("embed", "forward"):
            setattr(member, part, torch.compile(getattr(member, part)))


def learning_rate(settings: TrainSettings, epoch: float) -> float:
    """Rate at a (fractional) epoch: linear warm-up, then the recipe's schedule. A function of time alone: no state."""
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * max(epoch, 1e-2) / settings.warmup_epochs
    if settings.schedule == "cosine":
        share = (epoch - settings.warmup_epochs) / max(settings.epochs - settings.warmup_epochs, 1e-9)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    if settings.schedule == "step":
        return settings.learning_rate * settings.step_factor ** (epoch // settings.step_epochs)
    return settings.learning_rate


def mixup(batch: Batch, alpha: float, classes: int) -> Batch:
    """Mix each clip with another of the batch: audio as of two talkers at once, video frames and targets too (Zhang et
    al., 2018).

    A departure from HTS-AT, which mixes log-mels: waveforms add in a room, decibels do not (Tokozume et al., 2018).
    A clip is mixed with one that has the same modalities, or not at all.
    """
    if not alpha:
        return batch
    share = torch.distributions.Beta(alpha, alpha).sample((len(batch.audio),)).to(batch.audio.device)
    share = torch.maximum(share, 1 - share)  # the clip itself dominates, so that its microphones' mask stays right
    other = torch.randperm(len(batch.audio), device=batch.audio.device)
    has_audio, has_video = batch.mic_mask.any(dim=1), batch.video_mask
    alike = has_audio == has_audio[other]
    if has_video is not None:
        alike &= has_video == has_video[other]
    share = torch.where(alike, share, 1.0)

    def mixed(x: Tensor) -> Tensor:
        weight = share.view(-1, *[1] * (x.ndim - 1))
        return x * weight + x[other] * (1 - weight)

    return replace(
        batch,
        audio=mixed(batch.audio),
        target=mixed(F.one_hot(batch.target, classes).float()),
        frames=None if batch.frames is None else mixed(batch.frames),
    )


def dropout_loss(views: Tensor, batch: Batch, augment: Augment) -> Tensor:
    """views (3, B, K), from all modalities, audio alone, video alone → the expected loss under modality dropout.

    A clip with audio and video loses one of them with probability `modality_dropout`. Instead of drawing which, all
    three are computed and weighed by their probability: that costs no more than the classifier.
    """
    assert batch.video_mask is not None
    p = augment.modality_dropout
    complete = (batch.mic_mask.any(dim=1) & batch.video_mask).float()
    chances = torch.stack([1 - p * complete, p / 2 * complete, p / 2 * complete])  # (3, B)
    losses = torch.stack([_loss(logits, batch, augment) for logits in views])
    return (chances * losses).sum(dim=0).mean()


def _loss(logits: Tensor, batch: Batch, augment: Augment) -> Tensor:
    """(B, K) → (B,)"""
    return F.cross_entropy(logits, batch.target, label_smoothing=augment.label_smoothing, reduction="none")


def validate(model: EmotionModel, val: Sequence[EvaluationItem], device: torch.device) -> tuple[float, float, float]:
    """Loss, accuracy and UAR over the validation recordings, computed as in an evaluation."""
    table = prediction_table(Recognizer([TorchEngine(model, device)]), val)
    target, probabilities = targets_of(table), probabilities_of(table)
    decided = probabilities.argmax(axis=1)
    loss = -np.log(np.maximum(probabilities[np.arange(len(target)), target], 1e-12)).mean()
    return float(loss), float(accuracy_score(target, decided)), float(balanced_accuracy_score(target, decided))


def computes_in_bf16() -> bool:
    """Whether the GPU, or else the processor, has instructions for bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _precision(precision: str) -> str:
    return ("bf16-mixed" if computes_in_bf16() else "32-true") if precision == "auto" else precision


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """The first of several processes draws what a single one draws, the others each their own."""
    return int(np.random.SeedSequence((seed, epoch, rank) if rank else (seed, epoch)).generate_state(1)[0])


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    # Norms and biases are scales, not weights: decay would only shrink the signal (Loshchilov and Hutter, 2019).
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, settings.learning_rate)


def _best_first(history: list[EpochReport], recipe: Recipe) -> list[EpochReport]:
    """The epoch with the lowest validation loss first.

    Over few speakers UAR jumps by points from one epoch to the next. The loss also measures how honest the
    probabilities are. It means nothing for speakers who were trained on: with data.learn_validation, the last epoch
    comes first.
    """
    return history[::-1] if recipe.data.learn_validation else sorted(history, key=lambda report: report.val_loss)


def _out_of_patience(history: list[EpochReport], recipe: Recipe) -> bool:
    patience = recipe.train.patience
    return bool(patience and history and len(history) - _best_first(history, recipe)[0].epoch >= patience)


def _top_folder(run_dir: Path, epoch: int) -> Path:
    return run_dir / "top" / f"epoch_{epoch:03d}"


def _keep_top(run_dir: Path, model: EmotionModel, recipe: Recipe, history: list[EpochReport], card: str) -> None:
    top = [report.epoch for report in _best_first(history, recipe)[: recipe.train.keep]]
    if history[-1].epoch in top:
        save_checkpoint(_top_folder(run_dir, history[-1].epoch), model.state_dict(), recipe, card)
    for folder in (run_dir / "top").glob("epoch_*"):
        if folder not in {_top_folder(run_dir, epoch) for epoch in top}:
            shutil.rmtree(folder)


def _save_last(run_dir: Path, state: dict[str, Any], recipe: Recipe, history: list[EpochReport]) -> None:
    state = state | {"recipe": recipe.model_dump(mode="json"), "history": [asdict(report) for report in history]}
    write_tensors(run_dir / "last.ckpt", state)


def _restore(
    run_dir: Path, recipe: Recipe, model: EmotionModel, averaged: AveragedModel | None
) -> tuple[list[EpochReport], dict[str, Any] | None]:
    """Load `last.ckpt` into the models; the epochs so far and the optimiser's state. No such file: a run killed in its
    first epoch."""
    path = run_dir / "last.ckpt"
    if not path.exists():
        return [], None
    again = f"delete {run_dir} and train again"
    state = read_tensors(path, again)
    with damage(lambda reason: f"{path} is damaged ({reason}); {again}"):
        # Read as a recipe, so that a setting that it does not have yet gets its default.
        theirs = recipe_from_tree(state["recipe"], source=str(path)).model_dump(mode="json")
        weights, history = with_temperature(state["model"]), [EpochReport(**row) for row in state["history"]]
        require_finite(weights, str(path), again)
        optimizer = state["optimizer"]
    ours = recipe.model_dump(mode="json")
    for settings in (theirs["train"], ours["train"]):
        for how in ("workers", "devices", "strategy"):  # These do not change what is learned.
            settings.pop(how)
    require_same(
        theirs,
        ours,
        f"{run_dir} was trained with another recipe",
        "resume with the same, or choose another --out",
    )
    with damage(lambda reason: f"{path} does not fit its own recipe ({reason}); {again}"):
        model.load_state_dict(weights)
        if averaged:
            averaged.load_state_dict(state["averaged"])
    return history, optimizer


def _start_afresh(run_dir: Path, recipe: Recipe) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    for leftover in ("top", "best"):
        shutil.rmtree(run_dir / leftover, ignore_errors=True)
    save_recipe(recipe, run_dir / "recipe.yaml")


def _write_best(
    run_dir: Path,
    model: EmotionModel,
    val: Sequence[EvaluationItem],
    recipe: Recipe,
    history: list[EpochReport],
    card: str,
    device: torch.device,
) -> None:
    """The best epoch, or the average of the best few where that is better on the validation clips; calibrated. Where
    those were learned, the last epoch as it is."""
    learned = recipe.data.learn_validation
    top = _best_first(history, recipe)[: 1 if learned else recipe.train.keep]
    states: list[dict[str, Tensor]] = [
        load_checkpoint(_top_folder(run_dir, report.epoch)).state_dict() for report in top
    ]
    state, weights = states[0], f"epoch {top[0].epoch}"
    weights += ", the last" if learned else f" (validation loss {top[0].val_loss:.3f}, UAR {top[0].val_uar:.3f})"
    if len(states) > 1:
        model.load_state_dict(average_states(states))
        val_loss, _, val_uar = validate(model, val, device)
        if val_loss < top[0].val_loss:
            epochs = ", ".join(str(report.epoch) for report in top)
            state = model.state_dict()
            weights = f"mean of epochs {epochs} (validation loss {val_loss:.3f}, UAR {val_uar:.3f})"
    model.load_state_dict(state)
    card = f"{card.rstrip()}\n\nWeights: {weights}.\n"
    if not learned:
        card = card_with(card, calibrate(model, val, device), "the validation clips")
    save_checkpoint(run_dir / "best", model.state_dict(), recipe, card)
