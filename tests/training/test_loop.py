"""Laws of training: resume equals uninterrupted, chance follows from the seed, the result is the best."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from farfeel.cli import main
from farfeel.corpora.splits import Split
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe, Train
from farfeel.rooms.bank import Bank
from farfeel.training.examples import TrainingSet
from farfeel.training.loop import fit, learning_rate, mixup
from farfeel.training.run import run_training
from farfeel.training.tracking import EpochReport
from farfeel.types import Batch, FarfeelError

Small = Callable[..., Recipe]
BUSY = ("augment.mixup=0.4", "augment.speed=0.1", "model.drop_path=0.2", "model.dropout=0.2")


def train(recipe: Recipe, split: Split, bank: Bank | None, out: Path, epochs: int | None = None, resume: bool = False):
    """Reports of a run; with `epochs`, stopped after so many, as if killed."""
    torch.manual_seed(recipe.seed)
    model = EmotionModel(recipe)
    clips = TrainingSet(split.train, recipe, bank)
    val = EvaluationSet(split.val, recipe, [bank] if bank else [], one_room_each=True)
    reports = []
    for report in fit(model, clips, val, recipe, out, resume=resume):
        reports.append(report)
        if len(reports) == epochs:
            break
    return reports


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "best").state_dict()


def metrics_of(run: Path) -> list[list[str]]:
    """metrics.csv without what depends on the clock."""
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return [[value for name, value in row.items() if name not in ("clips_per_s", "seconds")] for row in rows]


def assert_equal(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metrics_of(one) == metrics_of(other)


@pytest.mark.parametrize("more", [(), ("train.ema=0.9", "rooms.renderings=2", "augment.vtlp=0.1")])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, split: Split, bank: Bank, small: Small, more: tuple[str, ...]
) -> None:
    recipe = small(*BUSY, *more)
    train(recipe, split, bank, tmp_path / "whole")
    train(recipe, split, bank, tmp_path / "halved", epochs=1)
    (later,) = {len(train(recipe, split, bank, tmp_path / "halved", resume=True))}
    assert later == recipe.train.epochs - 1
    assert_equal(tmp_path / "whole", tmp_path / "halved")


def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(
    tmp_path: Path, voices: Path, split: Split, bank: Bank, small: Small
) -> None:
    common = [
        "train",
        "--recipe",
        "tiny",
        "--corpus",
        "synthetic",
        "--root",
        str(voices),
        "--rirs",
        str(bank.path),
        "audio.seconds=1.28",
        "model.image_frames=64",
        "train.batch_size=4",
        "train.epochs=3",
        "augment.mixup=0.4",
    ]
    assert main([*common, "--out", str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "farfeel.cli", *common, "--out", str(killed)]
    # As many threads as here: sums in another order differ in their last bits.
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=threads)
    deadline = time.monotonic() + 120
    while not (killed / "last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (killed / "last.ckpt").exists()
    assert main([*common, "--out", str(killed), "--resume"]) == 0
    assert_equal(tmp_path / "whole", killed)


def test_the_card_of_a_calibrated_result_has_its_temperature(
    tmp_path: Path, split: Split, bank: Bank, small: Small
) -> None:
    recipe = small("train.epochs=2", "train.keep=2")
    train(recipe, split, bank, tmp_path / "run")
    best = load_checkpoint(tmp_path / "run" / "best")
    assert best.temperature[0] != 1
    assert best.temperature[1:].tolist() == [1, 1]  # of videos, which the recipe does not take
    assert f"temperature {best.temperature[0]:.3f}" in (tmp_path / "run" / "best" / "card.md").read_text()
    for epoch in (tmp_path / "run" / "top").iterdir():
        assert load_checkpoint(epoch).temperature.tolist() == [1, 1, 1]


def test_temperatures_of_the_initial_weights_are_not_kept(tmp_path: Path, split: Split, small: Small) -> None:
    recipe = small("train.epochs=1")
    for name, temperature in (("plain", 1.0), ("calibrated", 4.0)):
        torch.manual_seed(recipe.seed)
        model = EmotionModel(recipe)
        model.temperature.fill_(temperature)
        val = EvaluationSet(split.val, recipe, one_room_each=True)
        list(fit(model, TrainingSet(split.train, recipe, None), val, recipe, tmp_path / name))
    assert_equal(tmp_path / "plain", tmp_path / "calibrated")


def test_a_state_from_before_temperatures_is_resumed(tmp_path: Path, split: Split, small: Small) -> None:
    train(small(), split, None, tmp_path / "whole")
    train(small(), split, None, tmp_path / "older", epochs=1)
    state = torch.load(tmp_path / "older" / "last.ckpt", weights_only=True)
    del state["model"]["temperature"]
    torch.save(state, tmp_path / "older" / "last.ckpt")
    train(small(), split, None, tmp_path / "older", resume=True)
    assert_equal(tmp_path / "whole", tmp_path / "older")


def test_reading_in_other_processes_changes_nothing(tmp_path: Path, split: Split, bank: Bank, small: Small) -> None:
    for workers in (0, 2):
        train(small("train.epochs=1", f"train.workers={workers}"), split, bank, tmp_path / str(workers))
    assert_equal(tmp_path / "0", tmp_path / "2")


def test_training_learns_its_own_clips(tmp_path: Path, split: Split, small: Small) -> None:
    recipe = small(
        "train.epochs=15",
        "train.warmup_epochs=1",
        "rooms.snr_db=null",
        "augment.label_smoothing=0",
        "augment.time_masks=0",
        "augment.band_masks=0",
    )
    reports = train(recipe, split, None, tmp_path / "run")
    assert reports[-1].train_loss < 0.75 * reports[0].train_loss  # two pairs of emotions share a voice


def test_a_run_writes_its_documented_files(tmp_path: Path, split: Split, small: Small) -> None:
    recipe = small("train.keep=2")
    reports = train(recipe, split, None, tmp_path / "run")
    run = tmp_path / "run"
    assert {"recipe.yaml", "metrics.csv", "best", "top", "last.ckpt"} <= {p.name for p in run.iterdir()}
    assert any(p.name.startswith("events") for p in run.iterdir())
    best = sorted(reports, key=lambda r: r.val_loss)[:2]
    assert sorted(p.name for p in (run / "top").iterdir()) == sorted(f"epoch_{r.epoch:03d}" for r in best)
    assert load_checkpoint(run / "best").recipe == recipe
    assert len(metrics_of(run)) == 3


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path, split: Split, small: Small) -> None:
    recipe = small("train.epochs=12", "train.patience=1", "train.learning_rate=0.5")
    reports = train(recipe, split, None, tmp_path / "run")
    best = min(range(len(reports)), key=lambda i: reports[i].val_loss)
    assert len(reports) == best + 1 + 1 < 12


def test_another_recipe_is_not_resumed(tmp_path: Path, split: Split, small: Small) -> None:
    train(small(), split, None, tmp_path / "run", epochs=1)
    with pytest.raises(FarfeelError, match=r"another recipe \(train.learning_rate 0.001, requested 0.5"):
        train(small("train.learning_rate=0.5"), split, None, tmp_path / "run", resume=True)


def test_a_damaged_state_is_one_clear_line(tmp_path: Path, split: Split, small: Small) -> None:
    train(small(), split, None, tmp_path / "run", epochs=1)
    last = tmp_path / "run" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(FarfeelError, match="is damaged"):
        train(small(), split, None, tmp_path / "run", resume=True)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_one_flipped_bit_of_a_state_is_found(tmp_path: Path, split: Split, small: Small, share: float) -> None:
    train(small(), split, None, tmp_path / "run", epochs=1)
    last = tmp_path / "run" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[int(share * len(content))] ^= 4
    last.write_bytes(content)
    with pytest.raises(FarfeelError, match=r"last\.ckpt is damaged, .*its checksum is another"):
        train(small(), split, None, tmp_path / "run", resume=True)


def test_a_state_from_before_checksums_resumes_to_the_same_weights(tmp_path: Path, split: Split, small: Small) -> None:
    train(small(), split, None, tmp_path / "whole")
    train(small(), split, None, tmp_path / "run", epochs=1)
    last = tmp_path / "run" / "last.ckpt"
    with_checksum = last.read_bytes()
    torch.save(torch.load(last, weights_only=True), last)
    assert last.read_bytes() != with_checksum
    train(small(), split, None, tmp_path / "run", resume=True)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_loss_that_explodes_is_one_clear_line(tmp_path: Path, split: Split, small: Small) -> None:
    with pytest.raises(FarfeelError, match="no longer finite"):
        train(small("train.learning_rate=1e30", "train.clip_norm=0"), split, None, tmp_path / "run")


def test_the_averaged_weights_are_the_result(tmp_path: Path, split: Split, small: Small) -> None:
    still = small("train.ema=0.999999", "train.epochs=1", "model.dropout=0")  # an average that does not move
    train(still, split, None, tmp_path / "run")
    torch.manual_seed(still.seed)
    start, kept = EmotionModel(still).state_dict(), weights(tmp_path / "run")
    name = "hearing.0.tscam_conv.weight"
    trained = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["model"][name]
    # The average's first value is the weights after one step of Adam, a learning rate from where they began.
    assert (kept[name] - start[name]).abs().max() < 0.2 * (trained - start[name]).abs().max()


def test_validation_speakers_in_training_choose_no_epoch(tmp_path: Path, split: Split, small: Small) -> None:
    recipe = small("data.learn_validation=true", "train.patience=1", "train.learning_rate=0.1", "train.epochs=3")
    best = run_training(recipe, split.train, split.val, None, tmp_path / "run")
    kept = load_checkpoint(best)
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["model"]
    assert all(torch.equal(last[name], tensor) for name, tensor in kept.state_dict().items())
    assert kept.temperature.tolist() == [1, 1, 1]
    card = (best / "card.md").read_text()
    assert f"training: {len(split.train) + len(split.val)} clips" in card
    assert "Weights: epoch 3" in card


def test_cosine_warms_up_and_ends_at_zero() -> None:
    knobs = Train(epochs=10, learning_rate=1.0, warmup_epochs=2)
    rates = [learning_rate(knobs, epoch / 10) for epoch in range(100)]
    peak = rates.index(max(rates))
    assert peak == 20
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert learning_rate(knobs, 10) == pytest.approx(0.0, abs=1e-12)


def test_steps_fall_by_their_factor() -> None:
    knobs = Train(learning_rate=1.0, schedule="step", warmup_epochs=0, step_epochs=10, step_factor=0.5)
    assert [learning_rate(knobs, epoch) for epoch in (0, 9.9, 10, 25)] == [1.0, 1.0, 0.5, 0.25]


def test_mixup_mixes_audio_and_target_alike() -> None:
    torch.manual_seed(1)
    target = torch.arange(6)
    batch = Batch(F.one_hot(target, 6).float()[:, None, :], torch.ones(6, 1, dtype=torch.bool), target)
    mixed = mixup(batch, 0.4, 6)
    torch.testing.assert_close(mixed.audio[:, 0], mixed.target)  # the audio is its own target here
    torch.testing.assert_close(mixed.target.sum(dim=1), torch.ones(6))
    assert (mixed.target[range(6), target] >= 0.5 - 1e-6).all()
    assert mixup(batch, 0.0, 6) is batch


def test_a_report_has_the_columns_of_metrics_csv(tmp_path: Path, split: Split, small: Small) -> None:
    train(small("train.epochs=1"), split, None, tmp_path / "run")
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert header.split(",") == list(EpochReport.__dataclass_fields__)
