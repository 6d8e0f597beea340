"""Laws of every registered variant, those of other packages included: the lists come from the registries."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from farfeel.corpora.splits import Split
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.models.checkpoint import load_checkpoint, require_reloadable, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.microphones import MicFusion
from farfeel.recipe import Recipe, choices, load_recipe
from farfeel.recipe.sections import NAMED, TAKES
from farfeel.recognise import export
from farfeel.recognise.engines.onnx import OnnxEngine
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import Recognizer
from farfeel.rooms.bank import Bank
from farfeel.training.examples import TrainingSet
from farfeel.training.loop import fit
from farfeel.types import FarfeelError
from farfeel.variants import MICROPHONES
from untrained import as_if_learned

Small = Callable[..., Recipe]
TINY_BOTH = ("modalities=both", "video.size=32", "video.width=4", "fusion.hidden=16")
PARTS = {  # setting → what the smallest recipe with that part needs besides
    "microphones.strategy": ("modalities=audio",),
    "model.network": ("modalities=audio", "model.widths=[4,8,8,8,8]"),
    "video.network": ("modalities=video", "video.size=32", "video.width=4"),
    "fusion.strategy": TINY_BOTH,
}
VARIANTS = [(setting, name) for setting in PARTS for name in NAMED[setting]]
# These too train and export, at a price: 31 million weights each.
AFFORDABLE = [(setting, name) for setting, name in VARIANTS if name != "r2plus1d_18"]
ANY_ORDER = [name for name in MICROPHONES if MICROPHONES.variant(name).constant("takes", "any") != "one"]
CLIPS, MICS = 2, 4


def recipe_of(small: Small, setting: str, name: str, *overrides: str) -> Recipe:
    bands = ("audio.mel_bands=32",)
    return small(*bands, *PARTS[setting], f"{setting}={name}", *overrides)


def model_of(recipe: Recipe, seed: int = 1) -> EmotionModel:
    return as_if_learned(recipe, (0.5, 0.7, 0.9), seed)


def inputs_of(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Audio (2, 4, T) of different microphones at different levels, all working, and frames."""
    draw, video = torch.Generator().manual_seed(1), recipe.video
    audio = torch.randn(CLIPS, MICS, recipe.audio.window_samples, generator=draw)
    audio *= torch.tensor([0.02, 0.3, 0.1, 0.05])[:, None]
    frames = torch.rand(CLIPS, 3, video.frames, video.size, video.size, generator=draw)
    return audio, torch.ones(CLIPS, MICS, dtype=torch.bool), None if recipe.modalities == "audio" else frames


@pytest.mark.parametrize("setting", PARTS)
def test_the_laws_here_are_tested_on_a_plug_in_where_there_is_one(setting: str) -> None:
    brought = {name for name in NAMED[setting] if NAMED[setting].variant(name).package}
    expected = {"microphones.strategy": {"loudest"}, "fusion.strategy": {"attention"}}
    assert brought == expected.get(setting, set())
    assert len(NAMED[setting].names) >= 2


@pytest.mark.parametrize(("setting", "name"), VARIANTS)
def test_a_recipe_names_it_and_help_lists_it_with_a_line_about_it(small: Small, setting: str, name: str) -> None:
    assert recipe_of(small, setting, name)
    assert choices()[setting][name].startswith(NAMED[setting].summary(name))


@pytest.mark.parametrize("name", MICROPHONES)
def test_a_strategy_states_how_many_microphones_it_can_use(small: Small, name: str) -> None:
    assert recipe_of(small, "microphones.strategy", name).microphones.takes in TAKES
    assert MICROPHONES.get(name).takes == MICROPHONES.variant(name).constant("takes", MicFusion.takes)


@pytest.mark.parametrize("levelled", [False, True])
@pytest.mark.parametrize("name", ANY_ORDER)
@torch.inference_mode()
def test_the_order_of_microphones_does_not_matter(small: Small, name: str, levelled: bool) -> None:
    model = model_of(recipe_of(small, "microphones.strategy", name, f"audio.normalise_level={levelled}"))
    audio, mask, _ = inputs_of(model.recipe)
    mask[1, 2] = False
    order = [2, 0, 3, 1]
    torch.testing.assert_close(model(audio, mask), model(audio[:, order], mask[:, order]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MICROPHONES)
@pytest.mark.parametrize("content", [0.0, 1.0, float("nan"), float("inf")])
@torch.inference_mode()
def test_a_dead_microphone_has_no_influence_with_any_content(small: Small, name: str, content: float) -> None:
    model = model_of(recipe_of(small, "microphones.strategy", name, "audio.normalise_level=false"))
    audio, mask, _ = inputs_of(model.recipe)
    mask[:, 1] = False
    broken = audio.clone()
    broken[:, 1] = content
    left = [0, 2, 3]
    torch.testing.assert_close(model(broken, mask), model(audio[:, left], mask[:, left]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MICROPHONES)
def test_a_dead_microphone_leaves_batch_statistics_alone_in_training(small: Small, name: str) -> None:
    means = []
    for content in (None, 0.0, 5.0):
        model = model_of(recipe_of(small, "microphones.strategy", name)).train()
        model.augment.eval()
        audio, mask, _ = inputs_of(model.recipe)
        mask[:, 1] = False
        if content is not None:
            audio[:, 1] = content
        model(audio, mask)
        means.append(model.hearing[0].bn0.running_mean.clone())
    torch.testing.assert_close(means[0], means[1])
    torch.testing.assert_close(means[0], means[2])


@pytest.mark.parametrize("name", NAMED["fusion.strategy"])
@torch.inference_mode()
def test_an_absent_modality_has_no_influence_and_a_present_one_has(small: Small, name: str) -> None:
    model = model_of(recipe_of(small, "fusion.strategy", name, "fusion.experts=false"))
    audio, mask, frames = inputs_of(model.recipe)
    present = torch.ones(CLIPS, dtype=torch.bool)
    both, audio_alone, video_alone = model(audio, mask, frames, present, alone=True)
    for one, other in ((both, audio_alone), (both, video_alone), (audio_alone, video_alone)):
        assert not torch.allclose(one, other, atol=1e-4)
    nan = torch.full_like(audio, float("nan"))
    torch.testing.assert_close(model(nan, ~mask, frames, present), video_alone)
    torch.testing.assert_close(model(audio, mask, frames * float("nan"), ~present), audio_alone)


@pytest.mark.parametrize("name", NAMED["fusion.strategy"])
@torch.inference_mode()
def test_with_experts_the_logits_of_each_modality_are_added(small: Small, name: str) -> None:
    model = model_of(recipe_of(small, "fusion.strategy", name, "fusion.experts=true"))
    audio, mask, frames = inputs_of(model.recipe)
    output = model.audio_output(audio, mask)
    features = model.classifier.audio_features(output.latent, output.logits)
    no_opinion = model.classifier.audio_features(output.latent, torch.zeros_like(output.logits))
    video = model.classifier.video_features(model.video(frames))
    torch.testing.assert_close(
        model.classifier(features, video), model.classifier(no_opinion, video) + output.logits, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("setting", "name"), VARIANTS)
@torch.inference_mode()
def test_a_checkpoint_gives_the_model_back(tmp_path: Path, small: Small, setting: str, name: str) -> None:
    recipe = recipe_of(small, setting, name)
    model = model_of(recipe)
    require_reloadable(model, recipe)
    save_checkpoint(tmp_path / "best", model.state_dict(), recipe, "# x\n")
    loaded = load_checkpoint(tmp_path / "best")
    assert loaded.recipe == recipe
    given = inputs_of(recipe)
    assert torch.equal(loaded.probabilities(*given), model.probabilities(*given))
    package = NAMED[setting].variant(name).package
    written = (tmp_path / "best" / "recipe.yaml").read_text()
    assert recipe.packages == ({setting: package} if package else {})
    assert ("packages" in written) == bool(package)
    assert package in written


@pytest.mark.parametrize(("setting", "name"), VARIANTS)
def test_an_ensemble_answers_with_the_mean_of_its_members(small: Small, setting: str, name: str, voices: Path) -> None:
    recipe = recipe_of(small, setting, name, "modalities=audio" if setting != "video.network" else "modalities=both")
    engines = [TorchEngine(model_of(recipe, seed)) for seed in (1, 2)]
    clip = next(voices.rglob("*.flac"))
    alone = [np.array(Recognizer([engine]).predict(clip, mics=[0]).probabilities) for engine in engines]
    together = Recognizer(engines).predict(clip, mics=[0]).probabilities
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def together() -> list[dict[str, str]]:
    """Few recipes that contain every affordable variant: an export takes long. One variant alone is tested on audio."""
    names = {setting: [name for found, name in AFFORDABLE if found == setting] for setting in PARTS}
    of_both = max(len(names[setting]) for setting in ("fusion.strategy", "video.network"))
    chosen = [{setting: found[i % len(found)] for setting, found in names.items()} for i in range(of_both)]
    rest = [(setting, name) for setting, found in names.items() for name in found[of_both:]]
    return [*chosen, *({setting: name} for setting, name in rest)]


def test_the_recipes_to_export_have_every_variant() -> None:
    assert {(setting, name) for chosen in together() for setting, name in chosen.items()} == set(AFFORDABLE)


@pytest.mark.parametrize("chosen", together(), ids=lambda chosen: "-".join(chosen.values()))
def test_the_export_of_every_variant_equals_pytorch(tmp_path: Path, small: Small, chosen: dict[str, str]) -> None:
    named = [f"{setting}={name}" for setting, name in chosen.items()]
    modalities = ["modalities=audio"] * (len(chosen) == 1)
    recipe = small("audio.mel_bands=32", "model.widths=[4,8,8,8,8]", *TINY_BOTH, *named, *modalities)
    model = model_of(recipe)
    save_checkpoint(tmp_path / "best", model.state_dict(), recipe, "# x\n")
    report = export.export(tmp_path / "best", tmp_path / "model.onnx")  # raises where they differ
    assert report.difference < 1e-4
    assert OnnxEngine(tmp_path / "model.onnx").recipe == recipe


@pytest.mark.parametrize(("setting", "name"), AFFORDABLE)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, split: Split, bank: Bank, small: Small, setting: str, name: str
) -> None:
    recipe = recipe_of(small, setting, name, "train.epochs=2", "train.batch_size=12", "model.dropout=0.2")
    clips = TrainingSet(split.train, recipe, bank)
    val = EvaluationSet(split.val[:2], recipe, [bank], one_room_each=True)

    def run(out: Path, resume: bool = False) -> int:
        torch.manual_seed(recipe.seed)
        done = 0
        for _ in fit(EmotionModel(recipe), clips, val, recipe, out, resume=resume):
            done += 1
            if out.name == "halved" and not resume:
                break
        return done

    assert (run(tmp_path / "whole"), run(tmp_path / "halved"), run(tmp_path / "halved", resume=True)) == (2, 1, 1)
    ours, theirs = (load_checkpoint(tmp_path / out / "best").state_dict() for out in ("whole", "halved"))
    assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in ours)


class Mine(MicFusion):
    """No recipe names it."""

    def forward(self, mels, mic_mask, embed):
        return embed(mels[:, 0])


class MinePrivately(torch.nn.Linear):
    """A part with the same tensors as the one that it replaces."""


def test_a_model_that_its_recipe_does_not_build_is_refused_before_training(
    tmp_path: Path, split: Split, bank: Bank, small: Small
) -> None:
    recipe = small()
    model = EmotionModel(recipe)
    model.microphones = Mine(recipe.audio.mel_bands)
    with pytest.raises(
        FarfeelError, match=r"^microphones is Mine, but the recipe builds AverageMels.*microphones\.str"
    ):
        next(fit(model, TrainingSet(split.train, recipe, bank), [], recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_would_not_load_again_is_one_line(small: Small) -> None:
    recipe = small("modalities=video")
    model = EmotionModel(recipe)
    model.classifier = MinePrivately(model.classifier.in_features, model.classifier.out_features)
    with pytest.raises(FarfeelError, match=r"^classifier is MinePrivately, but the recipe builds Linear"):
        require_reloadable(model, recipe)
    model = EmotionModel(recipe)
    model.more = torch.nn.ReLU()
    with pytest.raises(FarfeelError, match=r"^more is ReLU, but the recipe builds nothing.*change the recipe"):
        require_reloadable(model, recipe)
    model = EmotionModel(recipe)
    model.register_buffer("more", torch.zeros(3))
    with pytest.raises(FarfeelError, match=r"^more is not the tensor that the recipe builds"):
        require_reloadable(model, recipe)
    with pytest.raises(FarfeelError, match=r"^classifier\.bias is not the tensor"):
        require_reloadable(EmotionModel(recipe), small("modalities=video", "data.emotions=[happy, sad]"))
    unwritable = recipe.model_copy(
        update={"microphones": recipe.microphones.model_copy(update={"options": {"a": object()}})}
    )
    with pytest.raises(FarfeelError, match="cannot be written as YAML"):
        require_reloadable(EmotionModel(recipe), unwritable)
    changed = recipe.model_copy(update={"microphones": recipe.microphones.model_copy(update={"options": {"a": (1,)}})})
    with pytest.raises(FarfeelError, match="the recipe's microphones would be read back with other values"):
        require_reloadable(EmotionModel(recipe), changed)
    unknown = recipe.model_copy(update={"microphones": recipe.microphones.model_copy(update={"strategy": "mine"})})
    with pytest.raises(FarfeelError, match=r"microphones\.strategy is 'mine', expected one of average-mels"):
        require_reloadable(EmotionModel(recipe), unknown)


def test_the_check_draws_no_random_number(small: Small) -> None:
    model = EmotionModel(small())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    require_reloadable(model, small())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["microphones.options={peek: false}"], "microphones.options: average-mels has no option peek, expected none"),
        (["model.options={members: 2}"], "model.options: htsat has no option members, expected none"),
        (["modalities=both", "fusion.options={hidden: 2}"], "fusion.options: concatenation has no option hidden"),
        (["modalities=video", "video.options={fps: 2}"], "video.options: compact has no option fps, expected none"),
    ],
)
def test_an_option_that_a_variant_does_not_take_is_one_line(small: Small, overrides: list[str], said: str) -> None:
    with pytest.raises(FarfeelError, match=said):
        EmotionModel(small(*overrides))


def test_options_reach_the_constructor_and_the_checkpoint(tmp_path: Path, small: Small) -> None:
    recipe = small("microphones.strategy=loudest", "microphones.options={peak: false}")
    save_checkpoint(tmp_path / "best", EmotionModel(recipe).state_dict(), recipe, "")
    assert load_checkpoint(tmp_path / "best").microphones.peak is False
    assert load_recipe("tiny", ["microphones.strategy=loudest"]).microphones.options == {}
