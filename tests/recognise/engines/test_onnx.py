"""Laws of files for ONNX Runtime: what is not ours, or not whole, is one line; nothing outside the file is read."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors import safe_open

from farfeel.recipe import Recipe
from farfeel.recognise.engines.onnx import CHECKSUM_BYTES, OnnxEngine, checksum_entry
from farfeel.recognise.export import describe, export
from farfeel.types import FarfeelError

Small = Callable[..., Recipe]
WEIGHTS = 4


def model(initialiser: TensorProto) -> onnx.ModelProto:
    """A stranger's model: x + weights, which are stored where `initialiser` names."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [WEIGHTS]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "weights"], ["y"])], "sum", [x], [y], [initialiser])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def inside() -> TensorProto:
    return helper.make_tensor("weights", TensorProto.FLOAT, [WEIGHTS], np.ones(WEIGHTS))


def elsewhere(location: str) -> TensorProto:
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[WEIGHTS])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def refusal(path: Path) -> str:
    with pytest.raises(FarfeelError) as caught:
        OnnxEngine(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "sub/weights.bin", "ABSOLUTE"])
@pytest.mark.parametrize("as_constant", [False, True])
def test_weights_in_other_files_are_never_read(
    tmp_path: Path, small: Small, location: str, as_constant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    for folder in (tmp_path, here, here / "sub"):
        (folder / "weights.bin").write_bytes(np.ones(WEIGHTS, dtype=np.float32).tobytes())
    monkeypatch.chdir(here)
    proto = model(elsewhere(str(tmp_path / "weights.bin") if location == "ABSOLUTE" else location))
    if as_constant:
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["weights"], value=proto.graph.initializer[0]))
        del proto.graph.initializer[:]
    describe(proto, small(), "")
    (here / "model.onnx").write_bytes(proto.SerializeToString())
    assert "not a whole ONNX model" in refusal(here / "model.onnx")


def test_a_model_of_something_else_is_refused(tmp_path: Path, small: Small) -> None:
    path = tmp_path / "model.onnx"
    proto = model(inside())
    path.write_bytes(proto.SerializeToString())
    assert "of something else" in refusal(path)
    describe(proto, small(), "")  # as if it were ours
    path.write_bytes(proto.SerializeToString())
    assert "takes x" in refusal(path)
    for recipe, reason in (("", "no recipe"), ("a: [", "no recipe"), ("sausage: 1", "unknown key sausage")):
        next(entry for entry in proto.metadata_props if entry.key == "recipe").value = recipe
        path.write_bytes(proto.SerializeToString())
        assert reason in refusal(path)


def test_a_missing_an_empty_and_a_damaged_file_are_one_line(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "model.onnx")
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder")
    whole = model(inside()).SerializeToString()
    for content in (b"", b"RIFF....WAVE", whole[: len(whole) // 2], bytes(1000)):
        (tmp_path / "model.onnx").write_bytes(content)
        refusal(tmp_path / "model.onnx")


def test_no_telemetry_is_sent(tmp_path: Path) -> None:
    """A fresh process, a fresh home: ONNX Runtime leaves no identifier and no events there."""
    code = (
        "import numpy as np; from farfeel.recognise.recognizer import Recognizer; "
        "Recognizer.load(engine='onnx').predict_audio(np.random.default_rng(1).normal(0, 0.1, (1, 16000)))"
    )
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert not [path for path in tmp_path.rglob("*") if "microsoft" in str(path).lower()]


@pytest.fixture
def exported(tmp_path: Path, checkpoint: Path) -> Path:
    export(checkpoint, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_one_flipped_bit_is_found_before_the_file_is_read(exported: Path, share: float) -> None:
    content = bytearray(exported.read_bytes())
    content[int(share * (len(content) - 80))] ^= 4
    exported.write_bytes(content)
    assert "is damaged: its checksum is another" in refusal(exported)


def test_a_file_with_a_checksum_is_a_whole_onnx_file_and_its_metadata_hold_it(exported: Path) -> None:
    proto = onnx.load(exported)
    onnx.checker.check_model(proto)
    held = {each.key: each.value for each in proto.metadata_props}
    assert held["farfeel.sha256"] == hashlib.sha256(exported.read_bytes()[:-CHECKSUM_BYTES]).hexdigest()


def test_metadata_changed_by_another_program_are_found(exported: Path) -> None:
    """It writes the checksum where it stood among the entries, or at another place of the file."""
    proto = onnx.load(exported)
    proto.metadata_props.add(key="more", value="x")
    onnx.save(proto, exported)
    assert "is damaged: its checksum is another" in refusal(exported)


def test_a_file_from_before_checksums_is_read_as_it_was(exported: Path) -> None:
    noise = np.random.default_rng(1).standard_normal((1, 2, OnnxEngine(exported).recipe.audio.window_samples))
    given = noise.astype(np.float32), np.ones((1, 2), bool), None, np.zeros(1, bool)
    now = OnnxEngine(exported).probabilities(*given)
    exported.write_bytes(exported.read_bytes()[:-CHECKSUM_BYTES])
    np.testing.assert_array_equal(OnnxEngine(exported).probabilities(*given), now)


def test_the_model_in_the_package_has_its_checksums() -> None:
    folder = Path(str(resources.files("farfeel") / "default"))
    content = (folder / "model.onnx").read_bytes()
    assert content.endswith(checksum_entry(content[:-CHECKSUM_BYTES]))
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert "farfeel.sha256" in file.metadata()


def test_answers_that_are_not_finite_are_one_line(exported: Path) -> None:
    proto = onnx.load_from_string(exported.read_bytes()[:-CHECKSUM_BYTES])
    weights = next(
        each for each in proto.graph.initializer if each.data_type == TensorProto.FLOAT and len(each.dims) > 1
    )
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), weights.name))
    exported.write_bytes(proto.SerializeToString())
    engine = OnnxEngine(exported)
    audio = np.ones((1, 1, engine.recipe.audio.window_samples), np.float32)
    with pytest.raises(FarfeelError, match="numbers that are not finite"):
        engine.probabilities(audio, np.ones((1, 1), bool), None, np.zeros(1, bool))
