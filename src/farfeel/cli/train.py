"""Commands that make checkpoints: demo, train, average, convert; and recipe."""

from __future__ import annotations

import argparse
import functools
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path

from farfeel.cli.common import (
    Command,
    as_overrides,
    asked_labels,
    chosen_clips,
    corpus_arguments,
    label_arguments,
    open_banks,
    require_at_least,
    shards_of,
    weight_argument,
    weights_of,
)
from farfeel.support.console import note
from farfeel.types import FarfeelError


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    from farfeel.recipe import recipe_names

    parser.add_argument(
        "--recipe",
        help=f"one of {', '.join(recipe_names())}, or a YAML file (default: that of the --init checkpoint, or default)",
    )
    corpus_arguments(parser)
    weight_argument(parser)
    label_arguments(parser, "the recipe's")
    parser.add_argument("--rirs", type=Path, help="RIR bank to train in; without it, training is on dry speech")
    parser.add_argument("--epochs", type=int, help="same as train.epochs=N")
    parser.add_argument("--batch-size", type=int, help="same as train.batch_size=N")
    parser.add_argument("--devices", type=int, help="same as train.devices=N: processes that train together")
    parser.add_argument("--strategy", help="same as train.strategy=NAME: auto, ddp or fsdp")
    parser.add_argument("--split", help="same as data.split=NAME: paper, folds-6:1 …")
    parser.add_argument(
        "--init",
        help="start from these weights: a checkpoint folder, default (the package's), or a reference's .ckpt or .pth; "
        "sound alone will do",
    )
    parser.add_argument(
        "--video-weights",
        metavar="kinetics|none|FILE",
        help="start the face branch from torchvision's Kinetics weights (default for r2plus1d_18), from nothing, from "
        "a file of R(2+1)D weights, or from a checkpoint folder",
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--track", action="append", default=[], choices=["wandb", "mlflow"], help="log there too")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="any knob; farfeel recipe lists them")
    parser.epilog = (
        "writes: recipe.yaml, metrics.csv, TensorBoard events, top/, best/ (the result), last.ckpt (to resume)\n"
        "example, after farfeel demo:\n"
        "  farfeel train --recipe tiny --corpus synthetic --root demo/corpus --rirs demo/rooms-train train.epochs=5"
    )


def _train(args: argparse.Namespace) -> None:
    from farfeel.support.console import quiet
    from farfeel.training.processes import here

    with quiet() if here().rank else nullcontext():
        _train_here(args)


def _train_here(args: argparse.Namespace) -> None:
    """In each of the processes, where several train."""
    from farfeel.recipe import load_recipe
    from farfeel.recognise.recognizer import DEFAULT
    from farfeel.training.processes import here, run_together

    overrides = list(args.overrides)
    overrides += [f"train.epochs={args.epochs}"] if args.epochs is not None else []
    overrides += [f"train.batch_size={args.batch_size}"] if args.batch_size is not None else []
    overrides += [f"train.devices={args.devices}"] if args.devices is not None else []
    overrides += [f"train.strategy={args.strategy}"] if args.strategy else []
    overrides += [f'data.split="{args.split}"'] if args.split else []
    weights = weights_of(args)
    overrides += as_overrides(asked_labels(args) | ({"weights": weights} if weights else {}))
    init = DEFAULT if args.init == "default" else Path(args.init) if args.init else None
    own = init / "recipe.yaml" if init else None
    recipe = load_recipe(args.recipe or (str(own) if own and own.is_file() else "default"), overrides)
    out = args.out or Path("runs") / recipe.name
    _require_run_folder(out, args.resume)
    shards = shards_of(args)
    (train, val), absent = chosen_clips(args, recipe, "train", "val", shards=shards)
    banks = open_banks([args.rirs], recipe.audio.sample_rate, recipe.microphones.count) if args.rirs else []
    bank = banks[0] if banks else None
    if recipe.train.devices > 1 and here().size == 1:  # What is wrong so far is said once, here.
        run_together(functools.partial(_train, args), recipe.train.devices)
        return
    from farfeel.training.run import run_training

    unseen = sum(clip.video is None for clip in train) if recipe.modalities == "both" else 0
    filmed = f" ({unseen} without film)" if unseen else ""
    note(f"{len(train)} training clips{filmed}, {len(val)} validation clips, split {recipe.data.split}{absent}")
    best = run_training(recipe, train, val, bank, out, args.resume, init, args.video_weights, args.track, shards)
    print(best)


def _require_run_folder(out: Path, resume: bool) -> None:
    """A new or empty folder, or one of a run: a fresh start removes top/ and best/, which must not be the user's."""
    from farfeel.support.files import require_folder_place, require_only

    require_folder_place(out / "best")
    if (out / "last.ckpt").exists():
        if not resume:
            raise FarfeelError(f"{out} holds a run already; go on with --resume, choose another --out, or delete it")
        return
    require_only(out, ("recipe.yaml", "metrics.csv", "events.out.*", "top", "best", ".*.partial", ".*.old"), "a run")
    require_only(out / "top", ("epoch_*", ".*.partial", ".*.old"), "a run")
    require_only(out / "best", ("model.safetensors", "recipe.yaml", "card.md"), "a run")


def _average_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CKPT", help="checkpoints of one recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")


def _average(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import average_states, load_checkpoint, require_checkpoint_place, save_checkpoint

    require_checkpoint_place(args.out)
    models = [load_checkpoint(path) for path in args.checkpoints]
    first = models[0].recipe
    for path, model in zip(args.checkpoints, models, strict=True):
        for what in ("model", "audio", "microphones.strategy", "microphones.options", "data.emotions"):
            if attrgetter(what)(model.recipe) != attrgetter(what)(first):
                raise FarfeelError(f"{path} has another {what} than {args.checkpoints[0]}; average like with like")
    names = ", ".join(map(str, args.checkpoints))
    save_checkpoint(args.out, average_states([m.state_dict() for m in models]), first, f"# Mean of {names}\n")
    print(args.out)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a reference's .ckpt, .pth or .pt of tensors")
    parser.add_argument("--recipe", default="paper-sum-pe", help="recipe whose model the weights are for")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")


def _convert(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import require_checkpoint_place, save_checkpoint
    from farfeel.models.emotion import EmotionModel
    from farfeel.models.reference import load_reference
    from farfeel.recipe import load_recipe

    require_checkpoint_place(args.out)
    recipe = load_recipe(args.recipe, args.overrides)
    model = EmotionModel(recipe)
    note("\n".join(load_reference(model, args.file).lines()))
    save_checkpoint(args.out, model.state_dict(), recipe, f"# Converted from {args.file.name}\n")
    print(args.out)


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this recipe as YAML; without a name, list every setting")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")


def _recipe(args: argparse.Namespace) -> None:
    import yaml

    from farfeel.recipe import choices, describe, load_recipe, recipe_names

    if args.name:
        tree = load_recipe(args.name, args.overrides).model_dump(mode="json")
        print(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100), end="")
        return
    print(f"recipes: {', '.join(recipe_names())}\n\nsettings, with their defaults:")
    chosen_from = choices()
    for key, default, meaning in describe():
        print(f"  {key} = {default}" + (f"\n      {meaning}" if meaning else ""))
        values = chosen_from.get(key, {})
        if any(values.values()):
            print("\n".join(f"      - {value}: {summary}" for value, summary in values.items()))
        elif values:
            print(f"      one of {', '.join(values)}")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything it makes (default demo)")
    parser.add_argument("--seed", type=int, default=1)


def _demo(args: argparse.Namespace) -> None:
    from farfeel.demo import demo
    from farfeel.support.files import require_folder

    require_at_least(0, seed=args.seed)
    if args.out.exists():
        require_folder(args.out, "a place for the demo's folder", "choose another --out")
    demo(args.out, args.seed)


COMMANDS = (
    Command("demo", "Everything once, on the embedded corpus: rooms, training, table, report.", _demo_arguments, _demo),
    Command("train", "Train a model, in rooms that are drawn anew each epoch.", _train_arguments, _train),
    Command("recipe", "Print a recipe, or list every setting and its values.", _recipe_arguments, _recipe),
    Command("average", "Average the weights of checkpoints.", _average_arguments, _average),
    Command("convert", "Turn a reference's weights into a checkpoint.", _convert_arguments, _convert),
)
