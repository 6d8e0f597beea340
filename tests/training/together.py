"""What each of the processes in tests/test_distributed.py does; they import this by name."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from farfeel.cli import main
from farfeel.corpora.splits import Split
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.models.audio_networks.htsat import HTSAT
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.training.examples import TrainingSet
from farfeel.training.loop import fit
from farfeel.training.processes import this_process

BLOCKS = HTSAT.sharded
UNDIVIDED = "undivided"  # the run whose audio network names no blocks to FSDP


def train_each(recipes: dict[str, Recipe], split: Split, out: Path) -> None:
    """A run of each recipe. Batch norms normalise by what they knew at first: those of a part are not those of all."""
    rank = this_process().rank
    for name, recipe in recipes.items():
        HTSAT.sharded = () if name == UNDIVIDED else BLOCKS
        torch.set_num_threads(1)
        torch.manual_seed(recipe.seed)
        model = EmotionModel(recipe)
        for norm in model.modules():
            if isinstance(norm, _BatchNorm):
                norm.eval()
                norm.train = lambda mode=True, norm=norm: norm
        val = EvaluationSet(split.val, recipe, one_room_each=True)
        # The first writes to one place; were the others to write, it would be to places of their own.
        place = out / (f"{name}-{rank}" if rank else name)
        list(fit(model, TrainingSet(split.train, recipe, None), val, recipe, place))


def command(words: Sequence[str]) -> None:
    """A command, in a process that torchrun could have started."""
    torch.set_num_threads(1)
    assert main(words) == 0


def command_until_killed(words: Sequence[str], out: Path, rank: int) -> None:
    """The same; this rank dies at some moment after the first epoch."""

    def die() -> None:
        while not (out / "last.ckpt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    if this_process().rank == rank:
        threading.Thread(target=die, daemon=True).start()
    main(words)


def several(tasks: Sequence[Callable[[], None]]) -> None:
    for task in tasks:
        task()
