"""Laws of bad input at every door: one line that says what was found, what was expected and the remedy, exit code 1,
nothing half-written, and nothing of the user's deleted."""

import json
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import soundfile
import torch

from farfeel.cli import main
from farfeel.media import face_video
from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank, write_bank
from farfeel.types import Rir

Complain = Callable[..., str]
Small = Callable[..., Recipe]
TINY = ["--recipe", "tiny", "data.split=folds-4:1", "audio.seconds=1.28", "model.image_frames=64", "train.epochs=1"]


@pytest.fixture
def complain(capsys: pytest.CaptureFixture[str]) -> Complain:
    """Run a command that must fail; its one line, without `farfeel: error: `."""

    def run(*words: object) -> str:
        assert main([str(word) for word in words]) == 1
        said = capsys.readouterr()
        errors = [line for line in said.err.splitlines() if line.startswith("farfeel: error: ")]
        assert len(errors) == 1, said.err
        assert said.err.splitlines()[-1] == errors[0]
        assert "Traceback" not in said.err
        assert said.out == ""
        return errors[0].removeprefix("farfeel: error: ")

    return run


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory, small: Small) -> Callable[..., Path]:
    def make(*overrides: str) -> Path:
        folder, recipe = tmp_path_factory.mktemp("checkpoint") / "best", small("data.split=folds-4:1", *overrides)
        save_checkpoint(folder, EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good recording of two microphones."""
    return sound(tmp_path_factory.mktemp("clips") / "good.wav", channels=2)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Where a failing command was told to write; it must leave nothing there, nor beside it."""
    yield tmp_path / "out" / "result"
    left = list((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else []
    assert not left


def sound(path: Path, channels: int = 1, value: float | None = None, subtype: str | None = None) -> Path:
    samples = np.random.default_rng(1).normal(0, 0.1, (16000, channels))
    form = None if path.suffix != ".flac" else "WAV"  # a corpus's FLAC name with what a test needs inside
    soundfile.write(path, samples if value is None else np.full_like(samples, value), 16000, subtype, format=form)
    return path


def three_hours(path: Path) -> None:
    """A sparse WAV of 3 hours at 8 kHz."""
    size = 3 * 3600 * 8000 * 2
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    with path.open("wb") as file:
        file.write(header + struct.pack("<4sI", b"data", size))
        file.truncate(44 + size)


def cut(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


HEADERS_TELL = {  # these a scan finds without decoding
    "text": (lambda path: path.write_text("no sound\n" * 100), "cannot be read as audio"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "one sample": (lambda path: soundfile.write(path, [0.1], 16000, format="WAV"), "has 0.1 ms of audio"),
    "cut": (lambda path: cut(sound(path)), "is cut off"),
}
SAMPLES_TELL = {
    "silent": (lambda path: sound(path, value=0.0), "is silent"),
    "nan": (lambda path: sound(path, value=float("nan"), subtype="FLOAT"), "contains NaN"),
    "8-bit": (lambda path: sound(path, subtype="PCM_U8"), "is 8-bit audio"),
    "three hours": (three_hours, "lasts 180 minutes"),
}


# --- recordings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*HEADERS_TELL, *SAMPLES_TELL])
def test_a_recording_that_cannot_be_recognised(
    tmp_path: Path, complain: Complain, checkpoint: Path, out: Path, kind: str
) -> None:
    make, said = (HEADERS_TELL | SAMPLES_TELL)[kind]
    make(tmp_path / "clip.wav")
    line = complain("predict", tmp_path / "clip.wav", "--checkpoint", checkpoint, "--out", out)
    assert line.startswith(f"{tmp_path / 'clip.wav'} {said}")
    assert line.count("clip.wav") == 1


def test_recordings_that_are_not_there(tmp_path: Path, complain: Complain, checkpoint: Path) -> None:
    assert "does not exist; expected an audio file" in complain("predict", "nosuch.wav", "--checkpoint", checkpoint)
    assert "has no recording (.wav, " in complain("predict", tmp_path, "--checkpoint", checkpoint)


@pytest.mark.parametrize("mics", ["0,9", "2"])
def test_microphones_that_are_not_there(
    tmp_path: Path, complain: Complain, checkpoint: Path, clip: Path, voices: Path, bank: Bank, out: Path, mics: str
) -> None:
    line = complain("predict", clip, "--checkpoint", checkpoint, "--mics", mics)
    assert line == f"{clip} has 2 channels (0 to 1), --mics asks for {mics[-1]}; choose among them"
    evaluate = ("evaluate", "--checkpoint", checkpoint, "--corpus", "synthetic", "--root", voices, "--out", out)
    assert "dry speech has 1 channel, number 0, but --mics requests" in complain(*evaluate, "--mics", mics)
    assert "has 3 microphones, 10 were requested" in complain(*evaluate, "--rirs", bank.path, "--mics", "0,9")


@pytest.mark.parametrize("kind", SAMPLES_TELL)
def test_a_bad_clip_of_a_corpus_is_named_in_the_first_epoch(
    tmp_path: Path, complain: Complain, voices: Path, checkpoint: Path, out: Path, kind: str
) -> None:
    make, said = SAMPLES_TELL[kind]
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    bad = sorted((corpus / "speaker_04").glob("*.flac"))[3]
    make(bad)
    line = complain("train", "--corpus", "synthetic", "--root", corpus, "--out", tmp_path / "run", *TINY)
    assert line.startswith(f"{bad} {said}")
    assert not (tmp_path / "run" / "best").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()
    evaluate = ("evaluate", "--checkpoint", checkpoint, "--corpus", "synthetic", "--root", corpus, "--split", "all")
    assert complain(*evaluate, "--out", out).startswith(f"{bad} {said}")


def spoiled(voices: Path, corpus: Path, make: Callable[[Path], None]) -> tuple[Path, Path]:
    """A copy of the corpus with one clip of a training speaker made bad; the copy and that clip."""
    shutil.copytree(voices, corpus)
    bad = sorted((corpus / "speaker_04").glob("*.flac"))[3]
    make(bad)
    return corpus, bad


@pytest.mark.parametrize("kind", HEADERS_TELL)
def test_a_bad_clip_of_a_corpus_is_named_by_a_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], voices: Path, kind: str
) -> None:
    make, said = HEADERS_TELL[kind]
    corpus, bad = spoiled(voices, tmp_path / "corpus", make)
    assert main(["scan", "synthetic", "--root", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert f"unreadable: {bad} {said}" in printed
    assert "31 clips of 4 speakers" in printed


# --- corpora -------------------------------------------------------------------------------------------------------


def test_a_corpus_that_is_not_there(tmp_path: Path, complain: Complain, checkpoint: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, said in (
        (tmp_path / "nosuch", "does not exist; expected the folder of"),
        (tmp_path / "empty", "no clip of"),
    ):
        for words in (
            ("scan", "synthetic", "--root", root, "--out", out),
            ("train", "--corpus", "synthetic", "--root", root, "--out", out, *TINY),
            ("evaluate", "--checkpoint", checkpoint, "--corpus", "synthetic", "--root", root, "--out", out),
        ):
            line = complain(*words)
            assert line.startswith(str(root))
            assert said in line
            assert "--root" in line


def test_a_folder_of_another_corpus_is_told_which(complain: Complain, voices: Path, out: Path) -> None:
    line = complain("scan", "ravdess", "--root", voices, "--out", out)
    assert "holds no clip of RAVDESS; expected files named like 03-01" in line
    assert "those of synthetic" in line
    assert "did you mean ravdess?" in complain("scan", "ravdes", "--root", voices, "--out", out)


def test_a_split_without_clips(tmp_path: Path, complain: Complain, voices: Path, checkpoint: Path, out: Path) -> None:
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    for speaker in ("01", "02"):
        shutil.rmtree(corpus / f"speaker_{speaker}")
    train = ("train", "--corpus", "synthetic", "--root", corpus, "--out", out, *TINY)
    assert "the train part of folds-4:1 has no clip" in complain(*train)
    assert "split folds-1 is not paper, published or folds-N:K" in complain(*train, "--split", "folds-1")
    assert "split paper divides the actors of ravdess, found synthetic" in complain(*train, "--split", "paper")


def test_emotions_that_a_corpus_has_not(
    tmp_path: Path, complain: Complain, voices: Path, make_checkpoint: Callable[..., Path], out: Path
) -> None:
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    for path in corpus.rglob("synthetic-*"):
        if "-angry-" not in path.name:
            path.unlink()
    glad = make_checkpoint("data.emotions=[happy, sad]")
    said = "has no clip of happy, sad; found angry; choose other data"
    assert said in complain("evaluate", "--checkpoint", glad, "--corpus", "synthetic", "--root", corpus, "--out", out)
    words = ("train", "--corpus", "synthetic", "--root", corpus, "--out", out, *TINY, "data.emotions=[happy, sad]")
    assert said in complain(*words)


# --- rooms ---------------------------------------------------------------------------------------------------------


def some_bank(path: Path, mics: int = 3, sample_rate: int = 16000) -> Path:
    taps = np.random.default_rng(1).normal(0, 0.1, (mics, 2000)).astype(np.float32)
    write_bank(path, [Rir(taps, sample_rate, "Hall"), Rir(taps, sample_rate, "Office")])
    return path


def test_a_bank_that_does_not_fit(
    tmp_path: Path, complain: Complain, voices: Path, checkpoint: Path, bank: Bank, out: Path
) -> None:
    corpus = ("--corpus", "synthetic", "--root", voices, "--out", out)
    for command in (("train", *corpus, *TINY), ("evaluate", "--checkpoint", checkpoint, *corpus)):
        slow = some_bank(tmp_path / "slow", sample_rate=8000)
        assert f"{slow} holds responses at 8000 Hz, 16000 Hz were requested" in complain(*command, "--rirs", slow)
        assert "does not exist; expected an RIR bank" in complain(*command, "--rirs", tmp_path / "nosuch")
        assert "holds nothing; expected an RIR bank" in complain(*command, "--rirs", empty(tmp_path / "empty"))
        assert "is a file; expected an RIR bank" in complain(*command, "--rirs", bank.path / "taps.npy")
    few = some_bank(tmp_path / "few", mics=2)
    assert f"{few} has 2 microphones, 3 were requested" in complain("train", *corpus, *TINY, "--rirs", few)
    evaluate = ("evaluate", "--checkpoint", checkpoint, *corpus, "--rirs")
    assert "both have a room" in complain(*evaluate, bank.path, shutil.copytree(bank.path, tmp_path / "copy"))


def empty(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("file", ["taps.npy", "rirs.parquet"])
def test_a_truncated_bank(
    tmp_path: Path, complain: Complain, voices: Path, bank: Bank, out: Path, file: str, kept: float
) -> None:
    broken = shutil.copytree(bank.path, tmp_path / "bank") / file
    content = broken.read_bytes()
    broken.write_bytes(content[: int(kept * len(content))])
    words = ("train", "--corpus", "synthetic", "--root", voices, "--out", out, *TINY, "--rirs", broken.parent)
    line = complain(*words)
    assert line.startswith(str(broken))
    assert "make the bank again" in line


def test_a_simulation_that_cannot_be(tmp_path: Path, complain: Complain) -> None:
    simulate = ("rooms", "simulate", "--workers", 1, "--out", tmp_path / "bank")
    for wrong, said in (
        (("--count", 0, "--mics", 1), "--count is 0, expected 1 or more"),
        (("--count", 1, "--mics", 0), "--mics is 0, expected 1 or more"),
        (("--count", 1, "--mics", 1, "--seed", -1), "--seed is -1, expected 0 or more"),
        (("--count", 1, "--mics", 1, "simulation.t60_s=[1.3, 0.2]"), "expected a range with its lower end first"),
        (("--count", 1, "--mics", 1, "simulation.distance_m=[50, 60]"), "no room has space for distance_m"),
    ):
        assert said in complain(*simulate, *wrong)
        assert not (tmp_path / "bank").exists()


def test_responses_that_are_none(tmp_path: Path, complain: Complain, out: Path) -> None:
    importing = ("rooms", "import", "folder", "--out", out, "--root")
    root = empty(tmp_path / "rirs")
    assert "has no room response" in complain(*importing, root)
    assert "--sample-rate is 0, expected 8000 or more" in complain(*importing, root, "--sample-rate", 0)
    for make, said in (HEADERS_TELL | SAMPLES_TELL)["text"], SAMPLES_TELL["silent"], SAMPLES_TELL["nan"]:
        make(root / "1.wav")
        assert complain(*importing, root).startswith(f"{root / '1.wav'} {said}")
    three_hours(root / "1.wav")
    assert "lasts 10800 s, a room response at most 20 s" in complain(*importing, root)


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_not_there(tmp_path: Path, complain: Complain, clip: Path, checkpoint: Path) -> None:
    line = complain("predict", clip, "--checkpoint", tmp_path / "nosuch")
    assert f"{tmp_path / 'nosuch'} does not exist; expected the best/ folder of a farfeel train run" in line
    assert "has no model.safetensors and no recipe.yaml" in complain("predict", clip, "--checkpoint", tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_a_checkpoint_cut_off(tmp_path: Path, complain: Complain, clip: Path, checkpoint: Path, kept: float) -> None:
    broken = shutil.copytree(checkpoint, tmp_path / "best") / "model.safetensors"
    content = broken.read_bytes()
    broken.write_bytes(content[: int(kept * len(content))])
    assert f"{broken} is damaged or cut off" in complain("predict", clip, "--checkpoint", broken.parent)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("", "recipe.yaml holds no recipe"),
        ("train: [", "recipe.yaml cannot be read"),
        ("trian: {epochs: 3}", "unknown key trian.epochs; did you mean train.epochs?"),
        ("name: tiny", "does not fit its own recipe.yaml"),
    ],
)
def test_a_checkpoint_with_another_recipe(
    tmp_path: Path, complain: Complain, clip: Path, checkpoint: Path, recipe: str, said: str
) -> None:
    broken = shutil.copytree(checkpoint, tmp_path / "best")
    (broken / "recipe.yaml").write_text(recipe)
    line = complain("predict", clip, "--checkpoint", broken)
    assert str(broken) in line
    assert said in line


def test_checkpoints_that_do_not_belong_together(
    complain: Complain, clip: Path, voices: Path, checkpoint: Path, make_checkpoint: Callable[..., Path], out: Path
) -> None:
    glad, summing = make_checkpoint("data.emotions=[happy, sad]"), make_checkpoint("microphones.strategy=sum-patches")
    said = "the checkpoints know different emotions (neutral, calm"
    assert said in complain("predict", clip, "--checkpoint", checkpoint, "--checkpoint", glad)
    corpus = ("--corpus", "synthetic", "--root", voices, "--out", out)
    assert said in complain("evaluate", "--checkpoint", checkpoint, glad, *corpus)
    assert "the checkpoint takes 3 microphones; choose them with --mics 0,1" in complain(
        "predict", clip, "--checkpoint", summing
    )
    assert f"{glad} has another data.emotions than" in complain("average", checkpoint, glad, "--out", out)
    assert "has another microphones.strategy than" in complain("average", checkpoint, summing, "--out", out)


def test_a_gpu_that_is_not_there(complain: Complain, clip: Path, checkpoint: Path) -> None:
    line = complain("predict", clip, "--checkpoint", checkpoint, "--device", f"cuda:{torch.cuda.device_count()}")
    assert "but PyTorch finds" in line
    assert line.endswith("remove --device to use the hardware that is available")


# --- recipes and runs ----------------------------------------------------------------------------------------------


def test_a_recipe_with_a_mistyped_key(tmp_path: Path, complain: Complain, voices: Path, out: Path) -> None:
    train = ("train", "--corpus", "synthetic", "--root", voices, "--out", out)
    (tmp_path / "mine.yaml").write_text("train: {epohcs: 3}")
    said = f"{tmp_path / 'mine.yaml'}: unknown key train.epohcs; did you mean train.epochs?"
    assert complain(*train, "--recipe", tmp_path / "mine.yaml") == said
    assert complain(*train, *TINY, "augmnet.mixup=1") == "tiny: unknown key augmnet.mixup; did you mean augment.mixup?"
    assert "override 'train.epochs' is not of the form" in complain(*train, *TINY, "train.epochs")
    assert "train.epochs is 0, expected greater than or equal to 1" in complain(*train, *TINY, "--epochs", 0)
    assert "t60_s is [2.0, 1.0], expected a range" in complain(*train, *TINY, "simulation.t60_s=[2, 1]")
    assert "did you mean tiny?" in complain(*train, "--recipe", "tinny")


def test_weights_to_begin_with_that_are_none(complain: Complain, voices: Path, out: Path) -> None:
    train = ("train", "--corpus", "synthetic", "--root", voices, "--out", out, *TINY, "--init")
    assert "nosuch does not exist; expected a weights file" in complain(*train, "nosuch")
    assert "has no model.safetensors and no recipe.yaml" in complain(*train, voices)


def test_a_run_is_neither_begun_again_nor_resumed_with_another_recipe(
    tmp_path: Path, complain: Complain, capsys: pytest.CaptureFixture[str], voices: Path
) -> None:
    words = ["train", "--corpus", "synthetic", "--root", voices, "--out", tmp_path / "run", *TINY]
    assert main([str(word) for word in words]) == 0
    capsys.readouterr()
    before = snapshot(tmp_path)
    assert "already holds a run; add --resume to continue it, choose another --out" in complain(*words)
    line = complain(*words, "--resume", "train.learning_rate=0.5")
    assert "was trained with another recipe (train.learning_rate 0.001, requested 0.5); resume with the same" in line
    assert snapshot(tmp_path) == before


# --- places to write -----------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user's, with names such as ours among its files; it must stay as it is."""
    folder = tmp_path / "theirs"
    for name in ("thesis.txt", "best/holiday.jpg", "top/ten.txt", "taps.npy", "model.safetensors", "report.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("years of work")
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize("inside", ["", "best", "thesis.txt", "thesis.txt/new"])
def test_a_folder_of_the_user_is_never_replaced(
    complain: Complain, theirs: Path, voices: Path, checkpoint: Path, clip: Path, inside: str
) -> None:
    out = ("--out", theirs / inside)
    corpus = ("--corpus", "synthetic", "--root", voices)
    for words in (
        ("evaluate", "--checkpoint", checkpoint, *corpus, *out),
        ("average", checkpoint, checkpoint, *out),
        ("convert", checkpoint / "model.safetensors", "--recipe", "tiny", *out),
        ("rooms", "simulate", "--count", 1, "--mics", 1, "--workers", 1, *out),
        ("rooms", "import", "folder", "--root", clip.parent, *out),
        ("report", f"a={theirs}", f"b={theirs}", *out),
        ("train", *corpus, *TINY, *out),
        ("train", *corpus, *TINY, *out, "--resume"),
    ):
        assert "choose another --out" in complain(*words)


def test_best_and_top_of_the_user_are_not_taken_for_those_of_a_run(
    tmp_path: Path, complain: Complain, theirs: Path, voices: Path
) -> None:
    for mine in ("best", "top"):
        run = shutil.copytree(theirs / mine, tmp_path / mine / mine).parent
        before = snapshot(run)
        line = complain("train", "--corpus", "synthetic", "--root", voices, *TINY, "--out", run)
        assert "which is no part of a run; expected a new folder" in line
        assert snapshot(run) == before


def test_a_file_is_not_put_in_the_place_of_a_folder_or_of_a_recording(
    complain: Complain, theirs: Path, voices: Path, checkpoint: Path, clip: Path
) -> None:
    assert "is a folder, expected a file or a new name" in complain(
        "scan", "synthetic", "--root", voices, "--out", theirs
    )
    predict = ("predict", clip, "--checkpoint", checkpoint, "--out")
    assert "is a folder, expected a file or a new name" in complain(*predict, theirs)
    assert "is an audio or video file, expected the name of a table" in complain(*predict, clip)
    assert "is no file on a disk" in complain("scan", "synthetic", "--root", voices, "--out", "/dev/null")
    assert "--out - is standard output" in complain("scan", "synthetic", "--root", voices, "--out", "-")


def test_the_folder_one_is_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complain: Complain, voices: Path, checkpoint: Path
) -> None:
    monkeypatch.chdir(empty(tmp_path / "here"))
    for words in (
        ("average", checkpoint, checkpoint),
        ("evaluate", "--checkpoint", checkpoint, "--corpus", "synthetic", "--root", voices),
        ("rooms", "simulate", "--count", 1, "--mics", 1),
        ("rooms", "import", "folder", "--root", voices),
    ):
        assert ". is the folder you are in and cannot be replaced" in complain(*words, "--out", ".")
    assert Path.cwd() == tmp_path / "here"


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a disk that fills up is to whoever writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_keeps_what_was_there(
    tmp_path: Path, complain: Complain, voices: Path, checkpoint: Path, clip: Path
) -> None:
    corpus = ("--corpus", "synthetic", "--root", voices)
    for size, words in (
        (100, ("predict", clip, "--checkpoint", checkpoint)),
        (1000, ("evaluate", "--checkpoint", checkpoint, *corpus)),
        (20000, ("average", checkpoint, checkpoint)),
        (20000, ("rooms", "simulate", "--count", 1, "--mics", 2, "--workers", 1)),
    ):
        place = tmp_path / words[0] / "result"
        with disk_of(size):
            line = complain(*words, "--out", place)
        assert "cannot be written (File too large)" in line
        assert line.endswith("nothing half-written is left; free some space or choose another folder")
        assert not place.exists()
        assert not list(place.parent.glob(".result.[0-9]*")), "a partial file is left"


def test_a_disk_that_fills_up_in_training_leaves_what_was_whole(
    tmp_path: Path, complain: Complain, capsys: pytest.CaptureFixture[str], voices: Path
) -> None:
    words = ["train", "--corpus", "synthetic", "--root", voices, "--out", tmp_path / "run", *TINY]
    with disk_of(100_000):
        assert "cannot be written (File too large)" in complain(*words)
    assert not (tmp_path / "run" / "last.ckpt").exists()
    assert not list(tmp_path.rglob(".*"))
    assert main([str(word) for word in words]) == 0  # the folder is ours, and nothing in it is in the way


@pytest.mark.parametrize("kind", HEADERS_TELL)
def test_a_clip_that_training_leaves_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], voices: Path, kind: str
) -> None:
    make, said = HEADERS_TELL[kind]
    corpus, bad = spoiled(voices, tmp_path / "corpus", make)
    words = ["train", "--corpus", "synthetic", "--root", corpus, "--out", tmp_path / "run", *TINY]
    assert main([str(word) for word in words]) == 0
    assert capsys.readouterr().err.splitlines()[0].startswith(f"left out: {bad} {said}")


def test_checkpoints_of_different_sample_rates_are_no_ensemble(
    complain: Complain, clip: Path, checkpoint: Path, make_checkpoint: Callable[..., Path]
) -> None:
    slow = make_checkpoint("audio.sample_rate=8000", "audio.fmax_hz=4000")
    assert complain("predict", clip, "--checkpoint", checkpoint, "--checkpoint", slow) == (
        "the checkpoints have sample rates of 16000 and 8000 Hz; an ensemble needs the same; "
        "load checkpoints that agree"
    )


@pytest.mark.parametrize(
    "content", [b"", b"hello\n" * 100, b"RIFF....WAVEfmt " * 9, b"\x80\x02}q\x00.", b"PK\x03\x04", bytes(range(256))]
)
def test_a_file_that_holds_no_weights(tmp_path: Path, complain: Complain, out: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    line = complain("convert", tmp_path / "weights.pt", "--recipe", "tiny", "--out", out)
    assert line.startswith(f"{tmp_path / 'weights.pt'} ")


def test_a_file_whose_weights_have_no_names(tmp_path: Path, complain: Complain, out: Path) -> None:
    torch.save({1: torch.zeros(1)}, tmp_path / "weights.pt")
    assert "holds no named tensors" in complain("convert", tmp_path / "weights.pt", "--out", out)
    assert "is a folder; expected a weights file" in complain("convert", tmp_path, "--out", out)


def test_ranges_that_cannot_be_met_are_not_in_the_way_of_those_that_can(tmp_path: Path, complain: Complain) -> None:
    words = ["rooms", "simulate", "--count", 1, "--mics", 1, "--workers", 1, "--out", tmp_path / "bank"]
    assert "no room has space" in complain(*words, "simulation.distance_m=[50, 60]")
    assert main([str(word) for word in words]) == 0


def test_a_rate_that_makes_the_loss_explode(tmp_path: Path, complain: Complain, voices: Path) -> None:
    words = ("train", "--corpus", "synthetic", "--root", voices, "--out", tmp_path / "run", *TINY)
    assert "the loss is no longer finite" in complain(*words, "train.learning_rate=1e9", "train.batch_size=4")


def test_a_state_that_does_not_fit_on_the_disk_is_one_line(tmp_path: Path, complain: Complain, voices: Path) -> None:
    words = ("train", "--corpus", "synthetic", "--root", voices, "--out", tmp_path / "run", *TINY)
    with disk_of(600_000):  # more than the weights, less than the weights with the optimiser's state
        assert "last.ckpt cannot be written (File too large)" in complain(*words)


# --- films ---------------------------------------------------------------------------------------------------------


Recognise = Callable[..., dict[str, Any]]


def film(
    path: Path,
    size: tuple[int, int] = (32, 48),
    count: int = 20,
    fps: int = 10,
    codec: str = "libx264",
    heard_s: float = 0.0,
    whole: bool = True,
) -> Path:
    """A film of `count` frames of height and width `size`, with sound of `heard_s` seconds: GIF or, under whatever
    name, MP4."""
    with av.open(str(path), "w", format="gif" if path.suffix == ".gif" else "mp4") as output:
        picture: Any = output.add_stream(codec, rate=fps)
        picture.height, picture.width = size
        picture.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        picture.thread_count = 1
        voice: Any = output.add_stream("aac", rate=16000, layout="mono") if heard_s else None
        output.start_encoding()  # writes the header of a film without frames, too
        for number in range(count):
            grey = np.full((*size, 3), 50 + 100 * number // count, dtype=np.uint8)
            output.mux(picture.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        output.mux(picture.encode(None))
        if voice:
            samples = np.zeros((1, round(heard_s * 16000)), dtype=np.float32)
            samples[:, :32000] = np.random.default_rng(1).normal(0, 0.1, samples[:, :32000].shape)
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            block.sample_rate = 16000
            output.mux([*voice.encode(block), *voice.encode(None)])
    return path if whole else cut(path)


@pytest.fixture(scope="session")
def seeing(make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint of sound and film."""
    return make_checkpoint("modalities=both", "video.size=32", "video.width=4", "fusion.hidden=16")


@pytest.fixture
def recognise(capsys: pytest.CaptureFixture[str], seeing: Path) -> Recognise:
    """Predict what must work; what is said of it."""

    def run(*words: object) -> dict[str, Any]:
        assert main([str(word) for word in ("predict", *words, "--checkpoint", seeing, "--format", "json")]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        (found,) = json.loads(said.out)
        return found

    return run


@pytest.fixture
def handles() -> Iterator[None]:
    """No file may be open afterwards that was not before."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        yield
        return
    before = len(list(folder.iterdir()))
    yield
    assert len(list(folder.iterdir())) <= before  # what other tests left may go meanwhile


BAD_FILMS = {
    "text": (lambda path: path.write_text("no film\n" * 100), "cannot be read as video"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes), expected a video"),
    "no frame": (lambda path: film(path, count=0), "contains neither video nor audio"),
    "cut": (lambda path: film(path, (64, 64), heard_s=2.0, whole=False), "cannot be read as video"),
    "one pixel": (
        lambda path: path.write_bytes(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()),
        "has pictures of 1×1 pixels, expected 16×16 or more; use another video",
    ),
    "an hour": (
        lambda path: film(path, count=3600, fps=1),
        "lasts 60 minutes, expected at most 10; cut it into clips",
    ),
    "long, with sound": (
        lambda path: film(path, count=660, fps=1, heard_s=660.0),
        "lasts 11 minutes, expected at most 10; cut it into clips",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILMS)
@pytest.mark.usefixtures("handles")
def test_a_film_that_cannot_be_recognised(
    tmp_path: Path, complain: Complain, seeing: Path, out: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make, said = BAD_FILMS[kind]
    make(tmp_path / "clip.mp4")
    monkeypatch.setattr(face_video, "read_frames", None)  # told before any frame of it is decoded for the model
    line = complain("predict", tmp_path / "clip.mp4", "--checkpoint", seeing, "--out", out)
    assert line.startswith(f"{tmp_path / 'clip.mp4'} {said}")
    assert line.count("clip.mp4") == 1


GOOD_FILMS = {
    "with sound": ("clip.mp4", lambda path: film(path, heard_s=2.0), ["audio", "video"]),
    "without sound": ("clip.mp4", film, ["video"]),
    "sound alone": ("clip.wav", sound, ["audio"]),
    "a film called WAV": ("clip.wav", lambda path: film(path, heard_s=2.0), ["audio", "video"]),
    "a film without a suffix": ("clip", film, ["video"]),
    "sound called MP4": (
        "clip.mp4",
        lambda path: sound(path.with_suffix(".wav")).rename(path),
        ["audio"],
    ),
    "8K": ("clip.mp4", lambda path: film(path, (4320, 7680), count=2, fps=1, codec="mjpeg"), ["video"]),
    "animated": ("clip.gif", lambda path: film(path, codec="gif"), ["video"]),
    "a photograph": ("clip.jpg", lambda path: cv2.imwrite(str(path), np.full((48, 64, 3), 90, np.uint8)), ["video"]),
    "one frame": ("clip.mp4", lambda path: film(path, count=1), ["video"]),
}


@pytest.mark.parametrize("kind", GOOD_FILMS)
@pytest.mark.usefixtures("handles")
def test_a_film_out_of_the_ordinary_is_recognised(tmp_path: Path, recognise: Recognise, kind: str) -> None:
    name, make, modalities = GOOD_FILMS[kind]
    make(tmp_path / name)
    found = recognise(tmp_path / name, "--face", "whole")
    assert found["modalities"] == modalities
    assert found["warnings"] == []
    assert sum(found["probabilities"].values()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.usefixtures("handles")
def test_a_minute_of_film_is_never_whole_in_memory(
    tmp_path: Path, recognise: Recognise, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], face_video.read_frames

    def counted(path: Path, moments: list[float]) -> object:
        asked.append(len(moments))
        return read(path, moments)

    monkeypatch.setattr(face_video, "read_frames", counted)
    found = recognise(film(tmp_path / "minute.mp4", count=120, fps=2), "--face", "whole")
    assert found["end_s"] == 60
    assert max(asked) == 2  # as many as a window has


def test_films_asked_for_in_ways_that_cannot_be(
    tmp_path: Path, complain: Complain, capsys: pytest.CaptureFixture[str], checkpoint: Path, seeing: Path, clip: Path
) -> None:
    one, two = film(tmp_path / "one.mp4"), film(tmp_path / "two.mp4")
    see = ("--checkpoint", seeing)
    assert complain("predict", one, two, "--audio", clip, *see).startswith(
        "--audio belongs to one video, 2 files are named; predict them one by one"
    )
    assert "nosuch.onnx is not a file, expected a YuNet model" in complain(
        "predict", one, "--face-model", "nosuch.onnx", *see
    )
    assert f"{clip} cannot be read as a network" in complain("predict", one, "--face-model", clip, *see)
    assert "the checkpoint takes audio, --modalities asks for video; remove --modalities" in complain(
        "predict", one, "--modalities", "video", "--checkpoint", checkpoint
    )
    assert "has audio but no video" in complain("predict", clip, "--modalities", "video", *see)
    assert "has audio but no video" in complain("predict", clip, "--timeline", "--modalities", "video", *see)
    assert "has video but no audio" in complain("predict", one, "--modalities", "audio", *see)
    assert "has video but no audio" in complain("predict", one, "--checkpoint", checkpoint)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("nothing to see")
    assert "has no recording (.wav, " in complain("predict", tmp_path / "notes", *see)
    assert "does not exist; expected a video file" in complain("predict", tmp_path / "nosuch.mp4", *see)
    for wrong in (("--camera-off", "2"), ("--modalities", "smell")):
        with pytest.raises(SystemExit) as usage:
            main(["evaluate", *map(str, see), "--corpus", "synthetic", "--out", str(tmp_path / "out"), *wrong])
        assert usage.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_cameras_cannot_be_off_where_nothing_else_is(
    complain: Complain, make_checkpoint: Callable[..., Path], checkpoint: Path, seeing: Path, voices: Path, out: Path
) -> None:
    blind = make_checkpoint("modalities=video", "video.size=32", "video.width=4")
    evaluate = ("evaluate", "--corpus", "synthetic", "--root", voices, "--out", out, "--checkpoint")
    said = "--camera-off needs a test with audio and video, but this one uses only video"
    assert said in complain(*evaluate, blind, "--camera-off", 0.5)
    assert said in complain(*evaluate, seeing, "--modalities", "video", "--camera-off", 0.5)
    assert "uses only video, but --modalities is audio" in complain(*evaluate, blind, "--modalities", "audio")
    assert "uses only audio, but --modalities is video" in complain(*evaluate, checkpoint, "--modalities", "video")
    assert "an ensemble needs the same" in complain(*evaluate, blind, "--checkpoint", seeing)
