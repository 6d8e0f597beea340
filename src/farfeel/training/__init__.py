"""Training: examples in rooms, the loop, several processes, tracking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farfeel.evaluate.clips import Corpus
    from farfeel.recipe import Recipe


def train(
    corpus: Corpus,
    root: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    overrides: Sequence[str] = (),
    rirs: str | os.PathLike[str] | None = None,
    split: str | None = None,
    init: str | os.PathLike[str] | None = None,
    video_weights: str | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a model, as `farfeel train` does.

    corpus: a corpus's name (ravdess, crema-d, folder …), a manifest file, prepared shards, or a list of clips.
    root: the folder of the corpus.
    out: the folder of the run; default runs/ and the recipe's name.
    recipe: a recipe's name, its YAML file, or a Recipe; default the recipe of `init`, else the recipe "default".
    overrides: changes to the recipe, as in ["train.epochs=5", "modalities=audio"].
    rirs: a bank of room impulse responses, which `farfeel rooms` makes; None: dry speech.
    split: the speaker-independent split, as in "folds-5:1"; default the recipe's.
    init: a checkpoint folder, "default" for the one in the package, or a file of weights to start from.
    video_weights: kinetics, none, a file or a checkpoint folder for the face network.
    resume: continue the run that is in `out`.
    quiet: print no progress and no notes.

    Returns the folder of the resulting checkpoint. Raises FarfeelError where the data, the recipe or the folder is
    wrong. It trains in this process; for several GPUs, use `farfeel train`.

    >>> import farfeel
    >>> small = ["modalities=audio", "train.epochs=1"]
    >>> best = farfeel.train(
    ...     "synthetic", "voices", recipe="tiny", overrides=small, split="folds-4:1", out="runs/small", quiet=True
    ... )
    >>> farfeel.load(best).modalities
    'audio'
    """
    from farfeel.corpora.selection import selected_clips
    from farfeel.evaluate.clips import loaded_clips
    from farfeel.rooms.bank import Bank
    from farfeel.support.console import note
    from farfeel.support.console import quiet as silence
    from farfeel.training.run import run_training
    from farfeel.training.run_folder import require_run_folder
    from farfeel.types import FarfeelError

    with silence() if quiet else nullcontext():
        start = start_of(init)
        changes = [*overrides, *([f'data.split="{split}"'] if split else [])]
        settings = chosen_recipe(recipe, start, changes)
        if settings.train.devices > 1:
            raise FarfeelError(
                f"train.devices is {settings.train.devices}, expected 1 in a call from Python; use farfeel train"
            )
        folder = Path(out) if out is not None else Path("runs") / settings.name
        require_run_folder(folder, resume)
        loaded, shards, where = loaded_clips(corpus, root, rirs is not None)
        (learned, validation), absent = selected_clips(loaded, settings, ("train", "val"), where)
        bank = None
        if rirs is not None:
            bank = Bank.open(Path(rirs), sample_rate=settings.audio.sample_rate, min_mics=settings.microphones.count)
        note(f"{len(learned)} training clips, {len(validation)} validation clips, split {settings.data.split}{absent}")
        return run_training(settings, learned, validation, bank, folder, resume, start, video_weights, shards=shards)


def start_of(init: str | os.PathLike[str] | None) -> Path | None:
    """The checkpoint folder or file that a training starts from; "default" is the checkpoint in the package."""
    from farfeel.recognise.recognizer import DEFAULT

    return None if init is None else DEFAULT if init == "default" else Path(init)


def chosen_recipe(recipe: str | os.PathLike[str] | Recipe | None, start: Path | None, changes: Sequence[str]) -> Recipe:
    """The recipe of a training: the one that is named, else that of the checkpoint it starts from, else "default".

    changes: overrides `section.key=value`. Raises FarfeelError where the recipe or a change is wrong.
    """
    from farfeel.recipe import Recipe, apply_override, load_recipe, recipe_from_tree

    if isinstance(recipe, Recipe):
        tree = recipe.model_dump(mode="json")
        for change in changes:
            apply_override(tree, change)
        return recipe_from_tree(tree, source=recipe.name)
    own = start / "recipe.yaml" if start else None
    named = recipe or (own if own and own.is_file() else "default")
    return load_recipe(os.fspath(named), changes)
