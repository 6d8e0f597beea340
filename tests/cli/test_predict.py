"""Laws of predict and listen: patterns, timelines in every form, abstention, the checkpoint in the package."""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from farfeel.cli import listen, main, predict
from farfeel.cli.predict import recordings
from farfeel.recognise.recognizer import Recognizer
from farfeel.types import EMOTIONS, FarfeelError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory, voices: Path) -> Path:
    """Two recordings of some seconds, of two microphones, called alike in two folders; a pause in each."""
    folder = tmp_path_factory.mktemp("talks")
    clips = sorted(voices.rglob("*.flac"))
    for number in (0, 1):
        (folder / f"day {number}").mkdir()
        parts = [soundfile.read(path)[0] for path in clips[2 * number : 2 * number + 2]]
        line = np.concatenate([parts[0], np.zeros(48000), parts[1]])
        soundfile.write(folder / f"day {number}" / "talk.wav", np.stack([line, 0.5 * line], 1), 16000)
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_patterns_folders_and_files_are_the_same_recordings_each_once(talks: Path) -> None:
    each = [talks / "day 0" / "talk.wav", talks / "day 1" / "talk.wav"]
    assert recordings([str(talks)]) == recordings([f"{talks}/*/*.wav"]) == recordings([f"{talks}/**/*.wav"]) == each
    assert recordings([str(each[1]), str(talks), str(each[0])]) == [each[1], each[0]]


@pytest.mark.parametrize("word", ["*.nosuch", "deeper/**/*.wav"])
def test_a_pattern_that_matches_nothing_is_one_line(talks: Path, word: str) -> None:
    with pytest.raises(FarfeelError, match="has no recording"):
        recordings([f"{talks}/{word}"])


def test_a_name_with_brackets_is_a_name_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "take [1].wav").touch()
    assert recordings([str(tmp_path / "take [1].wav")]) == [tmp_path / "take [1].wav"]


def test_a_timeline_has_a_row_for_each_window_of_each_recording(capsys: Capture, checkpoint: Path, talks: Path) -> None:
    assert run("predict", talks, "--checkpoint", checkpoint, "--timeline", "--step", "0.5", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["path"] for row in found} == set(map(str, recordings([str(talks)])))
    assert len(found) > 10
    silent = [row for row in found if not row["probabilities"]]
    assert silent
    assert {row["label"] for row in silent} == {None}
    for row in found:
        assert row["end_s"] == pytest.approx(row["start_s"] + 1.28, abs=0.001)
        assert row["microphones"] == 2 or not row["probabilities"]


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".csv", "path,"), (".json", "["), (".html", "<!doctype html>"), (".vtt", "WEBVTT")]
)
def test_the_suffix_of_out_decides_the_form(
    tmp_path: Path, checkpoint: Path, talks: Path, suffix: str, begins: str
) -> None:
    path = talks / "day 0" / "talk.wav"
    assert run("predict", path, "--checkpoint", checkpoint, "--timeline", "--out", tmp_path / f"found{suffix}") == 0
    assert (tmp_path / f"found{suffix}").read_text().lower().startswith(begins.lower())


def test_timelines_of_several_recordings_go_to_a_folder_by_their_names(
    tmp_path: Path, checkpoint: Path, talks: Path
) -> None:
    words = ("predict", talks, "--checkpoint", checkpoint, "--timeline", "--out", tmp_path / "lines")
    assert run(*words, "--format", "textgrid") == 0
    assert run(*words) == 0
    names = sorted(path.name for path in (tmp_path / "lines").iterdir())
    assert names == [f"day {n}-talk.{suffix}" for n in (0, 1) for suffix in ("TextGrid", "csv")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--format", "vtt"], "--format vtt shows time; add --timeline"),
        (["--timeline", "--format", "html"], "is one file each for 2 recordings; add --out FOLDER"),
        (["--timeline", "--step", "0"], "a step of 0 s is requested, expected 0.1 s or more"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    capsys: Capture, checkpoint: Path, talks: Path, words: list[str], told: str
) -> None:
    assert run("predict", talks, "--checkpoint", checkpoint, *words) == 1
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


def test_one_recording_has_no_timeline_of_an_unknown_form(
    tmp_path: Path, capsys: Capture, checkpoint: Path, talks: Path
) -> None:
    path = talks / "day 0" / "talk.wav"
    assert run("predict", path, "--checkpoint", checkpoint, "--timeline", "--out", tmp_path / "found.pdf") == 1
    assert "expected .csv, .json, .html, .TextGrid or .vtt" in capsys.readouterr().err


def test_below_the_threshold_there_is_no_label(capsys: Capture, checkpoint: Path, talks: Path) -> None:
    said = []
    for below in ("0", "1"):
        words = ("predict", talks, "--checkpoint", checkpoint, "--abstain-below", below, "--format", "csv")
        assert run(*words) == 0
        said.append(list(csv.DictReader(capsys.readouterr().out.splitlines())))
    assert all(row["label"] for row in said[0])
    assert {row["label"] for row in said[1]} == {""}
    assert [row["p_calm"] for row in said[0]] == [row["p_calm"] for row in said[1]]


def test_the_checkpoint_in_the_package_hears_and_sees(capsys: Capture, voices: Path) -> None:
    sound, film = sorted(voices.rglob("*.flac"))[0], sorted(voices.rglob("*.mp4"))[0]
    assert run("predict", sound, film, "--face", "whole", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["modalities"] for row in found] == [["audio"], ["video"]]
    assert [list(row["probabilities"]) for row in found] == [list(EMOTIONS)] * 2
    assert {row["checkpoint"] for row in found} == {"default"}


def test_listening_to_a_replayed_recording_tells_labels_and_the_delay(
    capsys: Capture, checkpoint: Path, voices: Path
) -> None:
    clip = sorted(voices.rglob("*.flac"))[0]
    assert run("listen", "--replay", clip, "--checkpoint", checkpoint, "--step", "0.2", "--seconds", "2") == 0
    *rows, budget = capsys.readouterr().out.splitlines()
    assert len(rows) >= 2
    assert {row.split("\t")[1] for row in rows} <= {*EMOTIONS, ""}
    assert budget.startswith("window 1.28 s, step 0.2 s, block 0.1 s, computing ")


def test_listening_to_more_microphones_than_there_are_is_one_line(
    capsys: Capture, checkpoint: Path, talks: Path
) -> None:
    path = talks / "day 0" / "talk.wav"
    assert run("listen", "--replay", path, "--checkpoint", checkpoint, "--mics", "3") == 1
    assert "has 2 channels, but --mics is 3; choose a number from 1 to 2" in capsys.readouterr().err


class Card:
    """A sound card with two channels, as the sounddevice package shows it, that plays a recording and is unplugged."""

    PortAudioError = OSError
    line = np.zeros((2, 0), np.float32)

    def __init__(self, rate: int, size: int, which: object, channels: int, kind: str, callback: Callable) -> None:
        self.blocks = np.split(self.line[:channels].T, range(size, self.line.shape[1], size))
        self.thread = threading.Thread(
            target=lambda: [callback(block, len(block), None, None) for block in self.blocks]
        )

    def __enter__(self) -> "Card":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()

    @staticmethod
    def query_devices(which: object = None, kind: object = None) -> object:
        if which not in (None, 0, "array"):
            raise ValueError(f"No input device matching {which!r}")
        return {"name": "array", "max_input_channels": 2, "default_samplerate": 16000.0}


def sound_card() -> SimpleNamespace:
    return SimpleNamespace(InputStream=Card, query_devices=Card.query_devices, PortAudioError=Card.PortAudioError)


def test_a_sound_card_is_heard_like_a_stream(
    capsys: Capture, checkpoint: Path, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = soundfile.read(sorted(voices.rglob("*.flac"))[0], dtype="float32")[0][:32000]
    Card.line = np.stack([voice, 0.5 * voice])
    monkeypatch.setitem(sys.modules, "sounddevice", sound_card())
    seconds = Card.line.shape[1] / 16000 - 0.2
    assert run("listen", "--checkpoint", checkpoint, "--step", "0.2", "--seconds", seconds) == 0
    *rows, _ = capsys.readouterr().out.splitlines()
    stream = Recognizer.load(checkpoint).stream(16000, 2, 0.2)
    expected = [p for p in stream.push(Card.line) if p.end_s <= seconds]
    assert [row.split("\t")[:2] for row in rows[: len(expected)]] == [
        [f"{p.end_s:.1f}", p.label or ""] for p in expected
    ]


def test_a_sound_card_that_falls_silent_is_one_line(
    capsys: Capture, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Card.line = np.zeros((2, 4000), np.float32)
    monkeypatch.setitem(sys.modules, "sounddevice", sound_card())
    monkeypatch.setattr(listen, "SILENT_S", 0.1)
    assert run("listen", "--checkpoint", checkpoint) == 1
    assert "array has sent nothing for 0.1 s, expected audio; check that it is plugged in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--input", "kitchen"],
            "no sound card kitchen (No input device matching 'kitchen'); farfeel listen",
        ),
        (["--mics", "3"], "array has 2 channels, but --mics is 3; choose a number from 1 to 2"),
    ],
)
def test_a_sound_card_that_is_not_there_is_one_line(
    capsys: Capture, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", sound_card())
    assert run("listen", "--checkpoint", checkpoint, *words) == 1
    assert told in capsys.readouterr().err


# --- one file for each microphone ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def microphones(tmp_path_factory: pytest.TempPathFactory, talks: Path) -> list[Path]:
    """The channels of a recording of two microphones, and a third, each in a file of its own."""
    folder = tmp_path_factory.mktemp("microphones")
    samples, rate = soundfile.read(talks / "day 0" / "talk.wav")
    channels = [samples[:, 0], samples[:, 1], 0.25 * samples[:, 0]]
    files = [folder / f"mic{number}.wav" for number in (1, 2, 3)]
    for file, channel in zip(files, channels, strict=True):
        soundfile.write(file, channel, rate)
    soundfile.write(folder / "array.wav", np.stack(channels, axis=1), rate)
    return files


def rows(capsys: Capture, *words: object) -> list[dict[str, Any]]:
    assert run("predict", *words, "--format", "json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("timeline", [[], ["--timeline"]])
def test_one_file_for_each_microphone_is_one_recording(
    capsys: Capture, checkpoint: Path, microphones: list[Path], timeline: list[str]
) -> None:
    whole = rows(capsys, microphones[0].parent / "array.wav", "--checkpoint", checkpoint, *timeline)
    first, second, third = microphones
    for words in (["--audio", *microphones], ["--audio", first, "--audio", second, third]):
        found = rows(capsys, *words, "--checkpoint", checkpoint, *timeline)
        assert [{**row, "path": ""} for row in found] == [{**row, "path": ""} for row in whole]
        assert {row["path"] for row in found} == {str(first)}
    assert {row["microphones"] for row in found if row["probabilities"]} == {3}
    (pair,) = rows(capsys, "--audio", *microphones, "--mics", "0,2", "--checkpoint", checkpoint)
    assert pair["microphones"] == 2


def test_options_take_several_audio_files_in_python(checkpoint: Path, microphones: list[Path]) -> None:
    recognizer = Recognizer.load(checkpoint)
    whole = recognizer.predict(microphones[0].parent / "array.wav")
    found = recognizer.predict(microphones[0], audio=microphones)
    assert found == whole
    assert list(recognizer.predict_many([microphones[0]], audio=list(map(str, microphones)))) == [whole]
    with pytest.raises(FarfeelError, match="is named twice as audio"):
        recognizer.predict(microphones[0], audio=[microphones[1], microphones[1]])
    with pytest.raises(FarfeelError, match="audio is an empty list"):
        recognizer.predict(microphones[0], audio=[])


def test_lengths_that_differ_are_a_warning_or_one_line(
    capsys: Capture, tmp_path: Path, checkpoint: Path, microphones: list[Path]
) -> None:
    samples, rate = soundfile.read(microphones[1])
    soundfile.write(tmp_path / "early.wav", samples[: -rate // 4], rate)
    soundfile.write(tmp_path / "half.wav", samples[: len(samples) // 2], rate)
    (found,) = rows(capsys, "--audio", microphones[0], tmp_path / "early.wav", "--checkpoint", checkpoint)
    assert any("early.wav ends 0.25 s before" in warning for warning in found["warnings"])
    assert found["microphones"] == 2
    for timeline in ([], ["--timeline"]):
        words = ("--audio", microphones[0], tmp_path / "half.wav", "--checkpoint", checkpoint, *timeline)
        assert run("predict", *words) == 1
        said = capsys.readouterr()
        assert "expected the same length of all files of one recording" in said.err
        assert said.out == ""


def test_a_silent_file_is_a_dead_microphone(
    capsys: Capture, tmp_path: Path, checkpoint: Path, microphones: list[Path]
) -> None:
    samples, rate = soundfile.read(microphones[1])
    soundfile.write(tmp_path / "silent.wav", np.zeros_like(samples), rate)
    (found,) = rows(capsys, "--audio", microphones[0], tmp_path / "silent.wav", "--checkpoint", checkpoint)
    (alone,) = rows(capsys, microphones[0], "--checkpoint", checkpoint)
    assert (found["microphones"], found["label"]) == (1, alone["label"])
    assert len(found["warnings"]) == 1


def test_the_only_video_behind_audio_is_the_file(tmp_path: Path, microphones: list[Path]) -> None:
    video = tmp_path / "talk.mp4"
    for words, expected in (
        ([video, "--audio", *microphones], (video, microphones)),
        (["--audio", *microphones, video], (video, microphones)),
        (["--audio", *microphones], (microphones[0], microphones)),
        (["--audio", video], (video, [video])),
    ):
        parser = argparse.ArgumentParser()
        predict.COMMANDS[0].arguments(parser)
        args = parser.parse_intermixed_args(list(map(str, words)))
        video.touch()
        assert (predict._files_of(args), args.audio) == ([expected[0]], expected[1])


@pytest.mark.parametrize(
    "twice",
    [["--mics", "0", "--mics", "1"], ["--out", "a.csv", "--out", "b.csv"], ["--face", "left", "--face", "right"],
     ["--step", "1.5", "--step", "2.5"], ["--format", "json", "--format", "csv"],
     ["--debug-dir", "a", "--debug-dir", "b"],
     ["--abstain-below", "0.1", "--abstain-below", "0.2"], ["--audio-offset", "1.5", "--audio-offset", "2.5"]],
)  # fmt: skip
def test_a_second_value_never_replaces_the_first(
    capsys: Capture, talks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, twice: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("predict", talks, *twice) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"farfeel: error: {twice[0]} is given twice ({twice[1]} and {twice[3]})")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_the_same_value_twice_loses_nothing(capsys: Capture, checkpoint: Path, microphones: list[Path]) -> None:
    words = ("--checkpoint", checkpoint, "--mics", "0", "--mics", "0", "--face", "left", "--face", "left")
    assert len(rows(capsys, microphones[0], *words)) == 1


def test_without_a_file_and_without_audio_the_usage_is_wrong(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as error:
        run("predict")
    assert error.value.code == 2
    assert "required: FILE|FOLDER|GLOB, or --audio" in capsys.readouterr().err
    assert run("predict", "--audio", "a.wav", "--modalities", "video") == 1
    assert "name the video FILE before --audio" in capsys.readouterr().err


# --- folders -------------------------------------------------------------------------------------------------------


def test_what_is_no_recording_is_counted_and_named_and_litter_is_not(
    capsys: Capture, tmp_path: Path, checkpoint: Path, microphones: list[Path]
) -> None:
    shutil.copy(microphones[0], tmp_path / "clip.wav")
    shutil.copy(microphones[1], tmp_path / "recorder.dat")
    for name in ("notes.txt", "table.csv", "bare.raw"):
        (tmp_path / name).write_text("1,2,3\n")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("._clip.wav", "__MACOSX/._clip.wav", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert run("predict", tmp_path, "--checkpoint", checkpoint, "--format", "json") == 0
    said = capsys.readouterr()
    assert [Path(row["path"]).name for row in json.loads(said.out)] == ["clip.wav", "recorder.dat"]
    assert said.err == "3 of 5 files were not recordings: bare.raw, notes.txt, table.csv\n"


def test_a_folder_without_a_recording_is_one_line_that_names_what_is_there(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    assert run("predict", tmp_path) == 1
    said = capsys.readouterr()
    assert f"{tmp_path} has no recording (.wav, .mp3, .mp4 …), found notes.txt; name another" in said.err
    assert (said.err.count("\n"), said.out) == (1, "")


# --- outputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
@pytest.mark.parametrize("more", [["--format", "csv"], ["--timeline", "--format", "vtt"]])
def test_standard_output_may_be_named(tmp_path: Path, microphones: list[Path], out: str, more: list[str]) -> None:
    command = [sys.executable, "-m", "farfeel.cli", "predict", str(microphones[0]), "--engine", "onnx"]
    printed = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, check=True).stdout
    named = subprocess.run([*command, *more, "--out", out], cwd=tmp_path, capture_output=True, check=True).stdout
    assert named == printed != b""
    with (tmp_path / "kept.txt").open("wb") as file:
        subprocess.run(
            [*command, *more, "--out", out], cwd=tmp_path, stdout=file, stderr=subprocess.DEVNULL, check=True
        )
    assert (tmp_path / "kept.txt").read_bytes() == printed
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_pipe_and_a_device_are_written_to_and_stay(
    capsys: Capture, tmp_path: Path, checkpoint: Path, microphones: list[Path]
) -> None:
    pipe, words = tmp_path / "pipe", ("predict", microphones[0], "--checkpoint", checkpoint, "--format", "csv")
    assert run(*words) == 0
    printed = capsys.readouterr().out
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert run(*words, "--out", pipe) == 0
        assert reader.communicate(timeout=30)[0] == printed
    assert pipe.is_fifo()
    assert run(*words, "--out", "/dev/null") == 0
    assert Path("/dev/null").is_char_device()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("suffix", "form"), [(".csv", "csv"), (".JSON", "json"), (".txt", "table"), ("", "table")])
def test_the_suffix_of_out_decides_the_form_without_a_timeline(
    capsys: Capture, tmp_path: Path, checkpoint: Path, microphones: list[Path], suffix: str, form: str
) -> None:
    words = ("predict", microphones[0], "--checkpoint", checkpoint)
    assert run(*words, "--format", form) == 0
    printed = capsys.readouterr().out
    assert run(*words, "--out", tmp_path / f"found{suffix}") == 0
    assert (tmp_path / f"found{suffix}").read_text() == printed


@pytest.mark.parametrize("name", ["found.xlsx", "found.pdf", "found.md", "found.html", "found.TextGrid"])
def test_an_unknown_suffix_of_out_is_refused_with_those_that_are_known(
    capsys: Capture, tmp_path: Path, checkpoint: Path, microphones: list[Path], name: str
) -> None:
    assert run("predict", microphones[0], "--checkpoint", checkpoint, "--out", tmp_path / name) == 1
    said = capsys.readouterr().err
    assert ".csv, .json, .txt" in said
    assert said.count("\n") == 1
    assert not (tmp_path / name).exists()


def test_a_name_of_255_bytes_is_a_name(tmp_path: Path, checkpoint: Path, microphones: list[Path]) -> None:
    out = tmp_path / f"{'ö' * 125}x.csv"
    assert len(os.fsencode(out.name)) == 255
    for _ in range(2):  # written, and replaced
        assert run("predict", microphones[0], "--checkpoint", checkpoint, "--out", out) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


def test_timelines_of_recordings_of_one_name_never_replace_each_other(
    tmp_path: Path, checkpoint: Path, microphones: list[Path]
) -> None:
    for name in ("a/x/talk.wav", "b/x/talk.wav", "b/x/talk.flac", "b/x/Talk.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, *soundfile.read(microphones[0]))
    words = ("predict", tmp_path / "in", "--checkpoint", checkpoint, "--timeline", "--out", tmp_path / "lines")
    assert run(*words) == 0
    found = sorted((tmp_path / "lines").iterdir())
    assert len({path.name.casefold() for path in found}) == 4
    assert len({path.read_text().splitlines()[1].partition(",")[0] for path in found}) == 4
