"""Where a run's metrics go: always CSV and TensorBoard; Weights & Biases or MLflow where requested and installed."""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from farfeel.recipe import Recipe
from farfeel.support.files import replacing_file
from farfeel.types import FarfeelError


@dataclass(frozen=True)
class EpochReport:
    """One line of metrics.csv. UAR: unweighted average recall, the mean of the classes' recalls. Validation metrics
    are nan where the model is trained on the validation speakers."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_uar: float
    learning_rate: float
    clips_per_s: float
    seconds: float


class Tracker:
    """Writes each epoch's metrics. first_epoch: hides what a killed run had logged after its last saved state."""

    def __init__(self, run_dir: Path, recipe: Recipe, names: Sequence[str], first_epoch: int) -> None:
        self.run_dir = run_dir
        self.board = SummaryWriter(str(run_dir), purge_step=first_epoch + 1 if first_epoch else None, flush_secs=10)
        settings = recipe.model_dump(mode="json")
        self.others: list[Any] = []
        if "wandb" in names:
            import wandb

            run = wandb.init(project="farfeel", name=run_dir.name, dir=str(run_dir), config=settings, resume="allow")
            self.others.append(lambda row, step: run.log(row, step=step))
        if "mlflow" in names:
            import mlflow

            mlflow.set_experiment("farfeel")
            mlflow.start_run(run_name=run_dir.name)
            mlflow.log_dict(settings, "recipe.json")
            self.others.append(lambda row, step: mlflow.log_metrics(row, step=step))

    def log(self, history: Sequence[EpochReport]) -> None:
        """Record the newest epoch; metrics.csv is written whole, so that it always agrees with the saved state."""
        rows = [asdict(report) for report in history]
        with replacing_file(self.run_dir / "metrics.csv") as partial, partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        newest = {name: value for name, value in rows[-1].items() if not math.isnan(value)}  # not measured
        epoch = newest.pop("epoch")
        for name, value in newest.items():
            self.board.add_scalar(name, value, epoch)
        for log in self.others:
            log(newest, epoch)

    def close(self) -> None:
        """Wait until everything is written; a TensorBoard writer that is not closed loses its last events."""
        self.board.close()


def require_trackers(names: Sequence[str]) -> None:
    """Raise FarfeelError where a requested package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise FarfeelError(f"--track {name} needs the package {name}, which is not installed; pip install {name}")
