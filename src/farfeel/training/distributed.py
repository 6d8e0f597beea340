"""Training over several processes, through Lightning Fabric: how batches are divided, and what is averaged.

A batch is shared by all processes: rank r of R takes clips r, r + R, r + 2R … of each. The batches are those of a
single process, and no clip is drawn twice. Gradients are means over the whole batch. Batch norm is not: each rank
normalises its own part, and running statistics are averaged after each epoch (`average_statistics`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Sampler

from farfeel.recipe import Recipe
from farfeel.support.console import note
from farfeel.training.processes import AGAIN, PeerLostError, this_process
from farfeel.types import FarfeelError

Model = TypeVar("Model", bound=nn.Module)
PATIENCE = timedelta(days=1)  # The others wait while the first validates. A process that ends is noticed at once.
LOST = ("gloo", "nccl", "connection closed", "connection reset")  # in PyTorch's RuntimeError of a lost process


def join(recipe: Recipe, precision: str) -> Fabric:
    """Meet the other processes, if there are any.

    recipe: with train.devices and train.strategy. precision: for Fabric, "32-true" or "bf16-mixed". Raises FarfeelError
    where the recipe does not fit the number of processes or of GPUs.
    """
    process, settings = this_process(), recipe.train
    if process.size == 1:
        if settings.devices > 1:
            raise FarfeelError(
                f"train.devices is {settings.devices}, this is one process; start them with farfeel train or torchrun"
            )
        fabric = Fabric(devices=1, precision=precision)  # type: ignore[arg-type]
        fabric.launch()
        return fabric
    if settings.devices not in (1, process.local):
        raise FarfeelError(
            f"train.devices is {settings.devices}, torchrun or srun started {process.local} processes here; "
            "remove train.devices"
        )
    if settings.batch_size < process.size:
        raise FarfeelError(
            f"train.batch_size is {settings.batch_size}, expected one clip for each of {process.size} processes; "
            "raise it"
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus < process.local:
        raise FarfeelError(
            f"{process.local} processes, each has {gpus} GPUs; start one process for each GPU, and make all GPUs "
            "visible to each"
        )
    strategy: DDPStrategy | ModelParallelStrategy
    if settings.strategy == "fsdp":
        if recipe.modalities == "both":
            raise FarfeelError(
                "train.strategy is fsdp, modalities is both: a process whose clips have no video would leave the "
                "others waiting for its gradients; set train.strategy=ddp"
            )
        strategy = ModelParallelStrategy(
            _shard, data_parallel_size=process.size, tensor_parallel_size=1, timeout=PATIENCE
        )
    else:
        # The clips of one process may have only audio, or only video.
        some_unused = recipe.modalities == "both"
        strategy = DDPStrategy(timeout=PATIENCE, broadcast_buffers=False, find_unused_parameters=some_unused)
    fabric = Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=process.local,
        num_nodes=process.size // process.local,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
    )
    note(f"{process.size} processes train together; waiting until all are there")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with lost_peers(fabric):
        fabric.launch()
    return fabric


def set_up(fabric: Fabric, model: Model, averaged: AveragedModel | None) -> tuple[nn.Module, Model]:
    """The model that is called in training, and the whole model that is validated and kept, both on their device.

    Where FSDP divides the first, `gather` fills the second."""
    kept: Any = averaged.module if averaged else model
    if averaged:
        averaged.to(fabric.device)
    if isinstance(fabric.strategy, ModelParallelStrategy):
        kept = copy.deepcopy(kept).to(fabric.device)
        if averaged:
            _shard(averaged.module, fabric.strategy.device_mesh)
    return fabric.setup_module(model), kept


def gather(kept: nn.Module, model: nn.Module, averaged: AveragedModel | None) -> None:
    """Fill the whole model with the parts that the ranks hold."""
    source = averaged.module if averaged else model
    if kept is not source:
        kept.load_state_dict(whole(source.state_dict()))


def _shard(model: nn.Module, mesh: Any) -> nn.Module:
    """Divide the parameters over the ranks (FSDP2).

    A class attribute `sharded` of a network names its blocks that are gathered one at a time. All other parameters are
    gathered together, as in a network of another package that names no blocks.
    """
    for parameter in model.parameters():  # FSDP does not support channels-last weights.
        parameter.data = parameter.data.contiguous()
    blocks = tuple({block for part in model.modules() for block in getattr(type(part), "sharded", ())})
    for part in model.modules():
        if isinstance(part, blocks):
            fully_shard(part, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])
    return model


class BatchParts(Sampler[list[int]]):
    """A rank's part of each batch of an order. If the last batch has too few clips, a rank takes one of the others'
    clips, so that it makes the same number of steps; that clip has no weight (`share`)."""

    def __init__(self, order: Sampler[int], size: int, batch_size: int, rank: int, ranks: int) -> None:
        self.order, self.size, self.batch_size, self.rank, self.ranks = order, size, batch_size, rank, ranks

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for first in range(0, self.size, self.batch_size):
            batch = order[first : first + self.batch_size]
            yield batch[self.rank :: self.ranks] or batch[:1]

    def clips(self, step: int) -> int:
        """The number of clips in the batch of all ranks."""
        return min(self.batch_size, self.size - step * self.batch_size)

    def share(self, step: int) -> float:
        """The weight of this rank's mean in the batch's, so that the mean over ranks is the mean over clips."""
        return len(range(self.rank, self.clips(step), self.ranks)) * self.ranks / self.clips(step)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model. Where its parameters are divided, each rank averages its own part."""
    average = get_ema_multi_avg_fn(decay)

    def average_parts(ours: Any, theirs: Any, steps: Any) -> None:
        if ours[0].is_floating_point():
            average([_part(tensor) for tensor in ours], [_part(tensor) for tensor in theirs], steps)
            return
        for mine, its in zip(ours, theirs, strict=True):  # An average of indices would be rounded down.
            mine.copy_(its)

    return AveragedModel(model, multi_avg_fn=average_parts, use_buffers=True)


def _part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def average_statistics(fabric: Fabric, *models: nn.Module) -> None:
    """Average the running means and variances over the ranks: each rank computed its part of every batch."""
    if fabric.world_size == 1:
        return
    for model in models:
        for norm in model.modules():
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
                for statistic in (norm.running_mean, norm.running_var):
                    statistic.copy_(fabric.all_reduce(statistic))  # type: ignore[arg-type]


def total(fabric: Fabric, number: float) -> float:
    """The sum over ranks."""
    if fabric.world_size == 1:
        return number
    held = torch.tensor(number, dtype=torch.float64, device=fabric.device)
    return float(fabric.all_reduce(held, reduce_op="sum"))  # type: ignore[arg-type]


def whole(state: Any) -> Any:
    """A state without divided tensors: the same with every strategy, and readable by every strategy."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {name: whole(value) for name, value in state.items()}
    return [whole(value) for value in state] if isinstance(state, list) else state


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state into an optimiser, divided as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, held in state["state"].items():
        parameter = parameters[number]
        if isinstance(parameter, DTensor):
            for name, value in held.items():
                if value.shape == parameter.shape:
                    held[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)
    optimizer.load_state_dict(state)


@contextmanager
def lost_peers(fabric: Fabric) -> Iterator[None]:
    """Raise PeerLostError where a process waits for another one that has ended."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not any(word in str(error).lower() for word in LOST):
            raise
        raise PeerLostError(f"another of {fabric.world_size} processes ended, expected it to finish; {AGAIN}") from None
