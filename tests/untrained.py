"""Models as they are before any training."""

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
