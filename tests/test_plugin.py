"""Laws of another package: what it adds works by the command line like our own, and its absence is one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fastapi.testclient import TestClient

import farfeel
from farfeel.cli import main
from farfeel.models.checkpoint import load_checkpoint
from farfeel.recognise.recognizer import DEFAULT, Recognizer
from farfeel.rooms.bank import Bank
from farfeel.serve.app import create_app
from farfeel.serve.limits import Limits
from farfeel.serve.schema import CheckpointInfo
from farfeel.training import loop

Capture = pytest.CaptureFixture[str]
NAMED = ["microphones.strategy=loudest", "fusion.strategy=attention"]
SMALLEST = ["audio.seconds=1.28", "model.image_frames=64", "video.size=32", "video.width=4", "fusion.hidden=16"]
PACKAGES = {"microphones.strategy": "farfeel-example 0.1", "fusion.strategy": "farfeel-example 0.1"}
STRATEGY_IS_MISSING = "needs microphone strategy loudest of farfeel-example 0.1, which is not installed; pip install"


@pytest.fixture(scope="module")
def words(voices: Path, bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The words of `farfeel train` with both additions: `words(out, *more)`."""
    common = ["train", "--recipe", "tiny", "--corpus", "synthetic", "--root", str(voices), "--rirs", str(bank.path)]
    settings = ["modalities=both", "data.split=folds-4:1", "train.epochs=2", *SMALLEST, *NAMED]
    return lambda out, *more: [*common, "--out", str(out), *settings, *more]


@pytest.fixture(scope="module")
def run(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("plugin") / "run"
    assert main(words(out)) == 0
    return out


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    path = run / "model.onnx"
    assert main(["export", "--checkpoint", str(run / "best"), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def clip(voices: Path) -> Path:
    return next(voices.rglob("*.mp4"), None) or next(voices.rglob("*.flac"))


def test_help_lists_both_with_their_package(capsys: Capture) -> None:
    assert main(["recipe"]) == 0
    listed = capsys.readouterr().out
    assert "- loudest: The loudest working microphone alone. (from farfeel-example 0.1)" in listed
    assert "- attention: Attention over modalities: each clip weighs its audio and its video. (from" in listed


def test_both_are_trained_and_their_checkpoint_names_their_package(run: Path) -> None:
    for folder in (run, run / "best"):
        assert yaml.safe_load((folder / "recipe.yaml").read_text())["packages"] == PACKAGES
    model = load_checkpoint(run / "best")
    assert [type(part).__module__ for part in (model.microphones, model.classifier)] == [
        "farfeel_example.loudest",
        "farfeel_example.attention",
    ]
    weights = model.classifier.weights(torch.randn(3, 64), torch.randn(3, 768))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_an_interrupted_run_resumes_to_the_same_bits(
    tmp_path: Path, run: Path, words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as interrupted:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        interrupted.setattr(loop.Tracker, "log", interrupt)  # after the first epoch is saved
        assert main(words(tmp_path / "run")) == 130
    assert main(words(tmp_path / "run", "--resume")) == 0
    ours, theirs = (load_checkpoint(out / "best").state_dict() for out in (run, tmp_path / "run"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_checkpoint_is_evaluated(tmp_path: Path, run: Path, voices: Path, bank: Bank) -> None:
    where = ["--corpus", "synthetic", "--root", str(voices), "--rirs", str(bank.path)]
    command = ["evaluate", "--checkpoint", str(run / "best"), *where, "--out", str(tmp_path / "test")]
    assert main(command) == 0
    assert any((tmp_path / "test").iterdir())


def test_the_exported_file_answers_as_the_checkpoint(run: Path, exported: Path, clip: Path, capsys: Capture) -> None:
    answers = []
    for checkpoint, engine in ((run / "best", "auto"), (exported, "onnx")):
        engines = ["--engine", engine] * (engine == "onnx")
        capsys.readouterr()
        assert main(["predict", str(clip), "--checkpoint", str(checkpoint), "--format", "json", *engines]) == 0
        found = json.loads(capsys.readouterr().out)
        answers.append((found[0] if isinstance(found, list) else found)["probabilities"])
    np.testing.assert_allclose(*(list(answer.values()) for answer in answers), atol=2e-4)


def test_the_checkpoint_is_served(run: Path, clip: Path) -> None:
    recognizer = Recognizer.load([run / "best"])
    app = create_app(recognizer, CheckpointInfo("run", "# run\n"), Limits(), None, False)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/predict", files={"file": (clip.name, clip.read_bytes())})
    assert answer.status_code == 200, answer.text
    expected = recognizer.predict(clip).probabilities
    np.testing.assert_allclose(list(answer.json()["probabilities"].values()), expected, atol=1e-4)


def test_two_checkpoints_that_learned_nothing_in_their_strategies_merge(tmp_path: Path, words) -> None:
    for seed in (1, 2):
        more = ["modalities=audio", "train.epochs=1", f"seed={seed}", "fusion.strategy=concatenation"]
        assert main(words(tmp_path / f"run{seed}", *more)) == 0
    runs = [str(tmp_path / f"run{seed}" / "best") for seed in (1, 2)]
    assert main(["merge", *runs, "--out", str(tmp_path / "merged")]) == 0
    merged = yaml.safe_load((tmp_path / "merged" / "recipe.yaml").read_text())
    assert merged["packages"] == {"microphones.strategy": "farfeel-example 0.1"}


def test_without_the_package_one_line_names_it(
    tmp_path: Path, run: Path, exported: Path, clip: Path, words: Callable[..., list[str]]
) -> None:
    """Every command that loads a checkpoint, in a process that does not find the package."""
    best, out = str(run / "best"), str(tmp_path / "out")
    commands = {
        f"checkpoint {best}": [
            ["predict", str(clip), "--checkpoint", best],
            ["predict", str(clip), "--checkpoint", str(DEFAULT), "--checkpoint", best],
            ["export", "--checkpoint", best, "--out", f"{out}.onnx"],
            ["merge", best, best, "--out", out],
            ["average", best, best, "--out", out],
            ["serve", "--checkpoint", best],
        ],
        str(exported): [
            ["predict", str(clip), "--engine", "onnx", "--checkpoint", str(exported)],
            ["serve", "--engine", "onnx", "--checkpoint", str(exported)],
        ],
        f"{best}/recipe.yaml": [["train", "--init", best, *words(out)[3:-2]]],
        "": [["train", "--recipe", "tiny", "--corpus", "synthetic", "microphones.strategy=loudest"]],
    }
    script = "import json, sys; from farfeel.cli import main; [main(words) for words in json.loads(sys.argv[1])]"
    every = [words for group in commands.values() for words in group]
    source = str(Path(farfeel.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", script, json.dumps(every)],
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stderr.splitlines()
    assert len(found) == len(every)
    for line, what in zip(found, [what for what, group in commands.items() for _ in group], strict=True):
        if what:
            assert line == f"farfeel: error: {what} {STRATEGY_IS_MISSING} farfeel-example"
        else:
            assert line.startswith(
                "farfeel: error: tiny: microphones.strategy is 'loudest', expected one of average-mels"
            )
            assert line.endswith("correct the name, or install the package that brings it")
    assert not list(tmp_path.iterdir())
