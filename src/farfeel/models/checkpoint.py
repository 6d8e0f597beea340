"""Checkpoints: a folder of `model.safetensors`, `recipe.yaml` and `card.md`. No pickle, ever.

The metadata of `model.safetensors` hold a SHA-256 of the tensors, so that damage is found when a checkpoint is loaded.
Checkpoints of older versions have none and are loaded without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from farfeel.models.emotion import EmotionModel
from farfeel.models.tensor_files import require_finite, tensors_checksum
from farfeel.recipe import Recipe, apply_override, as_yaml, recipe_from_tree, save_recipe
from farfeel.support.files import replacing_folder, require_replaceable
from farfeel.support.reading import LONGEST_YAML, damage, read_yaml
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

WEIGHTS, RECIPE, CARD = "model.safetensors", "recipe.yaml", "card.md"
CHECKSUM = "farfeel.sha256"  # in the metadata of WEIGHTS
AGAIN = "copy it again"
MOST_UNCOUNTED = 64  # layers that a recipe may describe whatever the file holds
SPARE_BYTES = 1 << 26  # by which a model may exceed its file
TEMPERATURE = "temperature"  # EmotionModel's buffer (3,)
PARTS = {  # of an EmotionModel, and the settings that name their classes
    "microphones": "microphones.strategy",
    "hearing": "model.network",
    "video.network": "video.network",
    "classifier": "fusion.strategy",
}
MERGED_FUSION = "concatenation"  # Its hidden layer adds nothing until it is trained.
MERGED_HIDDEN = 64  # width of that layer


def require_writable_checkpoint(folder: Path) -> None:
    """Raise FarfeelError where a checkpoint may not be written: a file, or a folder with anything but a checkpoint."""
    require_replaceable(folder, (WEIGHTS, RECIPE, CARD), "a checkpoint")


def save_checkpoint(folder: Path, state: dict[str, Tensor], recipe: Recipe, card: str) -> None:
    """Write a checkpoint folder completely, or not at all.

    folder: a new one, or an old checkpoint, which is replaced. state: name → tensor. recipe: of the model. card: text.
    Raises FarfeelError where `folder` holds anything but a checkpoint.
    """
    require_writable_checkpoint(folder)
    with replacing_folder(folder) as partial:
        # Written by Python: its error for a full disk is clear. The library's own writer has one error for everything.
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        (partial / WEIGHTS).write_bytes(save(tensors, {CHECKSUM: tensors_checksum(tensors)}))
        save_recipe(recipe, partial / RECIPE)
        (partial / CARD).write_text(card, encoding="utf-8")


def load_checkpoint(folder: Path) -> EmotionModel:
    """The model of a checkpoint folder, in evaluation mode on the CPU.

    folder: a checkpoint folder, or the weights file in it. Raises FarfeelError where it is missing or damaged, or needs
    a package that is not installed.
    """
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
    state = with_temperature(read_weights(folder))
    _require_same_size(folder, recipe, state)
    model = EmotionModel(recipe)
    ours = model.state_dict()
    wrong = _differing(ours, state)
    if wrong:
        raise FarfeelError(
            f"checkpoint {folder} does not fit its own recipe.yaml: {len(wrong)} tensors differ, the first {wrong[0]} "
            f"({_shape(state, wrong[0])}, expected {_shape(ours, wrong[0])}); restore the folder as it was written"
        )
    model.load_state_dict(state)
    return model.eval()


def require_reloadable(model: EmotionModel, recipe: Recipe) -> None:
    """Raise FarfeelError where a checkpoint of the model would load as another model, or not at all.

    model: before training. recipe: the one that its checkpoint will hold. The recipe is written and read, a model is
    built of it, and both models' classes and tensors are compared. No random number is drawn.
    """
    again = recipe_from_tree(read_yaml(as_yaml(recipe)), source="the recipe as it would be saved")
    if again != recipe:
        ours, theirs = recipe.model_dump(), again.model_dump()
        changed = ", ".join(name for name in ours if ours[name] != theirs.get(name))
        raise FarfeelError(
            f"the recipe's {changed} would be read back with other values, expected the same; use numbers, texts, "
            "lists and dictionaries alone"
        )
    with torch.random.fork_rng(devices=[]):
        rebuilt = EmotionModel(again)
    ours, theirs = ({name: type(each) for name, each in one.named_modules()} for one in (model, rebuilt))
    for name in [*ours, *theirs]:
        if ours.get(name) is not theirs.get(name):
            found, expected = (one[name].__name__ if name in one else "nothing" for one in (ours, theirs))
            setting = next((key for part, key in PARTS.items() if f"{name}.".startswith(f"{part}.")), None)
            remedy = f"name the class in the recipe ({setting})" if setting else "change the recipe, not the model"
            raise FarfeelError(
                f"{name or 'the model'} is {found}, but the recipe builds {expected}: a checkpoint would not load as "
                f"the same model; {remedy}"
            )
    wrong = _differing(model.state_dict(), rebuilt.state_dict())
    if wrong:
        raise FarfeelError(
            f"{wrong[0]} is not the tensor that the recipe builds: a checkpoint of the model could not be loaded; "
            "change the recipe, not the model"
        )
    _require_working(rebuilt)


@torch.no_grad()
def _require_working(model: EmotionModel) -> None:
    """Try a model once, if it has parts of other packages: after a day of training their faults cost more.

    Raises FarfeelError where it fails, gives other than finite logits of each clip, or listens to a dead microphone.
    """
    recipe = model.eval().recipe
    if not recipe.packages:
        return
    parts = ", ".join(f"{name} of {package}" for name, package in recipe.packages.items())
    draw = torch.Generator().manual_seed(0)
    mics, samples, video = recipe.microphones.count, recipe.audio.window_samples, recipe.video
    audio = torch.randn(2, mics, samples, generator=draw) * 0.1
    mask = torch.ones(2, mics, dtype=torch.bool)
    mask[1, 1:] = False
    frames = None
    if recipe.modalities != "audio":
        frames = torch.rand(2, 3, video.frames, video.size, video.size, generator=draw)
    other = torch.where(mask[..., None], audio, 10 * torch.randn(audio.shape, generator=draw))
    try:
        logits, again = model(audio, mask, frames), model(other, mask, frames)
    except Exception as error:  # The code of a plug-in may raise anything.
        raise FarfeelError(
            f"a trial of the model fails ({type(error).__name__}: {one_line(error, 160)}), which has {parts}; correct "
            "that package"
        ) from None
    shape = (2, len(recipe.data.emotions))
    if not isinstance(logits, Tensor) or logits.shape != shape or not torch.isfinite(logits).all():
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        found = "numbers that are not finite" if getattr(logits, "shape", None) == shape else found
        raise FarfeelError(
            f"a trial of the model gives {found}, expected finite logits of shape {shape}; it has {parts}: correct "
            "that package"
        )
    if not torch.allclose(logits, again, atol=1e-4):
        raise FarfeelError(
            f"a dead microphone (False in mic_mask) changes the answer of the model, expected no influence; it has "
            f"{parts}: correct that package"
        )


def read_checkpoint_recipe(folder: Path) -> Recipe:
    """The recipe in a checkpoint folder. Raises FarfeelError where it cannot be read or needs a missing package."""
    path = Path(folder) / RECIPE
    message = f"checkpoint {folder}: recipe.yaml cannot be read"
    with damage(lambda reason: f"{message} ({reason})"), path.open(encoding="utf-8") as file:
        tree = read_yaml(file.read(LONGEST_YAML + 1))
    if not isinstance(tree, dict):
        raise FarfeelError(f"checkpoint {folder}: recipe.yaml holds no recipe; restore the folder as it was written")
    return recipe_from_tree(tree, source=f"checkpoint {folder}")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name → tensor, as a checkpoint folder stores them: tensors of 16 bits stay in 16 bits. Raises FarfeelError."""
    path = Path(folder) / WEIGHTS
    with damage(lambda reason: f"checkpoint {path} is damaged or cut off ({reason}); {AGAIN}"):
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # It is no dictionary.
            stored = (file.metadata() or {}).get(CHECKSUM)
        if stored is not None and stored != tensors_checksum(state):
            raise ValueError("its checksum is another")
    require_finite(state, f"checkpoint {path}", AGAIN)
    return state


def read_card(folder: Path) -> str:
    """The card of a checkpoint folder; empty where it has none."""
    path = Path(folder) / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def merge_checkpoints(folders: Sequence[Path], overrides: Sequence[str] = ()) -> tuple[EmotionModel, str]:
    """One model of several, without further training, and its card.

    The models of audio become one ensemble. With a model of video, late fusion adds the logits of both (a product of
    experts). The recipes may differ in seed, split and training.

    folders: checkpoints of audio, and at most one of video. overrides: `section.key=value`, changes of the recipe.
    Raises FarfeelError where the models of audio differ otherwise, or there are several of video.
    """
    models = {Path(folder): load_checkpoint(folder) for folder in folders}
    of_audio = {folder: model for folder, model in models.items() if model.recipe.modalities == "audio"}
    of_video = {folder: model for folder, model in models.items() if model.recipe.modalities == "video"}
    _require_mergeable(models, of_audio, of_video)
    strategy = _common_strategy(of_audio)
    tree = _merged_recipe(of_audio, of_video)
    for override in overrides:
        apply_override(tree, override)
    merged = EmotionModel(recipe_from_tree(tree, source="merged recipe"))
    if of_video and merged.recipe.fusion.strategy != MERGED_FUSION:
        raise FarfeelError(
            f"fusion.strategy is {merged.recipe.fusion.strategy}, expected {MERGED_FUSION}, which needs no training "
            "after a merge; remove that override"
        )
    state = _merged_state(merged, list(of_audio.values()), list(of_video.values()))
    merged.load_state_dict(state | strategy)
    about = [
        f"- {folder}: {model.recipe.name}, seed {model.recipe.seed}, split {model.recipe.data.split}"
        for folder, model in models.items()
    ]
    return merged.eval(), "# Merged\n\n" + "\n".join(about) + "\n"


Models = dict[Path, EmotionModel]


def _common_strategy(models: Models) -> dict[str, Tensor]:
    """The state of the microphone strategy, which an ensemble has once. Raises FarfeelError where several differ."""
    states = {
        folder: {name: tensor for name, tensor in model.state_dict().items() if name.startswith("microphones.")}
        for folder, model in models.items()
    }
    (first, state), *others = states.items()
    for folder, other in others:
        if any(not torch.equal(tensor, other[name]) for name, tensor in state.items()):
            raise FarfeelError(
                f"{folder} and {first} have learned other weights in their microphone strategies, expected the same; "
                "name both with --checkpoint instead"
            )
    return state


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
            raise FarfeelError(
                f"{other} differs from {first} in {differing}, expected the same; merge models of one recipe"
            )
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
        tree["fusion"] |= {"strategy": MERGED_FUSION, "options": {}, "experts": True, "hidden": MERGED_HIDDEN}
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
    """The state with its matrices and kernels in 16 bits. Norms, biases and running statistics keep 32 bits: their
    range is wider, and they are small."""
    return {name: t.half() if t.is_floating_point() and t.ndim > 1 else t for name, t in state.items()}


def average_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several states of one model (Izmailov et al., 2018), running statistics included."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if first.is_floating_point() else first
        for name, first in states[0].items()
    }


def with_temperature(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model, with temperatures of 1 where it was written before models had temperatures."""
    return {TEMPERATURE: torch.ones(3)} | state


def _require_same_size(folder: Path, recipe: Recipe, state: dict[str, Tensor]) -> None:
    """Raise FarfeelError where the recipe describes a larger model than the file holds: to build it could take all
    memory and hours. So the model is first built without memory for its numbers."""
    most, bytes_held = len(state), sum(map(_bytes, state.values()))
    model = recipe.model
    layers = model.members if recipe.modalities == "video" else max(model.members, *model.heads, sum(model.depths))
    wanted = 0
    if layers <= max(most, MOST_UNCOUNTED):
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                wanted = sum(map(_bytes, EmotionModel(recipe).state_dict().values()))
        except FarfeelError:
            raise
        except Exception:  # A part of another package may need real memory. Its author has seen that it can be built.
            if not recipe.packages:
                raise
    if layers > max(most, MOST_UNCOUNTED) or wanted > SPARE_BYTES + 4 * bytes_held:  # The file may have 16 bits.
        raise FarfeelError(
            f"checkpoint {folder} does not fit its own recipe.yaml: it holds {most} tensors of {bytes_held} bytes, and "
            "the recipe describes a larger model; restore the folder as it was written"
        )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that only one of two states has, or that have another shape there."""
    return sorted(name for name in one.keys() | other.keys() if _shape(one, name) != _shape(other, name))


def _shape(state: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, state[name].shape)) or "scalar" if name in state else "absent"
