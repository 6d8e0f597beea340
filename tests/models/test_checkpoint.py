"""Laws of checkpoints: what is written is read; temperatures, which older ones lack, are ones there."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from farfeel.models.checkpoint import average_states, in_half_precision, load_checkpoint, read_card, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.reference import read_state_dict
from farfeel.models.tensor_files import first_not_finite, tensors_checksum
from farfeel.recipe import Recipe, as_yaml
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


@pytest.fixture
def saved(tmp_path: Path, small: Small) -> Path:
    save_checkpoint(tmp_path / "c", EmotionModel(small()).state_dict(), small(), "")
    return tmp_path / "c" / "model.safetensors"


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Copies of the tensors of a checkpoint, whose file may then be written again."""
    state = load_checkpoint(folder).state_dict()
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.999])
def test_a_hundred_zeroed_bytes_and_one_flipped_bit_are_found(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    at = int(share * (len(whole) - 100))
    for damaged in (
        whole[:at] + bytes(100) + whole[at + 100 :],
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
    ):
        saved.write_bytes(damaged)
        with pytest.raises(FarfeelError, match=r"model\.safetensors is damaged or cut off \(.*; copy it again"):
            load_checkpoint(saved.parent)


def test_a_checkpoint_from_before_checksums_loads_as_it_did(saved: Path) -> None:
    state = state_of(saved.parent)
    save_file(state, saved)
    loaded = load_checkpoint(saved.parent).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_not_finite_are_found_and_named(saved: Path, value: float, half: bool) -> None:
    state = state_of(saved.parent)
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[name][0, 0, 0, 0] = value
    save_file(in_half_precision(state) if half else state, saved)
    with pytest.raises(FarfeelError, match=f"has numbers in {name} that are not finite"):
        load_checkpoint(saved.parent)


def test_large_finite_weights_are_not_taken_for_infinite_ones() -> None:
    assert first_not_finite({"a": torch.full((4,), 3e38), "b": torch.tensor([1, 2])}) is None
    assert first_not_finite({"a": torch.full((4,), 6e4, dtype=torch.float16)}) is None
    assert first_not_finite({"a": torch.tensor([3e38, 3e38, float("nan")])}) == "a"


def test_the_checksum_depends_on_names_types_shapes_and_numbers_and_not_on_their_order() -> None:
    one = {"a": torch.zeros(2, 2), "b": torch.ones(())}
    assert tensors_checksum(one) == tensors_checksum(dict(reversed(one.items())))
    others = [
        {"a": torch.zeros(2, 2), "c": torch.ones(())},
        {"a": torch.zeros(4), "b": torch.ones(())},
        {"a": torch.zeros(2, 2, dtype=torch.int32), "b": torch.ones(())},
        {"a": torch.tensor([[0.0, -0.0], [0, 0]]), "b": torch.ones(())},
    ]
    assert len({tensors_checksum(each) for each in (one, *others)}) == 5


@pytest.mark.parametrize("override", ["model.widths=[30000,30000]", "model.members=1000000", "audio.mel_bands=1024"])
def test_a_recipe_of_a_much_larger_model_than_the_file_is_not_built(
    tmp_path: Path, small: Small, override: str
) -> None:
    recipe = small("model.network=residual", "model.widths=[4,4]")
    save_checkpoint(tmp_path / "c", EmotionModel(recipe).state_dict(), recipe, "")
    larger = small("model.network=residual", "model.widths=[4,4]", override)
    (tmp_path / "c" / "recipe.yaml").write_text(as_yaml(larger))
    began_s = time.process_time()
    with pytest.raises(FarfeelError, match=r"describes a larger model|does not fit its own recipe"):
        load_checkpoint(tmp_path / "c")
    assert time.process_time() - began_s < 20


def test_a_file_of_tensors_with_compressed_entries_is_refused(tmp_path: Path) -> None:
    """A few of its bytes could stand for gigabytes."""
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "plain.pt")
    assert read_state_dict(tmp_path / "plain.pt")["a"].shape == (100_000,)
    packed = zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(FarfeelError, match="is compressed"):
        read_state_dict(tmp_path / "small.pt")
