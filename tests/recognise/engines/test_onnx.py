"""Laws of files for ONNX Runtime: what is not ours, or not whole, is one line; nothing outside the file is read."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from farfeel.recipe import Recipe
from farfeel.recognise.engines.onnx import OnnxEngine
from farfeel.recognise.export import describe
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
