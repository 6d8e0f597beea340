"""Laws of the command line: help without torch, results alone on standard output, an exit code that says what was."""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from farfeel import __version__, cli
from farfeel.cli import COMMANDS, main
from farfeel.cli.common import Command
from farfeel.models.checkpoint import load_checkpoint, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank
from farfeel.support.console import progress
from farfeel.types import EMOTIONS

Capture = pytest.CaptureFixture[str]
TINY = ["--recipe", "tiny", "data.split=folds-4:1", "audio.seconds=1.28", "model.image_frames=64", "train.epochs=1"]
KEYS = ["path", "start_s", "end_s", "label", "probabilities", "modalities", "microphones", "checkpoint", "warnings"]


def run(*words: object) -> int:
    """Exit code of a command, as the shell sees it."""
    try:
        return main([str(word) for word in words])
    except SystemExit as leaving:  # argparse
        return int(leaving.code or 0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording of one microphone and, one folder deeper, one of three."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(1)
    (folder / "deeper").mkdir()
    soundfile.write(folder / "one.wav", rng.normal(0, 0.1, 16000), 16000)
    soundfile.write(folder / "deeper" / "three, far.flac", rng.normal(0, 0.1, (24000, 3)), 16000)
    (folder / "notes.txt").write_text("no sound")
    return folder


def test_help_of_every_command_is_shown_and_needs_no_torch() -> None:
    script = """
import sys
from farfeel.cli import COMMANDS, main
for words in [[], ["--help"], ["rooms"], *(command.name.split() + ["--help"] for command in COMMANDS)]:
    try:
        code = main(words)
    except SystemExit as leaving:
        code = leaving.code
    assert code == 0, words
heavy = {"torch", "timm", "torchvision", "lightning_fabric", "pandas", "scipy", "sklearn"} & set(sys.modules)
sys.exit(f"help imports {heavy}" if heavy else 0)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert all(f"usage: farfeel {command.name} [-h]" in finished.stdout for command in COMMANDS)


def test_the_overview_names_every_command_and_rooms_its_own(capsys: Capture) -> None:
    assert run("--help") == 0
    overview = capsys.readouterr().out
    assert all(f"  {command.name} " in overview and command.help in overview for command in COMMANDS)
    assert run("rooms") == 0
    listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == [["rooms", "simulate"], ["rooms", "import"]]


def test_the_commands_of_the_overview_are_commands(capsys: Capture) -> None:
    names = {command.name for command in COMMANDS}
    shown = [line.split() for line in cli.OVERVIEW.splitlines() if line.startswith("  farfeel ")]
    assert shown
    assert all({words[1], " ".join(words[1:3])} & names for words in shown)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_a_command_shows_examples_that_it_accepts(capsys: Capture, command: Command) -> None:
    assert run(*command.name.split(), "--help") == 0
    shown = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  farfeel ")]
    assert shown
    for words in shown:
        name = command.name.split()
        assert words[: len(name)] == name
        parser = argparse.ArgumentParser()
        command.arguments(parser)
        parser.parse_intermixed_args(words[len(name) :])


def test_every_option_of_every_command_is_explained() -> None:
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        command.arguments(parser)
        assert all(action.help for action in parser._actions), command.name


def test_the_version_is_that_of_the_package(capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"farfeel {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["--nosuch"],
        ["rooms", "nosuch"],
        ["predict"],
        ["predict", "clip.wav", "--checkpoint", "c", "--mics", "x"],
        ["predict", "clip.wav", "--checkpoint", "c", "--mics", "0,0"],
        ["predict", "clip.wav", "--checkpoint", "c", "--mics", "-1"],
        ["predict", "clip.wav", "--checkpoint", "c", "--format", "xml"],
        ["predict", "clip.wav", "--checkpoint", "c", "--device", "abacus"],
        ["train", "--corpus", "ravdess", "--epochs", "ten"],
        ["train", "--corpus", "ravdess", "--epohcs", "10"],
        ["rooms", "import", "nosuch", "--root", "r", "--out", "o"],
        ["evaluate", "--checkpoint", "c", "--corpus", "ravdess", "--out", "o", "--split", "most"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_silent_on_standard_output(capsys: Capture, words: list[str]) -> None:
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "usage: farfeel" in said.err or "farfeel COMMAND --help shows the options and examples" in said.err


def test_json_is_alone_on_standard_output_one_object_per_file(capsys: Capture, checkpoint: Path, clips: Path) -> None:
    assert run("predict", clips, "--checkpoint", checkpoint, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in found] == [str(clips / "deeper" / "three, far.flac"), str(clips / "one.wav")]
    assert [(row["microphones"], row["end_s"]) for row in found] == [(3, 1.5), (1, 1.0)]
    for row in found:
        assert list(row) == KEYS
        assert list(row["probabilities"]) == list(EMOTIONS)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].__getitem__)
        assert (row["modalities"], row["checkpoint"], row["warnings"]) == (["audio"], str(checkpoint), [])


def test_csv_and_table_say_the_same(capsys: Capture, checkpoint: Path, clips: Path) -> None:
    said = {}
    for form in ("json", "csv", "table"):
        assert run("predict", clips, "--checkpoint", checkpoint, "--format", form) == 0
        said[form] = capsys.readouterr().out
    objects, rows = json.loads(said["json"]), list(csv.DictReader(said["csv"].splitlines()))
    assert [(row["path"], row["label"]) for row in rows] == [(row["path"], row["label"]) for row in objects]
    assert all(f"{row['path']}  (" in said["table"] and f": {row['label']} " in said["table"] for row in objects)


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_file_gets_what_standard_output_would(
    tmp_path: Path, capsys: Capture, checkpoint: Path, clips: Path, form: str
) -> None:
    words = ("predict", clips / "one.wav", "--checkpoint", checkpoint, "--format", form)
    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert run(*words, "--out", tmp_path / "new" / "found.txt") == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "new" / "found.txt").read_text() == printed
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["found.txt"]


def test_microphones_are_chosen_in_any_order(capsys: Capture, checkpoint: Path, clips: Path) -> None:
    path = clips / "deeper" / "three, far.flac"
    found = []
    for mics in ("0", "2", "2,0"):
        assert run("predict", path, "--checkpoint", checkpoint, "--mics", mics, "--format", "json") == 0
        found += json.loads(capsys.readouterr().out)
    assert [row["microphones"] for row in found] == [1, 1, 2]
    assert found[0]["probabilities"] != found[1]["probabilities"]


def test_an_ensemble_is_the_mean_of_its_checkpoints(
    tmp_path: Path, capsys: Capture, checkpoint: Path, clips: Path, small: Callable[..., Recipe]
) -> None:
    save_checkpoint(tmp_path / "other", EmotionModel(small()).state_dict(), small(), "# untrained, too\n")
    found = []
    for checkpoints in ([checkpoint], [tmp_path / "other"], [checkpoint, tmp_path / "other"]):
        chosen = [word for path in checkpoints for word in ("--checkpoint", path)]
        assert run("predict", clips / "one.wav", *chosen, "--format", "json") == 0
        (row,) = json.loads(capsys.readouterr().out)
        found.append(list(row["probabilities"].values()))
    np.testing.assert_allclose(found[2], np.mean(found[:2], axis=0), atol=2e-6)


def test_one_bad_file_among_good_ones_does_not_silence_them(
    tmp_path: Path, capsys: Capture, checkpoint: Path, clips: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    words = ("predict", clips / "one.wav", tmp_path / "bad.wav", clips / "deeper", "--checkpoint", checkpoint)
    assert run(*words, "--format", "json") == 1
    said = capsys.readouterr()
    assert [Path(row["path"]).name for row in json.loads(said.out)] == ["one.wav", "three, far.flac"]
    assert said.err.startswith(f"farfeel: error: {tmp_path / 'bad.wav'} cannot be read as audio")
    assert len(said.err.splitlines()) == 1


def test_from_a_corpus_to_a_comparison(tmp_path: Path, capsys: Capture, voices: Path, bank: Bank, clips: Path) -> None:
    manifest, run_dir = tmp_path / "corpus.parquet", tmp_path / "run"
    assert run("scan", "synthetic", "--root", voices, "--out", manifest) == 0
    assert "32 clips of 4 speakers" in capsys.readouterr().out

    assert run("train", "--corpus", manifest, "--rirs", bank.path, "--out", run_dir, *TINY) == 0
    assert capsys.readouterr().out == f"{run_dir / 'best'}\n"
    assert load_checkpoint(run_dir / "best").recipe.train.epochs == 1

    evaluate = ("evaluate", "--checkpoint", run_dir / "best", "--corpus", "synthetic", "--root", voices)
    for name, mics in (("far", "0,1,2"), ("near", "0")):
        assert run(*evaluate, "--rirs", bank.path, "--mics", mics, "--out", tmp_path / name) == 0
        printed = capsys.readouterr().out
        assert all(room in printed for room in bank.rooms)
        assert {"predictions.parquet", "metrics.json", "report.html"} <= {p.name for p in (tmp_path / name).iterdir()}
    assert run(*evaluate, "--out", tmp_path / "far") == 0  # an earlier evaluation is replaced
    assert "clean" in capsys.readouterr().out
    assert run(*evaluate, "--rirs", bank.path, "--out", tmp_path / "far") == 0
    capsys.readouterr()

    assert run("compare", tmp_path / "near", tmp_path / "far", "--format", "json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)
    assert run("report", f"one={tmp_path / 'near'}", f"three={tmp_path / 'far'}", "--out", tmp_path / "both") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["accuracy,", "%", "one", "three"]

    assert run("average", run_dir / "best", run_dir / "best", "--out", tmp_path / "mean") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'mean'}\n"
    assert run("predict", clips / "one.wav", "--checkpoint", tmp_path / "mean") == 0
    averaged = capsys.readouterr().out
    assert run("predict", clips / "one.wav", "--checkpoint", run_dir / "best") == 0
    assert capsys.readouterr().out == averaged


def test_a_bank_is_described_room_by_room_and_the_same_command_gives_the_same_bank(
    tmp_path: Path, capsys: Capture
) -> None:
    words = ("rooms", "simulate", "--count", 2, "--mics", 2, "--workers", 1, "simulation.t60_s=[0.2, 0.3]", "--out")
    for name in ("first", "second", "first"):
        assert run(*words, tmp_path / name) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{tmp_path / name}: 2 responses, 2 microphones, 16000 Hz, 2 rooms\n  sim_0000 ")
    first, second = ((tmp_path / name / "taps.npy").read_bytes() for name in ("first", "second"))
    assert first == second
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first", "second"]


def test_measured_responses_become_a_bank(tmp_path: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(1)
    decay = np.exp(-np.arange(8000) / 1500)[:, None]
    for room in ("Hall", "Office"):
        (tmp_path / "measured" / room).mkdir(parents=True)
        soundfile.write(tmp_path / "measured" / room / "1.wav", 0.3 * rng.normal(0, 0.3, (8000, 2)) * decay, 48000)
    assert run("rooms", "import", "folder", "--root", tmp_path / "measured", "--out", tmp_path / "bank") == 0
    assert "2 responses, 2 microphones, 16000 Hz, 2 rooms" in capsys.readouterr().out
    assert Bank.open(tmp_path / "bank").rooms == ("Hall", "Office")


def test_a_response_without_reverberation_is_described_without_a_warning(
    tmp_path: Path, capsys: Capture, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "measured").mkdir()
    soundfile.write(tmp_path / "measured" / "anechoic.wav", np.eye(1, 2000, 10)[0], 16000)
    assert run("rooms", "import", "folder", "--root", tmp_path / "measured", "--out", tmp_path / "bank") == 0
    assert "T60 nan s" in capsys.readouterr().out
    assert not recwarn.list


def test_an_interruption_is_exit_code_130_and_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert run("demo") == 130
    assert capsys.readouterr().err == "interrupted; run the same command again: it resumes if it can\n"


def test_a_bar_stays_where_the_work_is_done_and_vanishes_where_an_error_ends_it(capsys: Capture) -> None:
    with progress("counting", "sheep") as advance:
        advance(3, 3)
    assert "counting" in capsys.readouterr().err
    with pytest.raises(ValueError, match="wolf"), progress("counting", "sheep"):
        int("wolf")
    assert capsys.readouterr().err == ""


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `farfeel …` in a real shell."""
    farfeel = f"farfeel() {{ '{sys.executable}' -m farfeel.cli \"$@\"; }}; set -o pipefail; "
    return subprocess.run(
        ["bash", "-c", farfeel + command], capture_output=True, text=True, env=os.environ | environment, check=False
    )


def test_a_reader_that_stops_reading_is_no_error() -> None:
    finished = shell("farfeel recipe | head -n 1", PYTHONUNBUFFERED="")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("recipes: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("command", ["recipe", "--version"])
def test_a_full_standard_output_is_one_line(command: str) -> None:
    finished = shell(f"farfeel {command} > /dev/full", PYTHONUNBUFFERED="")
    assert finished.returncode == 1
    assert finished.stderr.startswith("farfeel: error: the output cannot be read or written (No space left on device)")
    assert len(finished.stderr.splitlines()) == 1


def test_a_terminal_without_our_letters_still_shows_the_rest() -> None:
    finished = shell("farfeel train --help", PYTHONIOENCODING="ascii")
    assert finished.returncode == 0, finished.stderr
    assert "--recipe" in finished.stdout
