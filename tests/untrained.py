"""Models as they are before any training, and models as if trained."""

from collections.abc import Sequence

import torch

from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import Recognizer


def make(*recipes: Recipe) -> Recognizer:
    """A model of each recipe, the first with seed 0, the next with 1, as one ensemble."""
    models = []
    for seed, recipe in enumerate(recipes):
        torch.manual_seed(seed)
        models.append(EmotionModel(recipe))
    return Recognizer([TorchEngine(model) for model in models])


def as_if_learned(recipe: Recipe, temperatures: Sequence[float], seed: int = 1) -> EmotionModel:
    """A model in evaluation mode, with these temperatures (3,) and random values where training begins with zeros."""
    torch.manual_seed(seed)
    model = EmotionModel(recipe)
    with torch.no_grad():
        model.temperature.copy_(torch.tensor(temperatures))
        for name, parameter in model.named_parameters():
            if "absent" in name:
                parameter.normal_()
    return model.eval()
