"""Checkpoints: a folder of `model.safetensors`, `recipe.yaml` and `card.md`. No pickle, ever."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe, apply_override, recipe_from_tree, save_recipe
from farfeel.support.files import replacing_folder, require_replaceable
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

WEIGHTS, RECIPE, CARD = "model.safetensors", "recipe.yaml", "card.md"
TEMPERATURE = "temperature"  # EmotionModel's buffer (3,)
MERGED_HIDDEN = 64  # Width of a fusion layer that adds nothing until it is trained.


def require_checkpoint_place(folder: Path) -> None:
    """Raise FarfeelError where a checkpoint may not be put: at a file, or over anything but a checkpoint."""
    require_replaceable(folder, (WEIGHTS, RECIPE, CARD), "a checkpoint")


def save_checkpoint(folder: Path, state: dict[str, Tensor], recipe: Recipe, card: str) -> None:
    """Write a checkpoint folder whole, or not at all; FarfeelError where `folder` holds anything but a checkpoint."""
    require_checkpoint_place(folder)
    with replacing_folder(folder) as partial:
        # Written by Python, whose error for a full disk says so; the library's own writer has another for everything.
        (partial / WEIGHTS).write_bytes(save({name: tensor.contiguous() for name, tensor in state.items()}))
        save_recipe(recipe, partial / RECIPE)
        (partial / CARD).write_text(card, encoding="utf-8")


def load_checkpoint(folder: Path) -> EmotionModel:
    """The model of a checkpoint folder, in evaluation mode on the CPU. Raises FarfeelError with one line."""
    folder = Path(folder)
    if folder.name == WEIGHTS:
        folder = folder.parent
    missing = [name for name in (WEIGHTS, RECIPE) if not (folder / name).is_file()]
    if missing:
        found = "does not exist" if not folder.exists() else f"has no {' and no '.join(missing)}"
        raise FarfeelError(
            f"checkpoint {folder} {found}; expected the best/ folder of a farfeel train run; check the path"
        )
    recipe = read_checkpoint_recipe(folder)
    model = EmotionModel(recipe)
    state = with_temperature(read_weights(folder))
    ours = model.state_dict()
    wrong = sorted(name for name in ours.keys() | state.keys() if _shape(ours, name) != _shape(state, name))
    if wrong:
        raise FarfeelError(
            f"checkpoint {folder} does not fit its own recipe.yaml: {len(wrong)} tensors differ, the first {wrong[0]} "
            f"({_shape(state, wrong[0])}, expected {_shape(ours, wrong[0])}); restore the folder as it was written"
        )
    model.load_state_dict(state)
    return model.eval()


def read_checkpoint_recipe(folder: Path) -> Recipe:
    """The recipe inside a checkpoint folder."""
    path = Path(folder) / RECIPE
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FarfeelError(f"checkpoint {folder}: recipe.yaml cannot be read ({one_line(error)})") from None
    if not isinstance(tree, dict):
        raise FarfeelError(f"checkpoint {folder}: recipe.yaml holds no recipe; restore the folder as it was written")
    return recipe_from_tree(tree, source=f"checkpoint {folder}")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint folder as they are stored, those of 16 bits in 16 bits."""
    path = Path(folder) / WEIGHTS
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FarfeelError(f"checkpoint {path} is damaged or cut off ({one_line(error, 100)}); copy it again") from None


def read_card(folder: Path) -> str:
    """The card of a checkpoint folder; empty where it has none."""
    path = Path(folder) / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def merge_checkpoints(folders: Sequence[Path], overrides: Sequence[str] = ()) -> tuple[EmotionModel, str]:
    """One model made of several, not trained further, and its card.

    Models of audio become members side by side. A model of video is added by late fusion, which sums what both say (a
    product of experts). Their recipes may differ in seed, split and training. overrides: `section.key=value` changes to
    the merged recipe. Raises FarfeelError where the models of audio differ, or where there are several of video.
    """
    models = {Path(folder): load_checkpoint(folder) for folder in folders}
    of_audio = {folder: model for folder, model in models.items() if model.recipe.modalities == "audio"}
    of_video = {folder: model for folder, model in models.items() if model.recipe.modalities == "video"}
    _require_mergeable(models, of_audio, of_video)
    tree = _merged_recipe(of_audio, of_video)
    for override in overrides:
        apply_override(tree, override)
    merged = EmotionModel(recipe_from_tree(tree, source="merged recipe"))
    merged.load_state_dict(_merged_state(merged, list(of_audio.values()), list(of_video.values())))
    about = [
        f"- {folder}: {model.recipe.name}, seed {model.recipe.seed}, split {model.recipe.data.split}"
        for folder, model in models.items()
    ]
    return merged.eval(), "# Merged\n\n" + "\n".join(about) + "\n"


Models = dict[Path, EmotionModel]


def _require_mergeable(models: Models, of_audio: Models, of_video: Models) -> None:
    """Raise FarfeelError where these models cannot be merged."""
    both = [str(folder) for folder in models if folder not in of_audio and folder not in of_video]
    if both or not of_audio or len(of_video) > 1:
        found = f"{both[0]} takes audio and video" if both else f"{len(of_audio)} take audio and {len(of_video)} video"
        raise FarfeelError(f"{found}, expected models of audio alone and at most one of video; name others")
    first, *others = of_audio
    recipe = of_audio[first].recipe
    for other in others:
        if differing := _differing_sections(recipe, of_audio[other].recipe):
            raise FarfeelError(f"{other} and {first} differ in {differing}; merge models of one recipe")
    for folder, model in of_video.items():
        if model.recipe.data.emotions != recipe.data.emotions:
            raise FarfeelError(f"{folder} and {first} know different emotions; merge models of the same")


def _merged_recipe(of_audio: Models, of_video: Models) -> dict[str, Any]:
    """The recipe of the merged model, as a tree."""
    tree: dict[str, Any] = next(iter(of_audio.values())).recipe.model_dump(mode="json")
    tree["model"]["members"] = sum(model.recipe.model.members for model in of_audio.values())
    norms = [norm for model in of_audio.values() for norm in model.recipe.model.frequency_norms]
    tree["model"]["frequency_norm"] = norms if len(set(norms)) > 1 else norms[0]
    for model in of_video.values():
        tree |= {"modalities": "both", "video": model.recipe.video.model_dump(mode="json")}
        tree["fusion"] |= {"experts": True, "hidden": MERGED_HIDDEN}
        tree["rooms"]["renderings"] = 0
        tree["augment"]["camera"] = model.recipe.augment.camera.model_dump(mode="json")
    return tree


def _merged_state(
    merged: EmotionModel, of_audio: Sequence[EmotionModel], of_video: Sequence[EmotionModel]
) -> dict[str, Tensor]:
    """The state of the merged model: the members' own, and the geometric mean of their temperatures."""
    state = merged.state_dict()
    members = [member for model in of_audio for member in model.hearing]
    for number, member in enumerate(members):
        state |= {f"hearing.{number}.{name}": tensor for name, tensor in member.state_dict().items()}
    for model in of_video:
        state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith("video.")}
        state |= {f"classifier.video_head.{part}": getattr(model.classifier, part).data for part in ("weight", "bias")}
        state[TEMPERATURE][1] = model.temperature[1]
    state[TEMPERATURE][0] = torch.stack([model.temperature[0] for model in of_audio]).log().mean().exp()
    return state


def _differing_sections(ours: Recipe, theirs: Recipe) -> str:
    """The sections about audio in which two recipes differ; empty where they agree."""
    of_members = {"members": 1, "frequency_norm": 0.0}
    pairs = {
        "audio": (ours.audio, theirs.audio),
        "microphones": (ours.microphones, theirs.microphones),
        "data.emotions": (ours.data.emotions, theirs.data.emotions),
        "model": tuple(recipe.model.model_copy(update=of_members) for recipe in (ours, theirs)),
    }
    return ", ".join(name for name, (one, other) in pairs.items() if one != other)


def in_half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with its matrices and kernels in 16 bits. Norms, biases and running statistics keep 32: their range is
    wider, and there are few."""
    return {name: t.half() if t.is_floating_point() and t.ndim > 1 else t for name, t in state.items()}


def average_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several states of one model (Izmailov et al., 2018), running statistics included."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if first.is_floating_point() else first
        for name, first in states[0].items()
    }


def with_temperature(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model; one written before models had temperatures gets ones."""
    return {TEMPERATURE: torch.ones(3)} | state


def _shape(state: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, state[name].shape)) or "scalar" if name in state else "absent"
