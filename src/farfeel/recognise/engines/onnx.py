"""The network in ONNX Runtime, on the processor: a file of `farfeel export`. It needs neither PyTorch nor timm.

The last metadata entry of a file is a SHA-256 of all bytes before it. So damage is found before ONNX Runtime, which is
native code, reads the file. To hash the 15 MB of the package's model takes about 10 ms; to hash the decoded weights
instead would need the package onnx, and more time. Files of older versions have no such entry and are loaded without.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from farfeel.recipe import Recipe, recipe_from_tree
from farfeel.support.reading import damage, read_json, read_yaml
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

# Its telemetry reports this machine, and stores an identifier. The setting is read when the library is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state
except ImportError:
    raise FarfeelError("ONNX Runtime is not installed; the onnx engine needs it; pip install 'farfeel[onnx]'") from None

OURS = "farfeel"  # the key of the metadata that holds the version which wrote the file
CHECKSUM = "farfeel.sha256"
CHECKSUM_BYTES = 64 + len(CHECKSUM) + 6
INPUTS = {
    "audio": {"audio", "mic_mask"},
    "video": {"frames"},
    "both": {"audio", "mic_mask", "frames", "seen"},
}
ERRORS: tuple[type[Exception], ...] = (  # ONNX Runtime's exceptions have no base of their own.
    RuntimeError,
    *(
        each
        for each in vars(onnxruntime_pybind11_state).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ),
)


class OnnxEngine:
    """`threads`: of the processor; None: as many as it has cores. `recipe` is the one in the file."""

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        path = Path(path)
        content = _read(path)
        checked = _require_checksum(path, content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 4  # What matters is raised.
        # A model may name other files that ONNX Runtime reads as its weights. Ours name none. A stranger's model finds
        # an empty folder, and cannot leave it.
        with tempfile.TemporaryDirectory() as empty:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
            try:
                self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            except ERRORS as error:
                raise FarfeelError(
                    f"{path} is not a whole ONNX model ({_line(error)}); expected a file written by farfeel export; "
                    "copy or export it again"
                ) from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        if CHECKSUM in metadata and not checked:
            raise _damaged(path)
        self.recipe, self.temperature = _recipe(path, metadata), _temperature(path, metadata)
        inputs = {entry.name for entry in self._session.get_inputs()}
        with damage(lambda reason: f"{path} has no output of probabilities ({reason}); export it again"):
            (*_, classes) = self._session.get_outputs()[0].shape
        if inputs != INPUTS[self.recipe.modalities] or classes != len(self.recipe.data.emotions):
            raise FarfeelError(
                f"{path} takes {', '.join(sorted(inputs))} and knows {classes} emotions, its recipe expects "
                f"{', '.join(sorted(INPUTS[self.recipe.modalities]))} and {len(self.recipe.data.emotions)}; "
                "export it again"
            )
        self._path, self._inputs = path, inputs

    def probabilities(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        """Calibrated probabilities (W, K) float64; see `Engine.probabilities`."""
        video = self.recipe.video
        if frames is None:
            frames = np.zeros((len(audio), video.frames, video.size, video.size, 3), dtype=np.uint8)
        inputs = {"audio": audio, "mic_mask": mic_mask, "frames": frames, "seen": seen}
        try:
            (result,) = self._session.run(None, {name: inputs[name] for name in self._inputs})
        except ERRORS as error:
            raise FarfeelError(
                f"{self._path} cannot take {audio.shape[1]} microphones and {audio.shape[2]} samples "
                f"({_line(error)}); choose microphones with --mics as in its training, or another model"
            ) from None
        if not np.isfinite(result).all():
            raise FarfeelError(f"{self._path} answers with numbers that are not finite; copy or export it again")
        return np.asarray(result, dtype=np.float64)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problem = "does not exist" if not path.exists() else f"cannot be read ({error.strerror})"
        raise FarfeelError(f"{path} {problem}; expected a file written by farfeel export; check the path") from None


def checksum_entry(content: bytes | memoryview) -> bytes:
    """What follows `content`, a serialised ONNX model, so that it has one more metadata entry: its SHA-256.

    In a serialised protobuf message, fields may follow in any order, and entries of a list are appended.
    """
    key, value = CHECKSUM.encode(), hashlib.sha256(content).hexdigest().encode()
    entry = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value  # StringStringEntryProto
    return b"\x72" + bytes([len(entry)]) + entry  # field 14 of ModelProto: metadata_props


def _require_checksum(path: Path, content: bytes) -> bool:
    """Whether the file has a checksum. Raises FarfeelError where it is not that of the bytes before it."""
    before, entry = memoryview(content)[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if f"{CHECKSUM}\x12".encode() not in entry:
        return False
    if entry != checksum_entry(before):
        raise _damaged(path)
    return True


def _damaged(path: Path) -> FarfeelError:
    return FarfeelError(f"{path} is damaged: its checksum is another; copy or export it again")


def _recipe(path: Path, metadata: dict[str, str]) -> Recipe:
    if OURS not in metadata:
        raise FarfeelError(f"{path} is an ONNX model of something else; expected a file written by farfeel export")
    try:
        tree = read_yaml(metadata.get("recipe", ""))
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise FarfeelError(f"{path} holds no recipe that can be read; expected its YAML; export it again")
    return recipe_from_tree(tree, source=str(path))


def _temperature(path: Path, metadata: dict[str, str]) -> np.ndarray:
    """(3,) the temperatures of the calibration."""
    with damage(lambda _: f"{path} has a temperature that is not three positive numbers; export it again"):
        temperature = np.array(read_json(metadata.get("temperature", "[1, 1, 1]")), dtype=float)
        if temperature.shape != (3,) or not (temperature > 0).all() or not np.isfinite(temperature).all():
            raise ValueError
    return temperature


def _line(error: Exception) -> str:
    """The message of ONNX Runtime, without its preamble."""
    return one_line(error).split(" : ")[-1][:120].rstrip(" .")
