"""Laws of exported models: they answer as PyTorch does, for any batch, any microphones and any missing modality."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml

from farfeel.cli import export as command_line
from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import LogMel
from farfeel.recipe import Recipe, load_recipe
from farfeel.recognise import export
from farfeel.recognise.engines.onnx import OnnxEngine
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import DEFAULT, Recognizer
from farfeel.types import FarfeelError
from untrained import as_if_learned

# An export takes ten seconds: one model of audio and video checks most laws.
Small = Callable[..., Recipe]
CARD = "# small\n\nLicence of the data, which the weights inherit: CC BY.\n"


def untrained(recipe: Recipe) -> EmotionModel:
    return as_if_learned(recipe, (0.05, 0.1, 0.2))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, small: Small) -> Path:
    model = untrained(small("modalities=both", "microphones.strategy=normalised-sum"))
    folder = tmp_path_factory.mktemp("checkpoint") / "best"
    save_checkpoint(folder, model.state_dict(), model.recipe, CARD)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export.export(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def engines(checkpoint: Path, exported: Path) -> tuple[TorchEngine, OnnxEngine]:
    return TorchEngine.load(checkpoint), OnnxEngine(exported, threads=1)


def speech(voices: Path, count: int) -> list[Path]:
    return sorted(voices.rglob("*.flac"))[:count]


Inputs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def noise(recipe: Recipe, clips: int, mics: int) -> Inputs:
    """Audio and video of every clip."""
    rng, video = np.random.default_rng(clips), recipe.video
    samples = round(recipe.audio.seconds * recipe.audio.sample_rate)
    return (
        0.1 * rng.standard_normal((clips, mics, samples), dtype=np.float32),
        np.ones((clips, mics), dtype=bool),
        rng.integers(0, 256, (clips, video.frames, video.size, video.size, 3), dtype=np.uint8),
        np.ones(clips, dtype=bool),
    )


@pytest.mark.parametrize(("clips", "mics"), [(1, 1), (5, 2), (3, 7)])
def test_any_batch_of_any_microphones_equals_pytorch(
    engines: tuple[TorchEngine, OnnxEngine], clips: int, mics: int
) -> None:
    ours, theirs = engines
    given = noise(ours.recipe, clips, mics)
    np.testing.assert_allclose(theirs.probabilities(*given), ours.probabilities(*given), atol=1e-5)


def test_missing_modalities_equal_pytorch_and_have_no_influence(engines: tuple[TorchEngine, OnnxEngine]) -> None:
    ours, theirs = engines
    audio, mic_mask, frames, seen = noise(ours.recipe, 5, 3)
    mic_mask[1], seen[2], mic_mask[3], seen[3] = False, False, False, False
    mic_mask[4, 1] = False
    expected = ours.probabilities(audio, mic_mask, frames, seen)
    assert len(np.unique(expected.round(4), axis=0)) == len(expected)
    audio[~mic_mask], frames[~seen] = np.nan, 255
    np.testing.assert_allclose(theirs.probabilities(audio, mic_mask, frames, seen), expected, atol=1e-5)
    unseen = np.zeros(5, dtype=bool)
    np.testing.assert_allclose(
        theirs.probabilities(audio, mic_mask, None, unseen),
        ours.probabilities(audio, mic_mask, None, unseen),
        atol=1e-5,
    )


def test_speech_equals_pytorch(engines: tuple[TorchEngine, OnnxEngine], voices: Path) -> None:
    for path in speech(voices, 3):
        ours, theirs = (Recognizer([engine]).predict(path).probabilities for engine in engines)
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize("mics", [1, 3, 7])
def test_the_two_files_in_the_package_are_one_model(mics: int) -> None:
    ours, theirs = TorchEngine.load(DEFAULT), OnnxEngine(DEFAULT / "model.onnx", threads=1)
    assert theirs.recipe == ours.recipe
    np.testing.assert_allclose(theirs.temperature, ours.temperature, rtol=1e-6)
    audio, mic_mask, frames, seen = noise(ours.recipe, 3, mics)
    for given in ((audio, mic_mask, frames, seen), (audio, mic_mask, None, np.zeros_like(seen))):
        np.testing.assert_allclose(theirs.probabilities(*given), ours.probabilities(*given), rtol=0, atol=1e-3)


def test_the_checkpoint_in_the_package_is_small() -> None:
    assert sum(path.stat().st_size for path in DEFAULT.iterdir()) <= 30e6


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 160), (400, 150), (401, 160)])
def test_the_folded_transform_is_the_fourier_transform(n_fft: int, hop: int) -> None:
    audio = load_recipe("tiny", [f"audio.n_fft={n_fft}", f"audio.hop={hop}"]).audio
    signal = torch.randn(2, 3, 16001, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 0, 3)[:, None]
    torch.testing.assert_close(export.FoldedLogMel(audio)(signal), LogMel(audio)(signal), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "inputs"),
    [
        (["modalities=video"], ["frames"]),
        # 64 frames, as many as the image has: PyTorch resizes nothing.
        (["microphones.strategy=sum-patches", "audio.seconds=1.27"], ["audio", "mic_mask"]),
    ],
)
def test_every_kind_of_model_is_exported(tmp_path: Path, small: Small, overrides: list[str], inputs: list[str]) -> None:
    model = untrained(small(*overrides))
    save_checkpoint(tmp_path / "best", model.state_dict(), model.recipe, CARD)
    report = export.export(tmp_path / "best", tmp_path / "model.onnx")  # compared with PyTorch
    assert list(report.inputs) == inputs
    if "sum-patches" in overrides[0]:
        audio, mic_mask, _, seen = noise(model.recipe, 1, 2)
        with pytest.raises(FarfeelError, match="2 microphones"):
            OnnxEngine(tmp_path / "model.onnx").probabilities(audio, mic_mask, None, seen)


def test_the_file_describes_itself_without_a_path(exported: Path, checkpoint: Path) -> None:
    proto = onnx.load(exported)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    recipe = TorchEngine.load(checkpoint).recipe
    assert metadata["emotions"].split(",") == list(recipe.data.emotions)
    assert (metadata["sample_rate"], metadata["seconds"], metadata["modalities"]) == ("16000", "1.28", "both")
    assert metadata["licence"] == "Licence of the data, which the weights inherit: CC BY."
    assert Recipe.model_validate(yaml.safe_load(metadata["recipe"])) == recipe
    assert str(Path(export.__file__).parent).encode() not in exported.read_bytes()


def test_eight_bits_are_near_pytorch_and_nan_stays_in_its_clip(
    engines: tuple[TorchEngine, OnnxEngine], exported: Path, tmp_path: Path
) -> None:
    small = export.quantised(onnx.load(exported))
    assert small.ByteSize() < exported.stat().st_size
    (tmp_path / "model.onnx").write_bytes(small.SerializeToString())
    audio, mic_mask, frames, seen = noise(engines[0].recipe, 4, 2)
    mic_mask[1] = False
    audio[1] = np.nan
    expected = engines[0].probabilities(audio, mic_mask, frames, seen)
    found = OnnxEngine(tmp_path / "model.onnx").probabilities(audio, mic_mask, frames, seen)
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_weights_in_sixteen_bits_are_half_the_file_and_the_same_model(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda _: onnx.load(exported))  # has been done above
    report = export.export(checkpoint, tmp_path / "model.onnx", "float16")
    assert 1e-6 < report.difference < 5e-3  # not the same file again
    kept = [
        sum(each.ByteSize() for each in onnx.load(path).graph.initializer if not each.name.startswith("model.logmel."))
        for path in (tmp_path / "model.onnx", exported)
    ]
    assert kept[0] < 0.6 * kept[1]


def test_a_model_that_differs_is_not_written(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.load(exported)
    (bias,) = (each for each in wrong.graph.initializer if each.name == "model.classifier.video_head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32([1] + 7 * [0]), bias.name))
    monkeypatch.setattr(export, "to_onnx", lambda _: wrong)
    with pytest.raises(FarfeelError, match="differs from PyTorch by"):
        export.export(checkpoint, tmp_path / "out" / "model.onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_writes_compares_and_reports(
    checkpoint: Path,
    exported: Path,
    voices: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda _: onnx.load(exported))  # has been done above
    command = command_line.COMMANDS[0]
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    clips = [str(path) for path in speech(voices, 2)]
    out = tmp_path / "model.onnx"
    command.run(parser.parse_args(["--checkpoint", str(checkpoint), "--out", str(out), "--quantise", *clips]))
    said = capsys.readouterr().out
    assert "largest difference of a probability to PyTorch" in said
    assert "of 2 recordings" in said
    assert OnnxEngine(out).recipe.modalities == "both"
    with pytest.raises(FarfeelError, match="suffix"):
        command.run(parser.parse_args(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "model.bin")]))


def test_a_file_is_recognised_without_pytorch(
    exported: Path, engines: tuple[TorchEngine, OnnxEngine], voices: Path
) -> None:
    (clip,) = speech(voices, 1)
    script = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'lightning_fabric', 'onnx'): sys.modules[name] = None\n"
        "from farfeel.recognise.recognizer import Recognizer\n"
        f"found = Recognizer.load({str(exported)!r}, engine='onnx').predict({str(clip)!r})\n"
        "print(*found.probabilities)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = Recognizer([engines[0]]).predict(clip).probabilities
    np.testing.assert_allclose([float(word) for word in done.stdout.split()], expected, atol=1e-5)
