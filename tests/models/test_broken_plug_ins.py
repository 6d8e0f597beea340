"""A plug-in that does not do what its kind has to do is found before training, in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farfeel.models.checkpoint import require_reloadable
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe, choices
from farfeel.types import FarfeelError

MODULE = '''
from farfeel.models.microphones import MicFusion

class Good(MicFusion):
    """The microphones whose mask is True, averaged."""
    def forward(self, mels, mic_mask, embed):
        weight = mic_mask[..., None, None].float()
        return embed((mels * weight).sum(1) / weight.sum(1))

class NotFinite(MicFusion):
    def forward(self, mels, mic_mask, embed):
        return embed(mels.mean(1) * float("nan"))

class Listens(MicFusion):
    def forward(self, mels, mic_mask, embed):
        return embed(mels.mean(1))

class Raises(MicFusion):
    def forward(self, mels, mic_mask, embed):
        raise KeyError("level")

def function(mels, mic_mask, embed):
    return embed(mels[:, 0])
'''
NAMES = {"good": "Good", "not-finite": "NotFinite", "listens": "Listens", "raises": "Raises", "function": "function"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with these strategies, installed; and one whose module is missing."""
    (tmp_path / "broken_strategies.py").write_text(MODULE)
    facts = tmp_path / "broken_strategies-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-strategies\nVersion: 0.1\n")
    lines = [f"{name} = broken_strategies:{target}" for name, target in NAMES.items()]
    (facts / "entry_points.txt").write_text("\n".join(["[farfeel.microphones]", *lines, "gone = nowhere.at.all:Gone"]))
    monkeypatch.syspath_prepend(str(tmp_path))


def check(recipe: Recipe) -> None:
    require_reloadable(EmotionModel(recipe), recipe)


@pytest.mark.usefixtures("package")
def test_one_that_does_passes_and_draws_nothing(small: Callable[..., Recipe]) -> None:
    recipe = small("microphones.strategy=good", "microphones.count=3")
    model = EmotionModel(recipe)
    state = torch.get_rng_state()
    require_reloadable(model, recipe)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("not-finite", "gives numbers that are not finite"),
        ("listens", "a dead microphone .* changes the answer"),
        ("raises", r"a trial of the model fails \(KeyError: 'level'\)"),
        ("function", "is no class of farfeel.models.microphones.MicFusion"),
        ("gone", "cannot be loaded"),
    ],
)
def test_one_that_does_not_is_refused_and_its_package_named(small: Callable[..., Recipe], name: str, line: str) -> None:
    with pytest.raises(FarfeelError, match=line) as caught:
        check(small(f"microphones.strategy={name}", "microphones.count=3"))
    assert "broken-strategies 0.1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("package")
def test_one_that_cannot_be_read_does_not_hide_the_others() -> None:
    listed = choices()["microphones.strategy"]
    assert listed["gone"].startswith("cannot be used: ")
    assert listed["good"] == "The microphones whose mask is True, averaged. (from broken-strategies 0.1)"
