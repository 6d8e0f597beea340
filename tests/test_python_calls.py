"""Laws of training and testing from Python: they do what the commands do."""

import json
from pathlib import Path

import numpy as np
import pytest

import farfeel
from farfeel.cli import main
from farfeel.corpora.scan import load_clips
from farfeel.recipe import load_recipe
from farfeel.rooms.bank import Bank
from farfeel.types import FarfeelError

SMALL = ["modalities=audio", "audio.seconds=1.28", "model.image_frames=64", "train.batch_size=8", "train.epochs=1"]
SPLIT = "folds-4:1"


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory, voices: Path, bank: Bank) -> Path:
    out = tmp_path_factory.mktemp("call") / "run"
    return farfeel.train(
        "synthetic", voices, recipe="tiny", overrides=SMALL, split=SPLIT, rirs=bank.path, out=out, quiet=True
    )


def test_a_call_trains_the_same_weights_as_the_command(best: Path, tmp_path: Path, voices: Path, bank: Bank) -> None:
    words = ["train", "--recipe", "tiny", "--corpus", "synthetic", "--root", voices, "--rirs", bank.path]
    assert main([str(word) for word in [*words, "--split", SPLIT, "--out", tmp_path / "run", *SMALL]]) == 0
    for name in ("model.safetensors", "recipe.yaml", "card.md"):
        assert (best / name).read_bytes() == (tmp_path / "run" / "best" / name).read_bytes()


def test_a_recipe_and_clips_are_taken_as_well_as_names(best: Path, tmp_path: Path, voices: Path, bank: Bank) -> None:
    recipe = load_recipe("tiny", [*SMALL[:-1], "train.epochs=7"])
    clips = load_clips("synthetic", voices)
    again = farfeel.train(
        clips, recipe=recipe, overrides=["train.epochs=1"], split=SPLIT, rirs=bank.path, out=tmp_path, quiet=True
    )
    assert (again / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()


def test_a_call_finds_the_same_metrics_as_the_command(best: Path, tmp_path: Path, voices: Path, bank: Bank) -> None:
    named = {"rirs": bank.path, "snr_db": 5.0, "noise": "fan", "dead_mics": 1, "quiet": True}
    found = farfeel.evaluate(best, "synthetic", voices, out=tmp_path / "call", **named)
    words = ["evaluate", "--checkpoint", best, "--corpus", "synthetic", "--root", voices, "--rirs", bank.path]
    words += ["--snr", 5, "--noise", "fan", "--dead-mics", 1, "--out", tmp_path / "command"]
    assert main([str(word) for word in words]) == 0
    metrics, same = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("command", "call"))
    details = metrics.pop("details")
    assert same.pop("details").items() <= details.items()
    np.testing.assert_equal(same, metrics)
    assert found.overall.accuracy.value == metrics["overall"]["accuracy"]["value"]
    assert farfeel.evaluate(farfeel.load(best), "synthetic", voices, **named).as_dict() == found.as_dict()


def test_a_run_is_not_overwritten(best: Path, voices: Path, tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="already holds a run; add --resume"):
        farfeel.train("synthetic", voices, recipe="tiny", overrides=SMALL, split=SPLIT, out=best.parent, quiet=True)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FarfeelError, match=r"thesis\.txt, which is no part of a run"):
        farfeel.train("synthetic", voices, recipe="tiny", overrides=SMALL, split=SPLIT, out=tmp_path, quiet=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_wrong_arguments_are_one_line(best: Path, voices: Path, tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match=r"train\.devices is 2, expected 1 in a call from Python; use farfeel train"):
        farfeel.train("synthetic", voices, recipe="tiny", overrides=["train.devices=2"], out=tmp_path, quiet=True)
    with pytest.raises(FarfeelError, match="the clips have their paths already; remove root"):
        farfeel.train(load_clips("synthetic", voices), voices, recipe="tiny", out=tmp_path, quiet=True)
    with pytest.raises(FarfeelError, match="split part tset is not one of train, val, test, all; did you mean test"):
        farfeel.evaluate(best, "synthetic", voices, split="tset", quiet=True)
