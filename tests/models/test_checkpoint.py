"""Laws of checkpoints: what is written is read; temperatures, which older ones lack, are ones there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farfeel.models.checkpoint import average_states, load_checkpoint, read_card, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.types import FarfeelError

Small = Callable[..., Recipe]


def test_temperatures_are_kept(tmp_path: Path, small: Small) -> None:
    model = EmotionModel(small())
    model.temperature.copy_(torch.tensor([1.5, 0.7, 2.0]))
    save_checkpoint(tmp_path / "c", model.state_dict(), small(), "# card\n")
    loaded = load_checkpoint(tmp_path / "c").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    assert read_card(tmp_path / "c") == "# card\n"


def test_a_checkpoint_from_before_temperatures_has_ones(tmp_path: Path, small: Small) -> None:
    state = EmotionModel(small()).state_dict()
    del state["temperature"]
    save_checkpoint(tmp_path / "old", state, small(), "")
    assert load_checkpoint(tmp_path / "old").temperature.tolist() == [1, 1, 1]


def test_anything_else_that_is_missing_is_one_clear_line(tmp_path: Path, small: Small) -> None:
    state = EmotionModel(small()).state_dict()
    del state["temperature"], state[min(state)]
    save_checkpoint(tmp_path / "c", state, small(), "")
    with pytest.raises(FarfeelError, match="1 tensors differ"):
        load_checkpoint(tmp_path / "c")


def test_temperatures_of_another_shape_are_one_clear_line(tmp_path: Path, small: Small) -> None:
    state = EmotionModel(small()).state_dict() | {"temperature": torch.ones(2)}
    save_checkpoint(tmp_path / "c", state, small(), "")
    with pytest.raises(FarfeelError, match=r"the first temperature \(2, expected 3\)"):
        load_checkpoint(tmp_path / "c")


def test_the_mean_of_calibrated_models_has_the_mean_temperature(small: Small) -> None:
    states = []
    for temperature in (2.0, 4.0):
        model = EmotionModel(small())
        model.temperature.fill_(temperature)
        states.append(model.state_dict())
    mean = average_states(states)
    assert mean.keys() == states[0].keys()
    assert mean["temperature"].tolist() == [3, 3, 3]
