"""Laws of the paper's recipes: published weights of audio and video, RAVDESS's videos, rooms; all of them small."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from farfeel.cli import main
from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.corpora.video_files import write_video
from farfeel.evaluate.table import read_predictions
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.reference import our_name
from farfeel.recipe import load_recipe
from farfeel.rooms.bank import Bank
from farfeel.training import run as workflow
from farfeel.types import FarfeelError

SMALL = [
    *("audio.seconds=1.28", "model.image_frames=64", "model.embed_dim=8", "model.depths=[1,1]", "model.heads=[1,2]"),
    *("video.network=compact", "video.width=4", "video.blocks=[2,2,2,2]", "video.frames=4"),
    *("video.size=48", "video.train_size=32", "fusion.hidden=16", "train.learning_rate=1e-9"),  # learns nothing
]
TRAIN = ["--split", "paper", "--epochs", "1", "--batch-size", "2"]


@pytest.fixture(scope="module")
def ravdess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four actors in RAVDESS's layout, two utterances each: audio (03) and video without it (02)."""
    root, rng = tmp_path_factory.mktemp("ravdess"), np.random.default_rng(1)
    for actor in ("01", "02", "19", "22"):
        folder = root / f"Actor_{actor}"
        folder.mkdir()
        for emotion in ("03", "05"):
            utterance = f"01-{emotion}-01-01-01-{actor}"
            soundfile.write(folder / f"03-{utterance}.wav", rng.normal(0, 0.1, 24000), 16000)
            write_video(folder / f"02-{utterance}.mp4", rng.integers(0, 255, (15, 36, 64, 3), dtype=np.uint8), 10)
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights by the names of HTS-AT (527 classes, as Lightning keeps them) and of torchvision (400 classes)."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(5)
    ours = EmotionModel(load_recipe("paper-av", SMALL)).state_dict()
    later = r"^layers\.(\d+)\.downsample"
    audio_weights = {
        "sed_model." + re.sub(later, lambda at: f"layers.{int(at[1]) - 1}.downsample", name): tensor
        for name, tensor in ((re.sub(r"^hearing\.0\.(swin\.)?", "", n), t) for n, t in ours.items() if "hearing" in n)
    }
    audio_weights |= {
        "sed_model.tscam_conv.weight": torch.zeros(527, 16, 8, 3),
        "sed_model.tscam_conv.bias": torch.zeros(527),
    }
    assert {our_name(name) for name in audio_weights} == {name for name in ours if name.startswith("hearing.")}
    torch.save({"epoch": 1, "state_dict": audio_weights, "optimizer_states": []}, folder / "audioset.ckpt")
    video_weights = {n.removeprefix("video.network."): tensor for n, tensor in ours.items() if n.startswith("video.")}
    del video_weights["fc.1.weight"], video_weights["fc.1.bias"]
    torch.save(
        video_weights | {"fc.weight": torch.zeros(400, 32), "fc.bias": torch.zeros(400)}, folder / "r2plus1d_18.pth"
    )
    return folder / "audioset.ckpt", folder / "r2plus1d_18.pth"


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_paper_av_goes_from_published_weights_to_a_report(
    tmp_path: Path, ravdess: Path, published: tuple[Path, Path], bank: Bank, capsys: pytest.CaptureFixture[str]
) -> None:
    audioset, kinetics = published
    corpus = ("--corpus", "ravdess", "--root", ravdess, "--rirs", bank.path)
    start = ("--init", audioset, "--video-weights", kinetics)
    run("train", "--recipe", "paper-av", *corpus, *start, *TRAIN, "--out", tmp_path / "run", *SMALL)
    printed = capsys.readouterr().err
    assert "4 training clips, 2 validation clips, split paper" in printed
    assert "HTS-AT pretrained on AudioSet" in printed
    state = load_checkpoint(tmp_path / "run" / "best").state_dict()
    for file, wrapped in ((audioset, "state_dict"), (kinetics, None)):
        content = torch.load(file, weights_only=True)
        for name, tensor in (content[wrapped] if wrapped else content).items():
            kept = our_name(name if wrapped else f"video.network.{name}")
            if not re.search(r"tscam_conv|fc\.|running|num_batches", name):  # heads are ours, statistics move
                torch.testing.assert_close(state[kept], tensor, atol=1e-6, rtol=0)
    tables = {}
    for name, how in {"both": (), "audio": ("--modalities", "audio"), "off": ("--camera-off", "1")}.items():
        out = tmp_path / name
        run("evaluate", "--checkpoint", tmp_path / "run" / "best", *corpus, "--mics", "0,1,2", *how, "--out", out)
        tables[name] = read_predictions(out)
    assert set(tables["both"].speaker) == {"22"}
    columns = [name for name in tables["both"] if name.startswith("p_")]
    np.testing.assert_allclose(tables["off"][columns], tables["audio"][columns], atol=1e-6)
    assert np.abs(tables["both"][columns] - tables["audio"][columns]).max(axis=None) > 1e-6
    run("report", *(f"{name}={tmp_path / name}" for name in tables), "--out", tmp_path / "report")
    video = ravdess / "Actor_22" / "02-01-03-01-01-01-22.mp4"
    run("predict", video, "--checkpoint", tmp_path / "run" / "best", "--face", "whole")


@pytest.mark.parametrize("how", ["a file of sound alone", "killed in its first epoch"])
def test_a_face_branch_without_weights_starts_from_kinetics(
    tmp_path: Path, ravdess: Path, published: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def asked() -> dict[str, torch.Tensor]:
        raise FarfeelError("asked for Kinetics")

    monkeypatch.setattr(workflow, "kinetics_weights", asked)
    recipe = load_recipe("paper-av", [*SMALL, "video.network=r2plus1d_18"])
    split = split_clips(load_clips("ravdess", ravdess), "paper")
    init = published[0] if how.startswith("a file") else None
    with pytest.raises(FarfeelError, match="asked for Kinetics"):
        workflow.run_training(recipe, split.train, split.val, None, tmp_path, resume=not init, init=init)


@pytest.mark.parametrize(
    ("which", "option", "overrides", "said"),
    [
        (0, "--init", ["model.depths=[1,3]", "model.embed_dim=16"], "tensors fit this recipe's hearing.0, expected"),
        (1, "--video-weights", ["video.width=8"], "tensors fit this recipe's video, expected weights of the same"),
        (1, "--init", [], "found stem.0.weight; name R(2+1)D weights with --video-weights"),
        (0, "--video-weights", [], "found sed_model.bn0.weight; name HTS-AT with --init"),
    ],
)
def test_weights_of_another_network_are_one_clear_line(
    tmp_path: Path,
    ravdess: Path,
    published: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    which: int,
    option: str,
    overrides: Sequence[str],
    said: str,
) -> None:
    words = ["train", "--recipe", "paper-av", "--corpus", "ravdess", "--root", ravdess, option, published[which]]
    assert main([str(word) for word in [*words, "--out", tmp_path / "run", *SMALL, *overrides]]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("farfeel: error: ")
    assert said in last
    assert not (tmp_path / "run").exists()
