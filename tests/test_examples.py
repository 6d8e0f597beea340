"""Every block of docs/api.md runs, in order, and so does every program in examples/.

The recognizer is a small one with random weights. The recordings are of artificial people.
"""

import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from farfeel.cli import main
from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")
EMOTIONS = ("neutral", "happy", "sad", "angry")
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, voices: Path, small: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page describes, to work in. The checkpoint in the package is the small one."""
    for name, modalities in (("mine", "both"), ("audio", "audio")):
        torch.manual_seed(0)
        recipe = small(f"modalities={modalities}", "data.split=folds-4:1", "train.keep=1")
        save_checkpoint(tmp_path / "runs" / name / "best", EmotionModel(recipe).state_dict(), recipe, "# Random\n")
    for file in sorted(path for emotion in EMOTIONS for path in voices.rglob(f"synthetic-*-{emotion}-*")):
        _, speaker, emotion, _ = file.stem.split("-")
        own = tmp_path / "mine" / emotion / f"speaker{speaker}"
        own.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, own / f"1{file.suffix}")
    sad = tmp_path / "mine" / "sad" / "speaker01"
    dry, rate = soundfile.read(sad / "1.flac", dtype="float32")
    soundfile.write(tmp_path / "clip.wav", dry, rate)
    shutil.copy(sad / "1.mp4", tmp_path / "clip.mp4")
    shutil.copy(sad / "1.mp4", tmp_path / "camera.mp4")
    for number, level in enumerate((1.0, 0.7, 0.5), start=1):
        soundfile.write(tmp_path / f"mic{number}.wav", level * dry, rate)
    soundfile.write(tmp_path / "array.wav", np.stack([dry, 0.5 * dry], axis=1)[rate // 5 :], rate)
    meeting = np.concatenate([dry, np.zeros(2 * rate, np.float32), dry])
    soundfile.write(tmp_path / "meeting.wav", np.outer(meeting, [1.0, 0.8, 0.6, 0.4]), rate)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("farfeel.recognise.recognizer.DEFAULT", tmp_path / "runs" / "mine" / "best")
    return tmp_path


def test_every_block_of_the_page_runs_in_order(folder: Path) -> None:
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) >= 10
    names: dict[str, object] = {}
    for language, block in blocks:
        if language == "python":
            exec(compile(block, f"<docs/api.md> {block[:60]!r}", "exec"), names)
        else:
            for line in block.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line)
                assert (program, main(words)) == ("farfeel", 0), line
    assert (folder / "runs" / "tuned" / "best" / "model.safetensors").is_file()
    assert (folder / "mine-tested" / "report.html").is_file()
    table = pd.read_csv(folder / "windows.csv")
    assert len(table) == len(names["timeline"].predictions)  # type: ignore[attr-defined]


@pytest.fixture
def example(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Name of a program and its arguments → the lines that it prints."""

    def run(name: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(PROJECT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_live_prints_a_line_for_each_window_of_what_comes_in(
    example: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, rate = soundfile.read("meeting.wav", dtype="int16")
    stdin = io.TextIOWrapper(io.BytesIO(samples.astype("<i2").tobytes() + b"\0"))  # cut in the middle of a sample
    monkeypatch.setattr(sys, "stdin", stdin)
    lines = example("live.py", "--rate", str(rate), "--mics", "4")
    assert len(samples) / rate - 2 <= len(lines) <= len(samples) / rate + 1
    assert any(line.endswith("…") for line in lines)  # the pause


def test_mood_shares_the_time_out_among_all_emotions(example: Callable[..., list[str]]) -> None:
    title, *shares = example("mood.py", "meeting.wav", "runs/mine/best")
    assert title.startswith("meeting.wav:")
    assert sum(int(line.split()[1].rstrip("%")) for line in shares) == pytest.approx(100, abs=4)


def test_worst_clips_lists_ten_from_the_least_probable(example: Callable[..., list[str]]) -> None:
    title, *clips = example("worst_clips.py", "mine")
    assert title.endswith("16 clips")
    assert len(clips) == 10


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{program.name}"' in here for program in (PROJECT / "examples").glob("*.py"))
