"""Laws of predict and listen: patterns, timelines in every form, abstention, the checkpoint in the package."""

import csv
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from farfeel.cli import listen, main
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
