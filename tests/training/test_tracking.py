"""Metrics reach CSV, TensorBoard, and the trackers that are asked for and installed."""

import csv
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from farfeel.recipe import Recipe
from farfeel.training.tracking import EpochReport, Tracker, require_trackers
from farfeel.types import FarfeelError

HISTORY = [EpochReport(epoch, 2.0 / epoch, 1.9, 0.25, 0.2, 1e-3, 50.0, 3.0) for epoch in (1, 2)]


def scalars(file: Path) -> dict[tuple[str, int], float]:
    """TensorBoard's records: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    content, found, at = file.read_bytes(), {}, 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += 16 + length
    return found


def test_csv_and_tensorboard_hold_every_epoch(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, Recipe(), (), first_epoch=0)
    for epochs in (1, 2):
        tracker.log(HISTORY[:epochs])
    tracker.close()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [float(row["train_loss"]) for row in rows] == [2.0, 1.0]
    (events,) = tmp_path.glob("events.out.*")
    assert scalars(events)["val_uar", 2] == pytest.approx(0.2)
    assert {step for _, step in scalars(events)} >= {1, 2}


def test_a_tracker_that_is_not_installed_is_one_clear_line() -> None:
    with pytest.raises(FarfeelError, match="needs the package no_such_tracker, which is not installed"):
        require_trackers(["no_such_tracker"])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """Install a module with the named functions; their calls are recorded."""

    def install(name: str, *functions: str) -> list:
        module, calls = ModuleType(name), []
        module.__spec__ = ModuleSpec(name, None)

        def recorder(function: str) -> Callable[..., SimpleNamespace]:
            def call(*args: object, **kwargs: object) -> SimpleNamespace:
                calls.append((function, args, kwargs))
                return SimpleNamespace(log=recorder("run.log"))

            return call

        for function in functions:
            setattr(module, function, recorder(function))
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return install


def test_weights_and_biases_gets_settings_and_metrics(tmp_path: Path, stand_in: Callable[..., list]) -> None:
    calls = stand_in("wandb", "init")
    Tracker(tmp_path, Recipe(), ["wandb"], first_epoch=0).log(HISTORY[:1])
    (_, _, started), (_, (row,), logged) = calls
    assert started["config"]["train"]["epochs"] == Recipe().train.epochs
    assert (row["val_uar"], logged["step"]) == (0.2, 1)


def test_mlflow_gets_settings_and_metrics(tmp_path: Path, stand_in: Callable[..., list]) -> None:
    calls = stand_in("mlflow", "set_experiment", "start_run", "log_dict", "log_metrics")
    Tracker(tmp_path, Recipe(), ["mlflow"], first_epoch=0).log(HISTORY[:1])
    assert [name for name, *_ in calls] == ["set_experiment", "start_run", "log_dict", "log_metrics"]
    assert calls[-1][1][0]["train_loss"] == 2.0
