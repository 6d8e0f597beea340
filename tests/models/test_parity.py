"""The same function as the reference implementation: its numbers, for weights and inputs that a formula gives."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from farfeel.media.mel import mel_filters
from farfeel.models.emotion import EmotionModel
from farfeel.models.reference import LoadReport, fill, load_reference
from farfeel.recipe import Recipe, recipe_from_tree
from farfeel.types import FarfeelError

DATA = Path(os.environ.get("FARFEEL_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
GOLDEN = DATA.parent / "golden"
AUDIO_CASES = ("single", "avg_mel_3", "sum_3", "sum_3_paper_fmax")
STRATEGY = {"avg_mel": "average-mels", "sum": "sum-patches"}

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the golden numbers beside FARFEEL_DATA")


@pytest.fixture(scope="module")
def cases() -> dict:
    return json.loads((GOLDEN / "cases.json").read_text())


@pytest.fixture(scope="module")
def state(cases: dict) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(formula(name, shape), dtype=torch.float32) for name, shape in cases["audio_parameters"]}


def formula(name: str, shape: list[int]) -> np.ndarray:
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(normal)
    if name.endswith("running_mean"):
        return 0.1 * normal
    if len(shape) <= 1:
        return 1 + 0.1 * normal if name.endswith("weight") else 0.1 * normal
    return normal / np.sqrt(np.prod(shape[1:]))


def waveforms(case: dict) -> torch.Tensor:
    samples = 16000 * case["seconds"]
    audio = 0.1 * np.random.default_rng(case["seed"]).standard_normal((2, case["mics"], samples))
    clip, mic, t = np.arange(2)[:, None, None], np.arange(case["mics"])[None, :, None], np.arange(samples)
    audio *= (0.5 + 0.5 * np.sin(2 * np.pi * 3 * (1 + mic + 2 * clip) * t / samples)) ** 2
    return torch.tensor(audio, dtype=torch.float32)


def recipe_of(case: dict) -> Recipe:
    return recipe_from_tree(
        {
            "audio": {"fmax_hz": case["fmax"]},
            "microphones": {"strategy": STRATEGY[case["mode"]], "count": case["mics"]},
        },
        source="case",
    )


@pytest.mark.parametrize("name", AUDIO_CASES)
def test_every_audio_case_agrees_to_1e_4(name: str, cases: dict, state: dict) -> None:
    case = cases["cases"][name]
    model = EmotionModel(recipe_of(case)).eval()
    fill(model, state, LoadReport("golden"))
    with torch.inference_mode():
        output = model.audio_output(waveforms(case), torch.ones(2, case["mics"], dtype=torch.bool))
    golden = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
    np.testing.assert_allclose(output.logits, golden["clipwise_output"], atol=1e-4)
    np.testing.assert_allclose(output.latent, golden["latent_output"], atol=1e-4)
    np.testing.assert_allclose(output.framewise.sigmoid(), golden["framewise_output"], atol=1e-4)


@pytest.fixture(scope="module")
def audio_visual(cases: dict) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(formula(name, shape), dtype=torch.float32) for name, shape in cases["all_parameters"]}


def audio_visual_recipe(case: dict) -> Recipe:
    return recipe_from_tree(recipe_of(case).model_dump() | {"modalities": "both"}, source="case")


def test_the_audio_visual_case_agrees_to_1e_4(cases: dict, audio_visual: dict) -> None:
    case = cases["cases"]["av_sum_3"]
    model = EmotionModel(audio_visual_recipe(case)).eval()
    fill(model, audio_visual, LoadReport("golden"))
    normalised = torch.tensor(np.random.default_rng(case["seed"] + 1).standard_normal((2, 3, 8, 112, 112))).float()
    frames = normalised * model.video.std + model.video.mean  # The case starts behind the Kinetics normalisation.
    audio, mic_mask = waveforms(case), torch.ones(2, case["mics"], dtype=torch.bool)
    golden = np.load(GOLDEN / "av_sum_3.npz", allow_pickle=False)
    with torch.inference_mode():
        np.testing.assert_allclose(model.audio_output(audio, mic_mask).latent, golden["latent_output"], atol=1e-4)
        np.testing.assert_allclose(model.video(frames), golden["video_latent"], atol=1e-4)
        np.testing.assert_allclose(model(audio, mic_mask, frames), golden["clipwise_output"], atol=1e-4)


def test_a_reference_audio_visual_checkpoint_loads_but_for_the_stand_ins(
    tmp_path: Path, cases: dict, audio_visual: dict
) -> None:
    file = tmp_path / "reference.ckpt"
    torch.save({"state_dict": audio_visual}, file)
    model = EmotionModel(audio_visual_recipe(cases["cases"]["av_sum_3"]))
    report = load_reference(model, file)
    assert set(report.missing) == {"classifier.absent_audio", "classifier.absent_video"}
    assert set(report.unused) == {"sed_model.head.weight", "sed_model.head.bias"}
    loaded = model.state_dict()["video.network.layer4.1.conv2.0.3.weight"]
    assert torch.equal(loaded, audio_visual["sed_model.video_encoder.model.layer4.1.conv2.0.3.weight"])


@pytest.mark.parametrize("fmax", [8000, 14000])
def test_mel_filters_are_the_reference_s(fmax: int) -> None:
    golden = np.load(GOLDEN / f"mel_fmax{fmax}.npz", allow_pickle=False)
    (filters,) = golden.values()
    np.testing.assert_allclose(mel_filters(16000, 1024, 64, 50.0, fmax), filters, atol=1e-7)


def test_a_reference_checkpoint_keeps_its_head_and_lists_what_was_not_used(
    tmp_path: Path, cases: dict, state: dict
) -> None:
    file = tmp_path / "reference.ckpt"
    torch.save(
        {"state_dict": state | {"sed_model.layers.0.blocks.0.attn.relative_position_index": torch.zeros(3)}}, file
    )
    model = EmotionModel(recipe_of(cases["cases"]["single"]))
    report = load_reference(model, file)
    assert report.kind == "reference model of 8 classes"
    assert set(report.unused) == {"sed_model.head.weight", "sed_model.head.bias"}
    assert report.rebuilt == ["sed_model.layers.0.blocks.0.attn.relative_position_index"]
    assert not report.missing
    assert not report.replaced
    assert len(report.used) == len(state) - 2


def test_audioset_weights_keep_all_but_the_head(tmp_path: Path, cases: dict, state: dict) -> None:
    file = tmp_path / "audioset.ckpt"
    head = {"sed_model.tscam_conv.weight": torch.zeros(527, 768, 2, 3), "sed_model.tscam_conv.bias": torch.zeros(527)}
    torch.save({"state_dict": state | head}, file)
    model = EmotionModel(recipe_of(cases["cases"]["single"]))
    before = model.hearing[0].tscam_conv.weight.clone()
    report = load_reference(model, file)
    assert report.kind == "HTS-AT pretrained on AudioSet"
    assert set(report.replaced) == set(head)
    assert torch.equal(model.hearing[0].tscam_conv.weight, before)
    assert torch.equal(model.hearing[0].bn0.weight, state["sed_model.bn0.weight"])


def test_a_swin_for_images_is_averaged_over_its_colours(tmp_path: Path, cases: dict, state: dict) -> None:
    swin = {
        name.removeprefix("sed_model."): tensor
        for name, tensor in state.items()
        if name.startswith(("sed_model.patch_embed", "sed_model.layers", "sed_model.norm"))
    }
    colours = torch.randn(96, 3, 4, 4)
    file = tmp_path / "swin.pth"
    torch.save({"model": swin | {"patch_embed.proj.weight": colours, "head.weight": torch.zeros(1000, 768)}}, file)
    model = EmotionModel(recipe_of(cases["cases"]["single"]))
    report = load_reference(model, file)
    assert report.kind == "Swin transformer for images"
    torch.testing.assert_close(model.hearing[0].swin.patch_embed.proj.weight, colours.mean(dim=1, keepdim=True))
    assert report.unused == ["head.weight"]


class Payload:
    def __reduce__(self) -> tuple:
        return print, ("code ran",)


def test_a_file_with_code_in_it_is_refused_and_never_run(tmp_path: Path, cases: dict, capsys) -> None:
    file = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"x": Payload()}}, file)
    with pytest.raises(FarfeelError, match="never loaded"):
        load_reference(EmotionModel(recipe_of(cases["cases"]["single"])), file)
    assert "code ran" not in capsys.readouterr().out
