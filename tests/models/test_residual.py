"""Laws of the residual network and of several networks in one model."""

import re
from pathlib import Path

import pytest
import torch

from farfeel.cli import main
from farfeel.models.audio_networks.residual import FrequencyNorm
from farfeel.models.checkpoint import load_checkpoint, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.logmel import front_end, subtract_mean
from farfeel.recipe import Recipe, load_recipe
from farfeel.types import FarfeelError
from farfeel.variants import MICROPHONES

RESIDUAL = ("model.network=residual", "model.widths=[4,8,8]", "audio.mel_bands=64", "augment.mixup=0")


def recipe(*overrides: str) -> Recipe:
    return load_recipe("tiny", [*RESIDUAL, *overrides])


def model(*overrides: str, seed: int = 1) -> EmotionModel:
    torch.manual_seed(seed)
    net = EmotionModel(recipe(*overrides))
    for name, buffer in net.named_buffers():  # as after training: statistics that are not those of noise
        if name.endswith("running_mean"):
            buffer.normal_()
    return net.eval()


@pytest.fixture
def audio() -> torch.Tensor:
    """(2, 4, T) four different microphones."""
    return 0.1 * torch.randn(2, 4, 40960, generator=torch.Generator().manual_seed(1))


ALL = torch.ones(2, 4, dtype=torch.bool)


@pytest.mark.parametrize("strategy", [name for name in MICROPHONES if MICROPHONES.get(name).takes != "one"])
@torch.inference_mode()
def test_order_and_dead_microphones_do_not_matter(strategy: str, audio: torch.Tensor) -> None:
    net = model(f"microphones.strategy={strategy}")
    torch.testing.assert_close(net(audio, ALL), net(audio[:, [2, 0, 3, 1]], ALL), atol=1e-5, rtol=1e-4)
    broken, mask = audio.clone(), ALL.clone()
    broken[:, 0], mask[:, 0] = float("nan"), False
    torch.testing.assert_close(net(broken, mask), net(audio[:, 1:], ALL[:, 1:]))


@torch.inference_mode()
def test_the_mean_of_a_dead_microphone_does_not_matter(audio: torch.Tensor) -> None:
    net = model("audio.mean_norm=0.7", "audio.range_db=50")
    broken, mask = audio.clone(), ALL.clone()
    broken[:, 0], mask[:, 0] = float("nan"), False
    torch.testing.assert_close(net(broken, mask), net(audio[:, 1:], ALL[:, 1:]))


@torch.inference_mode()
def test_log_mels_give_the_same_result_as_their_audio(audio: torch.Tensor) -> None:
    net = model("audio.range_db=50")
    mels = front_end(audio, net.logmel, net.recipe.audio)
    torch.testing.assert_close(net(mels, ALL), net(audio, ALL))


@torch.inference_mode()
def test_the_floor_does_not_show_the_equaliser(audio: torch.Tensor) -> None:
    net = model("audio.range_db=50", "augment.filter_db=12", "augment.time_masks=0", "augment.band_masks=0")
    inputs = []
    net.microphones.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    net.equalise.train()
    net(torch.cat([audio, torch.zeros_like(audio)], dim=2), ALL)
    floor = inputs[0][..., inputs[0].shape[3] * 3 // 4 :]  # digital silence
    assert floor.amax(dim=(2, 3)).equal(floor.amin(dim=(2, 3)))
    assert (inputs[0].amax(dim=(2, 3)) - floor.amax(dim=(2, 3)) - 50).abs().max() < 1e-3


@torch.inference_mode()
def test_digital_silence_around_a_clip_is_like_a_quiet_room() -> None:
    net = model("audio.range_db=40", "audio.normalise_level=false")
    clip = torch.zeros(1, 1, 40960)
    clip[..., 10000:30000] = torch.randn(20000, generator=torch.Generator().manual_seed(2))
    noisy = clip + 1e-4 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(3))
    alive = torch.ones(1, 1, dtype=torch.bool)
    torch.testing.assert_close(net(clip, alive), net(noisy, alive), atol=0.02, rtol=0.02)


@torch.inference_mode()
def test_the_mean_over_the_speech_is_the_colour_and_can_be_subtracted() -> None:
    """Whatever curve colours a microphone, and however long the pause after the speech is, what is left is the same."""
    draw = torch.Generator().manual_seed(4)
    speech = 10 * torch.rand(2, 3, 64, 60, generator=draw)
    mels = torch.cat([speech, torch.full((2, 3, 64, 30), -60.0)], dim=3)
    curve = 4 * torch.rand(2, 3, 64, 1, generator=draw)
    torch.testing.assert_close(subtract_mean(mels, 1.0), subtract_mean(mels + curve, 1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(subtract_mean(mels, 0.7)[..., :60], subtract_mean(mels[..., :60], 0.7))
    assert subtract_mean(mels, 1.0)[..., :60].mean(dim=3).abs().max() < 1e-4
    left = subtract_mean(mels + curve, 0.7) - subtract_mean(mels, 0.7)
    torch.testing.assert_close(left, 0.3 * curve.expand_as(left), atol=1e-4, rtol=0)


def test_a_constant_gain_of_a_frequency_is_nearly_removed_between_the_blocks() -> None:
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(2, 8, 16, 30, generator=draw)
    gain, offset = torch.rand(2, 1, 16, 1, generator=draw) + 0.5, torch.randn(2, 1, 16, 1, generator=draw)
    norm = FrequencyNorm(0.1)
    torch.testing.assert_close(
        norm(x) - 0.1 * x, norm(gain * x + offset) - 0.1 * (gain * x + offset), atol=1e-4, rtol=0
    )
    assert ((norm(x) - 0.1 * x).square().mean(dim=(1, 3)) - 1).abs().max() < 1e-3
    plain, normed = (model(*overrides) for overrides in ((), ("model.frequency_norm=0.1",)))
    normed.load_state_dict(plain.state_dict())  # it has no weights
    mels = 10 * torch.randn(1, 4, 64, 200, generator=draw)
    assert not torch.allclose(plain(mels, ALL[:1]), normed(mels, ALL[:1]))


def test_bands_that_do_not_divide_are_one_clear_line() -> None:
    with pytest.raises(FarfeelError, match=r"mel_bands is 48, expected a multiple of 32"):
        EmotionModel(load_recipe("tiny", ["model.network=residual", "audio.mel_bands=48"]))


@pytest.fixture
def folds(tmp_path: Path) -> list[Path]:
    """Three checkpoints of audio that differ in seed, split, temperature and norms, and one of video."""
    folders = []
    for seed in (1, 2, 3):
        norm = 0.1 if seed == 3 else 0
        net = model(f"seed={seed}", f"data.split=folds-7:{seed}", f"model.frequency_norm={norm}", seed=seed)
        net.temperature.fill_(0.5 * seed)
        folders.append(tmp_path / f"fold{seed}")
        save_checkpoint(folders[-1], net.state_dict(), net.recipe, "# A fold\n")
    torch.manual_seed(4)
    faces = EmotionModel(load_recipe("tiny", ["modalities=video", "video.network=compact", "video.size=32"])).eval()
    save_checkpoint(tmp_path / "video", faces.state_dict(), faces.recipe, "# Video\n")
    return [*folders, tmp_path / "video"]


@torch.inference_mode()
def test_merged_models_answer_with_their_mean_probability(folds: list[Path], tmp_path: Path, audio) -> None:
    main(["merge", *map(str, folds[:3]), "--out", str(tmp_path / "merged"), "--set", "data.split=paper"])
    merged = load_checkpoint(tmp_path / "merged")
    assert merged.recipe.model.members == 3
    assert merged.recipe.model.frequency_norm == (0, 0, 0.1)
    assert merged.recipe.data.split == "paper"
    mean = torch.stack([torch.softmax(load_checkpoint(fold)(audio, ALL), dim=1) for fold in folds[:3]]).mean(dim=0)
    torch.testing.assert_close(torch.softmax(merged(audio, ALL), dim=1), mean)


@torch.inference_mode()
def test_half_the_size_changes_little(folds: list[Path], tmp_path: Path, audio: torch.Tensor) -> None:
    for name, more in (("whole", []), ("half", ["--half"])):
        main(["merge", *map(str, folds[:2]), "--out", str(tmp_path / name), *more])
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.7 * sizes[0]  # the small network of a test is norms to a good part
    answers = [torch.softmax(load_checkpoint(tmp_path / name)(audio, ALL), dim=1) for name in ("whole", "half")]
    torch.testing.assert_close(*answers, atol=2e-3, rtol=0)


@torch.inference_mode()
def test_audio_and_video_merged_sum_their_logits(folds: list[Path], tmp_path: Path, audio) -> None:
    main(["merge", *map(str, folds), "--out", str(tmp_path / "merged")])
    merged, faces = load_checkpoint(tmp_path / "merged"), load_checkpoint(folds[3])
    video = merged.recipe.video
    frames = torch.rand(2, 3, video.frames, video.size, video.size, generator=torch.Generator().manual_seed(5))
    of_audio, of_video = merged(audio, ALL), faces(audio, ALL, frames)
    torch.testing.assert_close(merged(audio, ALL, frames), of_audio + of_video)
    torch.testing.assert_close(merged(audio, ~ALL, frames), of_video)


def test_what_cannot_be_merged_is_one_clear_line(folds: list[Path], tmp_path: Path, capsys) -> None:
    other = model("audio.hop=160")
    save_checkpoint(tmp_path / "other", other.state_dict(), other.recipe, "")
    for asked, said in (
        ([folds[0], tmp_path / "other"], r"other differs from .*fold1 in audio, expected the same"),
        ([folds[3]], "0 take audio and 1 video"),
        ([folds[0], folds[3], folds[3].with_name("no")], "does not exist"),
    ):
        assert main(["merge", *map(str, asked), "--out", str(tmp_path / "merged")]) == 1
        assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "merged").exists()
