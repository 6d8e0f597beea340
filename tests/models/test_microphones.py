"""Laws of our microphone strategies. Those of every registered strategy are in test_variants.py."""

import pytest
import torch

from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import normalise_level
from farfeel.recipe import load_recipe
from farfeel.variants import MICROPHONES


def model(strategy: str, stem: str = "conv") -> EmotionModel:
    torch.manual_seed(1)
    overrides = [f"microphones.strategy={strategy}", f"model.stem={stem}", "audio.normalise_level=false"]
    return EmotionModel(load_recipe("tiny", overrides)).eval()


@pytest.fixture
def audio() -> torch.Tensor:
    """(2, 4, T) four different microphones."""
    return 0.1 * torch.randn(2, 4, 40960, generator=torch.Generator().manual_seed(1))


def working(*alive: int) -> torch.Tensor:
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[:, list(alive)] = True
    return mask


@torch.inference_mode()
def test_the_normalised_sum_of_equal_microphones_is_one_of_them(audio: torch.Tensor) -> None:
    net = model("normalised-sum")
    same = audio[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(
        net(same, working(0, 1, 2, 3)), net(audio[:, :1], working(0)[:, :1]), atol=1e-5, rtol=1e-4
    )


@torch.inference_mode()
def test_summed_patches_grow_with_the_number_of_microphones(audio: torch.Tensor) -> None:
    net = model("sum-patches", stem="patch")
    mels = net.logmel(audio[:, :1])
    one = net.microphones(mels, working(0)[:, :1], net.hearing[0].embed)
    four = net.microphones(mels.expand(-1, 4, -1, -1), working(0, 1, 2, 3), net.hearing[0].embed)
    torch.testing.assert_close(four, 4 * one, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_one_microphone_is_the_same_to_every_strategy(audio: torch.Tensor) -> None:
    mask = working(0)[:, :1]
    expected = model("single")(audio[:, :1], mask)
    for strategy in MICROPHONES:
        torch.testing.assert_close(model(strategy)(audio[:, :1], mask), expected, atol=1e-5, rtol=1e-4)


def test_the_gain_of_each_microphone_is_without_influence(audio: torch.Tensor) -> None:
    gains = torch.tensor([1.0, 0.5, 2.5, 0.1]).view(1, 4, 1)
    levelled = normalise_level(gains * audio)
    assert 10 * levelled.square().mean(dim=2).log10() == pytest.approx(torch.full((2, 4), -26.0), abs=1e-3)
    torch.testing.assert_close(levelled, normalise_level(audio))
