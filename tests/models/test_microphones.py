"""Laws of microphone fusion: order does not matter, the dead have no influence, the normalised sum knows no number."""

import pytest
import torch

from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import normalise_level
from farfeel.recipe import load_recipe

STRATEGIES = ("single", "average-mels", "sum-patches", "normalised-sum")
FUSING = STRATEGIES[1:]


def model(strategy: str, stem: str = "conv") -> EmotionModel:
    torch.manual_seed(1)
    overrides = [f"microphones.strategy={strategy}", f"model.stem={stem}", "audio.normalise_level=false"]
    return EmotionModel(load_recipe("tiny", overrides)).eval()


@pytest.fixture
def audio() -> torch.Tensor:
    """(2, 4, T) four different microphones."""
    return 0.1 * torch.randn(2, 4, 40960, generator=torch.Generator().manual_seed(1))


def living(*alive: int) -> torch.Tensor:
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[:, list(alive)] = True
    return mask


@pytest.mark.parametrize("strategy", FUSING)
@torch.inference_mode()
def test_the_order_of_microphones_does_not_matter(strategy: str, audio: torch.Tensor) -> None:
    net = model(strategy)
    shuffled = net(audio[:, [2, 0, 3, 1]], living(0, 1, 2, 3))
    torch.testing.assert_close(net(audio, living(0, 1, 2, 3)), shuffled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("what", [0.0, 1.0, float("nan")])
@torch.inference_mode()
def test_a_dead_microphone_has_no_influence_whatever_it_holds(strategy: str, what: float, audio: torch.Tensor) -> None:
    net = model(strategy)
    broken = audio.clone()
    broken[:, 0] = what
    torch.testing.assert_close(net(broken, living(1, 3)), net(audio[:, [1, 3]], living(1, 3)[:, [1, 3]]))


@pytest.mark.parametrize("strategy", FUSING)
def test_a_dead_microphone_leaves_batch_statistics_alone_in_training(strategy: str, audio: torch.Tensor) -> None:
    silent = audio.clone()
    silent[:, 0] = 0.0
    means = []
    for heard in (audio, silent):
        net = model(strategy).train()
        net.augment.eval()
        net(heard, living(1, 2, 3))
        means.append(net.hearing[0].bn0.running_mean.clone())
    torch.testing.assert_close(*means)


@torch.inference_mode()
def test_the_normalised_sum_of_equal_microphones_is_one_of_them(audio: torch.Tensor) -> None:
    net = model("normalised-sum")
    same = audio[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(net(same, living(0, 1, 2, 3)), net(audio[:, :1], living(0)[:, :1]), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_summed_patches_grow_with_the_number_of_microphones(audio: torch.Tensor) -> None:
    net = model("sum-patches", stem="patch")
    mels = net.logmel(audio[:, :1])
    one = net.microphones(mels, living(0)[:, :1], net.hearing[0].embed)
    four = net.microphones(mels.expand(-1, 4, -1, -1), living(0, 1, 2, 3), net.hearing[0].embed)
    torch.testing.assert_close(four, 4 * one, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_one_microphone_is_the_same_to_every_strategy(audio: torch.Tensor) -> None:
    mask = living(0)[:, :1]
    expected = model("single")(audio[:, :1], mask)
    for strategy in FUSING:
        torch.testing.assert_close(model(strategy)(audio[:, :1], mask), expected, atol=1e-5, rtol=1e-4)


def test_the_gain_of_each_microphone_is_without_influence(audio: torch.Tensor) -> None:
    gains = torch.tensor([1.0, 0.5, 2.5, 0.1]).view(1, 4, 1)
    levelled = normalise_level(gains * audio)
    assert 10 * levelled.square().mean(dim=2).log10() == pytest.approx(torch.full((2, 4), -26.0), abs=1e-3)
    torch.testing.assert_close(levelled, normalise_level(audio))
