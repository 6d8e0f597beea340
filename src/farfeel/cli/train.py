"""Commands that make checkpoints: demo, train, average and convert; and recipe, which shows settings."""

from __future__ import annotations

import argparse
import functools
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path

from farfeel.cli.common import (
    Command,
    as_overrides,
    chosen_clips,
    corpus_arguments,
    label_arguments,
    label_settings,
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
        metavar="RECIPE",
        help=f"settings of the model and the training: {', '.join(recipe_names())}, or a YAML file (default: the "
        "recipe of the --init checkpoint, else default)",
    )
    corpus_arguments(parser)
    weight_argument(parser)
    label_arguments(parser, "the recipe's")
    parser.add_argument(
        "--rirs", type=Path, metavar="BANK", help="RIR bank with the training rooms (default: dry speech)"
    )
    parser.add_argument(
        "--split",
        help="how speakers are divided into train, val and test: paper, published, or folds-N:K for fold K of N; "
        "example: folds-7:1; the same as data.split=NAME (default: the recipe's)",
    )
    parser.add_argument(
        "--init",
        metavar="CHECKPOINT",
        help="start from these weights: a checkpoint folder, the word default (the checkpoint in the package), or a "
        ".ckpt or .pth file of the reference implementations; weights of the audio branch alone are accepted "
        "(default: random weights)",
    )
    parser.add_argument(
        "--video-weights",
        metavar="kinetics|none|FILE",
        help="initial weights of the video branch; kinetics: those of torchvision (default for r2plus1d_18); none: "
        "random; FILE: R(2+1)D weights or a checkpoint folder",
    )
    _run_arguments(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="change any setting of the recipe; farfeel recipe lists them; example: train.epochs=5",
    )
    parser.epilog = (
        "files written:\n"
        "  recipe.yaml   the settings of the run\n"
        "  metrics.csv   losses and accuracies of each epoch; the same as TensorBoard events\n"
        "  top/          the best checkpoints so far\n"
        "  best/         the result: a checkpoint for predict and evaluate\n"
        "  last.ckpt     the state for --resume"
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="passes over the training clips; the same as train.epochs=N (default: the recipe's)",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="clips in one training step; the same as train.batch_size=N (default: the recipe's)",
    )
    group.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="processes on this machine that train together, one for each GPU; the same as train.devices=N (default: "
        "the recipe's)",
    )
    group.add_argument(
        "--strategy",
        help="how several devices share the model: auto, ddp or fsdp; the same as train.strategy=NAME "
        "(default: the recipe's)",
    )
    group.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run (default runs/RECIPE)")
    group.add_argument("--resume", action="store_true", help="continue the stopped run in --out")
    group.add_argument(
        "--track",
        action="append",
        default=[],
        choices=["wandb", "mlflow"],
        help="send the metrics to Weights & Biases or MLflow too; may be repeated",
    )


def _train(args: argparse.Namespace) -> None:
    from farfeel.support.console import quiet
    from farfeel.training.processes import this_process

    with quiet() if this_process().rank else nullcontext():
        _train_here(args)


def _train_here(args: argparse.Namespace) -> None:
    """Train. If several processes train together, this runs in each of them."""
    from farfeel.training import chosen_recipe, start_of
    from farfeel.training.processes import run_together, this_process
    from farfeel.training.run_folder import require_run_folder

    overrides = list(args.overrides)
    overrides += [f"train.epochs={args.epochs}"] if args.epochs is not None else []
    overrides += [f"train.batch_size={args.batch_size}"] if args.batch_size is not None else []
    overrides += [f"train.devices={args.devices}"] if args.devices is not None else []
    overrides += [f"train.strategy={args.strategy}"] if args.strategy else []
    overrides += [f'data.split="{args.split}"'] if args.split else []
    weights = weights_of(args)
    overrides += as_overrides(label_settings(args) | ({"weights": weights} if weights else {}))
    init = start_of(args.init or None)
    recipe = chosen_recipe(args.recipe, init, overrides)
    out = args.out or Path("runs") / recipe.name
    require_run_folder(out, args.resume)
    shards = shards_of(args)
    (train, val), absent = chosen_clips(args, recipe, "train", "val", shards=shards)
    banks = open_banks([args.rirs], recipe.audio.sample_rate, recipe.microphones.count) if args.rirs else []
    bank = banks[0] if banks else None
    # Errors in the input so far are reported once, by this process.
    if recipe.train.devices > 1 and this_process().size == 1:
        run_together(functools.partial(_train, args), recipe.train.devices)
        return
    from farfeel.training.run import run_training

    without_video = sum(clip.video is None for clip in train) if recipe.modalities == "both" else 0
    remark = f" ({without_video} without video)" if without_video else ""
    note(f"{len(train)} training clips{remark}, {len(val)} validation clips, split {recipe.data.split}{absent}")
    best = run_training(recipe, train, val, bank, out, args.resume, init, args.video_weights, args.track, shards)
    print(best)


def _average_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CKPT", help="checkpoints of one recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the new checkpoint")


def _average(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import average_states, load_checkpoint, require_writable_checkpoint, save_checkpoint

    require_writable_checkpoint(args.out)
    models = [load_checkpoint(path) for path in args.checkpoints]
    first = models[0].recipe
    for path, model in zip(args.checkpoints, models, strict=True):
        for setting in ("model", "audio", "microphones.strategy", "microphones.options", "data.emotions"):
            if attrgetter(setting)(model.recipe) != attrgetter(setting)(first):
                raise FarfeelError(
                    f"{path} has another {setting} than {args.checkpoints[0]}, expected the same; average checkpoints "
                    "of one recipe"
                )
    names = ", ".join(map(str, args.checkpoints))
    save_checkpoint(args.out, average_states([m.state_dict() for m in models]), first, f"# Mean of {names}\n")
    print(args.out)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="weights of a reference implementation: a .ckpt, .pth or .pt file")
    parser.add_argument(
        "--recipe",
        default="paper-sum-pe",
        metavar="RECIPE",
        help="recipe of the model that the weights belong to (default paper-sum-pe)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the new checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of the recipe to change")


def _convert(args: argparse.Namespace) -> None:
    from farfeel.models.checkpoint import require_writable_checkpoint, save_checkpoint
    from farfeel.models.emotion import EmotionModel
    from farfeel.models.reference import load_reference
    from farfeel.recipe import load_recipe

    require_writable_checkpoint(args.out)
    recipe = load_recipe(args.recipe, args.overrides)
    model = EmotionModel(recipe)
    note("\n".join(load_reference(model, args.file).lines()))
    save_checkpoint(args.out, model.state_dict(), recipe, f"# Converted from {args.file.name}\n")
    print(args.out)


def _recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="recipe to print as YAML (default: list all settings)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change before printing")


def _recipe(args: argparse.Namespace) -> None:
    import yaml

    from farfeel.recipe import choices, describe, load_recipe, recipe_names

    if args.name:
        tree = load_recipe(args.name, args.overrides).model_dump(mode="json")
        print(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100), end="")
        return
    print(f"recipes: {', '.join(recipe_names())}\n\nsettings and their defaults:")
    chosen_from = choices()
    for key, default, meaning in describe():
        print(f"  {key} = {default}" + (f"\n      {meaning}" if meaning else ""))
        values = chosen_from.get(key, {})
        if any(values.values()):
            print("\n".join(f"      - {value}: {summary}" for value, summary in values.items()))
        elif values:
            print(f"      one of {', '.join(values)}")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for all results (default demo)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of all random choices (default 1)")


def _demo(args: argparse.Namespace) -> None:
    from farfeel.demo import demo
    from farfeel.support.files import require_folder

    require_at_least(0, seed=args.seed)
    if args.out.exists():
        require_folder(args.out, "a folder for the demo", "choose another --out")
    demo(args.out, args.seed)


COMMANDS = (
    Command(
        "demo", "Run all steps on a small artificial corpus: rooms, training, test, report.", _demo_arguments, _demo
    ),
    Command("train", "Train a model; each epoch draws new rooms for the clips.", _train_arguments, _train),
    Command("recipe", "Print a recipe, or list all settings and their values.", _recipe_arguments, _recipe),
    Command("average", "Average the weights of several checkpoints of one recipe.", _average_arguments, _average),
    Command(
        "convert", "Convert weights of a reference implementation into a checkpoint.", _convert_arguments, _convert
    ),
)
