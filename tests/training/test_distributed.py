"""Laws of training over processes: they equal one, share the clips, end together, and the first alone writes."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import together
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_loop import assert_equal, train

import crashing
from farfeel.cli import main
from farfeel.corpora.splits import Split
from farfeel.models.audio_networks.residual import LatentNorm
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank
from farfeel.shards.prepare import prepare
from farfeel.shards.store import Shards
from farfeel.training.distributed import BatchParts, moving_average
from farfeel.training.examples import EpochOrder
from farfeel.training.prepared_examples import PreparedTrainingSet
from farfeel.training.processes import ProcessRank, run_together, this_process
from farfeel.types import FarfeelError

Small = Callable[..., Recipe]
# What is drawn for a batch (masks, mixtures, dropout) each rank draws for its own part: off, to be compared.
STILL = ("augment.time_masks=0", "augment.band_masks=0", "train.epochs=2", "train.batch_size=5")  # 5, 5, 5 and 1
RUNS = {
    "ddp": (),
    "fsdp": ("train.strategy=fsdp", "train.ema=0.9"),
    # A strategy of another package, and a network that names no blocks: FSDP gathers it as a whole.
    together.UNDIVIDED: ("train.strategy=fsdp", "train.epochs=1", "microphones.strategy=loudest"),
    "both": ("modalities=both", "train.epochs=1", "train.batch_size=8"),
}


@pytest.fixture(scope="module")
def command(voices: Path, bank: Bank) -> list[str]:
    words = ["train", "--recipe", "tiny", "--corpus", "synthetic", "--root", str(voices), "--rirs", str(bank.path)]
    return [*words, "audio.seconds=1.28", "model.image_frames=64", "train.batch_size=4", "augment.mixup=0.4"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, split: Split, small: Small, command: list[str]) -> Path:
    """Runs of two processes, which import PyTorch once for all of them: RUNS, and `whole` by the command."""
    out = tmp_path_factory.mktemp("two")
    recipes = {name: small(*STILL, *more) for name, more in RUNS.items()}
    each = functools.partial(together.train_each, recipes, split, out)
    whole = functools.partial(together.command, [*command, "--epochs", "3", "--out", str(out / "whole")])
    run_together(functools.partial(together.several, [each, whole]), 2)
    return out


def test_the_first_process_alone_writes(two: Path) -> None:
    assert sorted(place.name for place in two.iterdir()) == sorted([*RUNS, "whole"])


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one(name: str, two: Path, tmp_path: Path, split: Split, small: Small) -> None:
    together.train_each({name: small(*STILL, *RUNS[name])}, split, tmp_path)
    ours, theirs = (torch.load(place / name / "last.ckpt", weights_only=True) for place in (tmp_path, two))
    for part in ("model", "averaged"):
        for key, tensor in ours[part].items():
            torch.testing.assert_close(theirs[part][key], tensor, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours["history"], theirs["history"], strict=True):
        for figure in ("train_loss", "val_loss", "val_accuracy"):
            assert other[figure] == pytest.approx(one[figure], abs=1e-5)


def test_a_killed_process_ends_all_and_the_run_resumes_to_the_same_bits(
    two: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*command, "--epochs", "3", "--out", str(tmp_path)]
    with pytest.raises(FarfeelError, match=r"process 1 of 2 was killed by signal 9.* --resume"):
        run_together(functools.partial(together.command_until_killed, words, tmp_path, 1), 2)
    assert not (tmp_path / "best").exists()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums in another order differ in their last bits
    assert main([*words, "--resume", "--devices", "2"]) == 0
    assert_equal(two / "whole", tmp_path)


@given(
    size=st.integers(1, 40),
    batch_size=st.integers(3, 12),
    ranks=st.integers(1, 3),
    weights=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_all_parts_together_are_the_batches_of_one_process(
    size: int, batch_size: int, ranks: int, weights: bool, epoch: int
) -> None:
    order = EpochOrder(size, 1, np.linspace(0.2, 1, size).tolist() if weights else [])
    order.set_epoch(epoch)
    drawn = list(order)
    assert len(set(drawn)) == size
    parts = [BatchParts(order, size, batch_size, rank, ranks) for rank in range(ranks)]
    for step, pieces in enumerate(zip(*parts, strict=True)):
        batch = drawn[step * batch_size :][:batch_size]
        own = [piece for piece, part in zip(pieces, parts, strict=True) if part.share(step)]
        assert sorted(itertools.chain(*own)) == sorted(batch)
        # Means over parts, weighed by their shares, are means over the batch.
        means = [part.share(step) * np.mean(piece) for piece, part in zip(pieces, parts, strict=True)]
        assert np.mean(means) == pytest.approx(np.mean(batch))
        assert all(part.clips(step) == len(batch) for part in parts)
    assert {len(part) for part in parts} == {step + 1}


def test_no_prepared_clip_is_read_twice_in_an_epoch(
    tmp_path: Path, split: Split, bank: Bank, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small()
    prepare(split.train, recipe, bank, tmp_path / "shards", [0, 1, 2], renderings=2, per_shard=5, workers=1)
    clips = PreparedTrainingSet(split.train, recipe, Shards.open(tmp_path / "shards"))
    read: list[int] = []
    fetch = Shards.__getitem__
    monkeypatch.setattr(Shards, "__getitem__", lambda shards, index: read.append(index) or fetch(shards, index))
    order = EpochOrder(len(clips), recipe.seed)
    for rank in range(2):
        for indices in BatchParts(order, len(clips), 6, rank, 2):
            for index in indices:
                clips[index]
    assert sorted(clips.shards.rows[index]["clip"] for index in read) == sorted(clip.id for clip in split.train)


def test_the_error_of_one_process_is_reported() -> None:
    with pytest.raises(FarfeelError, match=r"^sad\.wav is damaged$"):
        run_together(crashing.fail_or_wait, 2)


def test_torchrun_and_slurm_give_the_rank_of_this_process() -> None:
    assert this_process({}) == ProcessRank(0, 1, 1)
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert this_process(torchrun) == ProcessRank(5, 8, 4)
    slurm = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"}
    assert this_process(slurm) == ProcessRank(3, 4, 2)
    assert this_process(slurm | {"SLURM_JOB_NAME": "bash"}) == ProcessRank()
    with pytest.raises(FarfeelError, match="add that"):
        this_process({"SLURM_NTASKS": "4"})


@pytest.mark.parametrize(
    ("size", "local", "overrides", "said"),
    [
        (1, 1, ("train.devices=2",), "start them with farfeel train or torchrun"),
        (2, 2, ("train.devices=3",), "started 2 processes here; remove train.devices"),
        (2, 2, ("train.batch_size=1",), "expected one clip for each of 2"),
        (2, 2, ("train.strategy=fsdp", "modalities=both"), "set train.strategy=ddp"),
    ],
)
def test_a_recipe_that_does_not_fit_the_processes_is_one_clear_line(
    tmp_path: Path,
    split: Split,
    small: Small,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    local: int,
    overrides: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr("farfeel.training.distributed.this_process", lambda: ProcessRank(0, size, local))
    with pytest.raises(FarfeelError, match=said):
        train(small(*overrides), split, None, tmp_path / "run")


def test_a_run_of_several_processes_resumes_with_one(tmp_path: Path, split: Split, small: Small) -> None:
    train(small(), split, None, tmp_path / "run", epochs=1)
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    state["recipe"]["train"] |= {"devices": 4, "strategy": "fsdp"}
    torch.save(state, tmp_path / "run" / "last.ckpt")
    assert len(train(small(), split, None, tmp_path / "run", resume=True)) == 2


def test_a_single_clip_in_a_part_is_normalised_by_the_running_statistics(small: Small) -> None:
    norm = LatentNorm(3).train()
    latent = torch.randn(8, 3)
    norm(latent)
    known = norm.running_mean.clone()
    torch.testing.assert_close(norm(latent[:1]), norm.eval()(latent[:1]))
    assert torch.equal(norm.running_mean, known)


def test_an_average_keeps_indices_as_they_are() -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("places", torch.arange(300))
    averaged = moving_average(model, 0.9)
    for _ in range(20):
        averaged.update_parameters(model)
    assert torch.equal(averaged.module.get_buffer("places"), torch.arange(300))
