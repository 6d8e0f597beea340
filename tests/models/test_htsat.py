"""Laws of HTS-AT's front-end and image, and of checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farfeel.media.mel import hz_to_mel, mel_filters, mel_to_hz
from farfeel.models.audio_networks.htsat import HTSAT
from farfeel.models.augment import Equaliser, SpecAugment
from farfeel.models.checkpoint import average_states, load_checkpoint, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import LogMel
from farfeel.recipe import Audio, Augment, Model, load_recipe
from farfeel.types import FarfeelError


@given(st.floats(0, 20000))
def test_mel_scale_inverts(hz: float) -> None:
    assert float(mel_to_hz(hz_to_mel(np.array(hz)))) == pytest.approx(hz, abs=1e-6)


def test_the_reference_s_upper_edge_leaves_nine_filters_empty() -> None:
    assert (mel_filters(16000, 1024, 64, 50.0, 14000.0).sum(axis=0) == 0).sum() == 9
    assert (mel_filters(16000, 1024, 64, 50.0, 8000.0).sum(axis=0) > 0).all()


def test_ten_times_the_amplitude_is_20_db_more() -> None:
    audio = 0.01 * torch.randn(1, 2, 16000, generator=torch.Generator().manual_seed(1))
    logmel = LogMel(Audio())
    torch.testing.assert_close(logmel(10 * audio), logmel(audio) + 20.0, atol=1e-3, rtol=0)


def test_a_tone_lies_in_the_band_around_its_frequency() -> None:
    tone = torch.sin(2 * np.pi * 1000 * torch.arange(16000) / 16000)[None, None]
    loudest = int(LogMel(Audio())(tone)[0, 0].mean(dim=1).argmax())
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(np.array(50.0)), hz_to_mel(np.array(8000.0)), 66))
    assert edges_hz[loudest] < 1000 < edges_hz[loudest + 2]


def test_the_image_stacks_time_chunks_with_frequency_inside() -> None:
    net = HTSAT(Model(), mel_bands=64, classes=8)
    time, band = torch.meshgrid(torch.arange(1024.0), torch.arange(64.0), indexing="ij")
    image = net.image((1000 * band + time).T[None])[0, 0]
    assert image.shape == (256, 256)
    for chunk, frequency, frame in ((0, 0, 0), (1, 5, 7), (3, 63, 255)):
        assert image[64 * chunk + frequency, frame] == 1000 * frequency + 256 * chunk + frame


@settings(max_examples=5)
@given(st.floats(0.5, 10.24))
def test_any_length_up_to_ten_seconds_gives_one_row_of_logits(seconds: float) -> None:
    net = EmotionModel(load_recipe("tiny", [f"audio.seconds={seconds}"])).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 2, round(16000 * seconds)), torch.ones(1, 2, dtype=torch.bool)).shape == (1, 8)


def test_a_shape_that_does_not_divide_is_one_clear_line() -> None:
    with pytest.raises(FarfeelError, match="not divisible"):
        EmotionModel(load_recipe("tiny", ["audio.mel_bands=30"]))


def test_specaugment_hides_the_same_stretch_of_all_microphones_and_nothing_in_testing() -> None:
    torch.manual_seed(1)
    mels = torch.randn(8, 3, 64, 200)
    masks = SpecAugment(Augment(time_masks=2, band_masks=2))
    changed = masks(mels) != mels
    assert changed.any(dim=(1, 2, 3)).any()
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(masks.eval()(mels), mels)


def test_the_equaliser_colours_all_microphones_and_frames_of_a_clip_alike_and_nothing_in_testing() -> None:
    torch.manual_seed(1)
    mels = torch.randn(8, 3, 64, 50)
    equaliser = Equaliser(Augment(filter_db=6))
    curve_db = equaliser(mels) - mels
    torch.testing.assert_close(curve_db, curve_db[:, :1, :, :1].expand_as(mels), atol=1e-5, rtol=0)
    assert 3 < curve_db.abs().max() <= 6 + 1e-5
    assert not torch.allclose(curve_db[0], curve_db[1])
    assert torch.equal(equaliser.eval()(mels), mels)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    net = EmotionModel(load_recipe("tiny"))
    save_checkpoint(tmp_path / "ckpt", net.state_dict(), net.recipe, "# card\n")
    return tmp_path / "ckpt"


def test_a_checkpoint_comes_back_as_it_was(saved: Path) -> None:
    first, second = load_checkpoint(saved), load_checkpoint(saved / "model.safetensors")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert sorted(p.name for p in saved.iterdir()) == ["card.md", "model.safetensors", "recipe.yaml"]


def test_half_a_checkpoint_is_one_clear_line(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(FarfeelError, match="damaged or cut off"):
        load_checkpoint(saved)


@pytest.mark.parametrize("missing", ["model.safetensors", "recipe.yaml"])
def test_a_folder_that_is_no_checkpoint_is_one_clear_line(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(FarfeelError, match=missing):
        load_checkpoint(saved)


def test_weights_of_another_shape_are_one_clear_line(saved: Path) -> None:
    recipe = saved / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("embed_dim: 32", "embed_dim: 48"))
    with pytest.raises(FarfeelError, match="does not fit its own recipe"):
        load_checkpoint(saved)


def test_a_failing_writer_leaves_the_old_checkpoint(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    net = load_checkpoint(saved)
    with pytest.raises(AttributeError):
        save_checkpoint(saved, net.state_dict(), None, "card")  # type: ignore[arg-type]
    assert (saved / "model.safetensors").read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["ckpt"]


def test_the_mean_of_a_state_with_itself_is_itself() -> None:
    state = EmotionModel(load_recipe("tiny")).state_dict()
    for name, tensor in average_states([state, state, state]).items():
        torch.testing.assert_close(tensor, state[name])


def test_a_checkpoint_is_read_without_pickle(saved: Path) -> None:
    header = (saved / "model.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert "hearing.0.bn0.weight" in json.loads(header[8 : 8 + size])
