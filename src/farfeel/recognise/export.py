"""ONNX: one file from waveform and frames to calibrated probabilities, and the proof that it equals PyTorch.

    audio (B, M, T) float32, mic_mask (B, M) bool, frames (B, N, S, S, 3) uint8, seen (B,) bool -> probabilities (B, K)

A model of audio takes the first two, one of video takes the frames, one of both takes all four. The batch, the
microphones and the samples may be any number. Only a strategy that takes microphones "as trained", such as
`sum-patches`, needs as many as in training. The metadata hold what a program needs: the emotions, the sample rate, the
seconds of a window, the recipe.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from farfeel import __version__
from farfeel.models.audio_networks import AudioOutput
from farfeel.models.checkpoint import CARD, load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import POWER_FLOOR, LogMel
from farfeel.models.video_networks import to_frames
from farfeel.recipe import Recipe
from farfeel.recognise.engines import Engine
from farfeel.recognise.engines.onnx import CHECKSUM, INPUTS, OURS, OnnxEngine, checksum_entry
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import Recognizer
from farfeel.support.files import replacing_file
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

try:
    import onnx
    import onnxscript  # noqa: F401  # PyTorch's exporter needs it.
except ImportError:
    raise FarfeelError(
        "onnx and onnxscript are not installed; an export needs them; pip install 'farfeel[onnx]'"
    ) from None

OPSET = 20
# Of a probability. float32 sums in another order differ by 1e-6. Weights of 16 bits change some probabilities by 1e-3.
# Weights of 8 bits have no limit: the report shows the difference.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "int8": float("inf")}
SHAPES = ((1, 1), (2, 3), (7, 4))  # B, M of the noise that every export is checked on
DIMENSIONS: dict[str, dict[int, str]] = {
    "audio": {0: "batch", 1: "microphones", 2: "samples"},
    "mic_mask": {0: "batch", 1: "microphones"},
    "frames": {0: "batch"},
    "seen": {0: "batch"},
}


@dataclass(frozen=True)
class Report:
    """What an export made.

    bytes: size of the file. inputs: names of its inputs. difference: the largest difference of any probability to
    PyTorch's, in noise and in the given recordings. agreement: share of the recordings with the same emotion; None
    without recordings.
    """

    bytes: int
    inputs: tuple[str, ...]
    difference: float
    agreement: float | None


def export(checkpoint: Path, out: Path, weights: str = "float32", recordings: Sequence[Path] = ()) -> Report:
    """Write the checkpoint as one ONNX file and compare it with PyTorch, in noise and in the recordings.

    checkpoint: its folder. out: the file to write. weights: float32, float16 (half the size; computation is in 32 bits)
    or int8 (for the linear layers). recordings: files to compare on. Raises FarfeelError, and writes nothing, where a
    probability differs by more than TOLERANCE or a part of the model cannot be exported.
    """
    model = load_checkpoint(checkpoint)
    proto = to_onnx(model)
    if weights == "float16":
        halve(proto)
    elif weights == "int8":
        proto = quantised(proto)
    describe(proto, model.recipe, _licence(checkpoint), weights, model.temperature.tolist())
    with replacing_file(out) as partial:
        content = proto.SerializeToString()
        partial.write_bytes(content + checksum_entry(content))
        ours, theirs = TorchEngine(model), OnnxEngine(partial)
        difference, agreement = _noise_difference(ours, theirs), None
        if recordings:
            in_clips, agreement = _recordings_difference(ours, theirs, recordings)
            difference = float(np.maximum(difference, in_clips))  # NaN stays NaN
        if not difference <= TOLERANCE[weights]:  # NaN is no agreement either.
            raise FarfeelError(
                f"the exported model differs from PyTorch by {difference:.1e}, expected "
                f"{TOLERANCE[weights]:g} at most; nothing is written; try the versions of torch, onnxscript and "
                "onnxruntime in constraints.txt"
            )
        size = partial.stat().st_size
    return Report(size, tuple(entry.name for entry in proto.graph.input), difference, agreement)


def to_onnx(model: EmotionModel) -> onnx.ModelProto:
    """The model in evaluation mode as an ONNX graph with all its weights.

    Raises FarfeelError where a part from another package cannot be exported.
    """
    recipe = model.recipe
    takes = [name for name in DIMENSIONS if name in INPUTS[recipe.modalities]]
    shapes: dict[str, dict[int, Any]] = {name: dict(DIMENSIONS[name]) for name in takes}
    mics = 2
    if recipe.microphones.takes == "as trained":
        mics = recipe.microphones.count
        for name in {"audio", "mic_mask"} & shapes.keys():
            del shapes[name][1]
    samples = recipe.audio.window_samples
    if samples // recipe.audio.hop + 1 == recipe.model.image_frames:
        samples += recipe.audio.hop  # From an example without resizing, the exporter would make a graph without it.
    audio, mic_mask, frames, seen = _noise(recipe, 2, mics, samples)
    inputs = {"audio": audio, "mic_mask": mic_mask, "seen": seen} | ({} if frames is None else {"frames": frames})
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                _Whole(model, takes),
                tuple(torch.from_numpy(inputs[name]) for name in takes),
                input_names=takes,
                output_names=["probabilities"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes={"inputs": tuple(shapes.values())},
                external_data=False,
            )
    except Exception as error:  # The exporter has many kinds for what a graph cannot express. Our own parts are tested.
        if not recipe.packages:
            raise
        reason = one_line(error, 160)
        raise FarfeelError(
            f"the model cannot be exported ({type(error).__name__}: {reason}), expected operations that ONNX has in "
            f"{' and '.join(sorted(set(recipe.packages.values())))}; use the checkpoint with PyTorch"
        ) from None
    assert program is not None
    return program.model_proto


def halve(proto: onnx.ModelProto) -> None:
    """Store weights in 16 bits. ONNX Runtime casts each back to 32 bits once, when it loads the file.

    The matrices of the log-mel keep 32 bits: they are no weights, and quiet bands need the precision.
    """
    graph = proto.graph
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1 and not tensor.name.startswith("model.logmel."):
            stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half")
            graph.node.insert(0, onnx.helper.make_node("Cast", [stored.name], [tensor.name], to=onnx.TensorProto.FLOAT))
            graph.initializer.remove(tensor)
            graph.initializer.append(stored)


def quantised(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with the weights and the inputs of its linear layers in 8 bits.

    Spectra keep 32 bits: between the loud and the quiet bands of a voice there are more than 8 bits.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    spectra = [node.name for node in proto.graph.node if any(name.startswith("model.logmel.") for name in node.input)]
    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder) / "quantised.onnx"
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=spectra,
        )
        small = onnx.load(path)
    kept = [entry for entry in small.metadata_props if entry.key != CHECKSUM]  # that of the file it was made of
    del small.metadata_props[:]
    small.metadata_props.extend(kept)
    return small


def describe(
    proto: onnx.ModelProto,
    recipe: Recipe,
    licence: str,
    weights: str = "float32",
    temperature: Sequence[float] = (1.0, 1.0, 1.0),
) -> None:
    """Add the metadata that a program needs, and remove the exporter's notes about the machine that it ran on."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    properties = {
        OURS: __version__,
        "emotions": ",".join(recipe.data.emotions),
        "modalities": recipe.modalities,
        "sample_rate": str(recipe.audio.sample_rate),
        "seconds": f"{recipe.audio.seconds:g}",
        "weights": weights,
        "temperature": json.dumps(list(temperature)),
        "recipe": yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False),
    }
    if licence:
        properties["licence"] = licence
    onnx.helper.set_model_props(proto, properties)


class _Portable(EmotionModel):
    """EmotionModel for a graph: every row is computed, and the Fourier transform is replaced."""

    def __init__(self, model: EmotionModel) -> None:
        super().__init__(model.recipe)
        if model.recipe.modalities != "video":
            self.logmel = FoldedLogMel(model.recipe.audio)
        self.load_state_dict(model.state_dict())

    def audio_output(self, audio: Tensor, mic_mask: Tensor) -> AudioOutput:
        """A clip without audio is computed as silence, and a stand-in replaces the result afterwards. Its mean over no
        microphones would be NaN, and one NaN spoils the scale of the 8-bit layers for the whole batch."""
        silent = ~mic_mask.any(dim=1, keepdim=True)
        return super().audio_output(audio.masked_fill(~mic_mask[..., None], 0.0), mic_mask | silent)


class FoldedLogMel(LogMel):
    """LogMel with the Fourier transform as two matrix products: ONNX Runtime needs half the time for them.

    The window is symmetric, w[n] = w[N - n], and w[0] is 0. So the cosines multiply x[n] + x[N - n] and the sines
    x[n] - x[N - n], with half the products.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, audio: Any) -> None:
        super().__init__(audio)
        size, half = self.n_fft, self.n_fft // 2
        sample = torch.arange(1, half + 1, dtype=torch.float64)
        angle = 2 * torch.pi / size * sample[:, None] * torch.arange(half + 1)
        window = torch.hann_window(size, dtype=torch.float64)[1 : half + 1]
        if size % 2 == 0:
            window[-1] /= 2  # the middle, which is its own mirror image
        self.register_buffer("cosines", (window[:, None] * angle.cos()).float(), persistent=False)
        self.register_buffer("sines", (window[:, None] * angle.sin()).float(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        clips, mics, samples = audio.shape
        starts = torch.arange(samples // self.hop + 1)[:, None] * self.hop - self.n_fft // 2
        sample = torch.arange(1, self.n_fft // 2 + 1)
        signal = audio.flatten(0, 1)
        rising = signal[:, _reflected(starts + sample, samples)]  # (B*M, F, n_fft // 2)
        falling = signal[:, _reflected(starts + self.n_fft - sample, samples)]
        power = ((rising + falling) @ self.cosines).square() + ((rising - falling) @ self.sines).square()
        log_mels = 10.0 * torch.log10((power @ self.filters).clamp(min=POWER_FLOOR))
        return log_mels.transpose(1, 2).unflatten(0, (clips, mics))


class _Whole(nn.Module):
    """From the inputs of the file, in their order, to probabilities."""

    def __init__(self, model: EmotionModel, takes: Sequence[str]) -> None:
        super().__init__()
        self.model, self.takes = _Portable(model), tuple(takes)
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        named = dict(zip(self.takes, inputs, strict=True))
        frames = to_frames(named["frames"]) if "frames" in named else None
        clips = inputs[0].shape[0]  # len() would be a constant of the graph
        audio = named.get("audio", torch.zeros(clips, 1, 1))
        mic_mask = named.get("mic_mask", torch.zeros(clips, 1, dtype=torch.bool))
        return self.model.probabilities(audio, mic_mask, frames, named.get("seen"))


def _reflected(index: Tensor, samples: int) -> Tensor:
    """Indices into a signal that is continued by its mirror image at both ends."""
    last = samples - 1
    return last - (last - index.abs()).abs()


def _noise(
    recipe: Recipe, clips: int, mics: int, samples: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """An engine's input: noise with levels 60 dB apart, some microphones dead. Where the recipe takes both modalities,
    there are clips with audio, with video, with both and with neither."""
    rng, video = np.random.default_rng(clips), recipe.video
    audio = rng.standard_normal((clips, mics, samples or recipe.audio.window_samples), dtype=np.float32)
    audio *= 10 ** rng.uniform(-3.5, -0.5, (clips, mics, 1)).astype(np.float32)
    mic_mask = rng.random((clips, mics)) < 0.7
    mic_mask[:, 0] = True
    frames = rng.integers(0, 256, (clips, video.frames, video.size, video.size, 3), dtype=np.uint8)
    seen = np.ones(clips, dtype=bool)
    if recipe.modalities == "both":
        mic_mask[1::4] = False
        seen[2::4] = False
        mic_mask[3::4], seen[3::4] = False, False
    return audio, mic_mask, None if recipe.modalities == "audio" else frames, seen


def _noise_difference(ours: Engine, theirs: Engine) -> float:
    recipe = ours.recipe
    as_trained = recipe.microphones.takes == "as trained"
    differences = []
    for clips, mics in SHAPES:
        noise = _noise(recipe, clips, recipe.microphones.count if as_trained else mics)
        differences.append(np.abs(ours.probabilities(*noise) - theirs.probabilities(*noise)).max())
    return float(np.max(differences))


def _recordings_difference(ours: Engine, theirs: Engine, paths: Sequence[Path]) -> tuple[float, float]:
    """The largest difference of any probability, and the share of recordings with the same emotion."""
    a, b = (
        np.array([recognizer.predict(path).probabilities for path in paths])
        for recognizer in (Recognizer([ours]), Recognizer([theirs]))
    )
    return float(np.abs(a - b).max()), float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def _licence(checkpoint: Path) -> str:
    """The line of the checkpoint's card about the licence."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    try:
        lines = (folder / CARD).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if "licen" in line.lower() or "research use" in line), "")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the messages of the exporter and the quantiser, which do not concern users."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
