"""Laws of the face branch and of late fusion: an absent modality has no influence in any batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.fusion import where_present
from farfeel.models.reference import fill_video, read_video_weights
from farfeel.models.video_networks import VideoEncoder
from farfeel.recipe import Recipe, Video
from farfeel.training.run import initialise_video
from farfeel.types import FarfeelError

Small = Callable[..., Recipe]
CLIPS, MICS = 4, 3


@pytest.fixture
def model(small: Small) -> EmotionModel:
    torch.manual_seed(1)
    model = EmotionModel(small("modalities=both", "augment.camera.mirror=0"))
    with torch.no_grad():  # as if learned
        model.classifier.absent_audio.normal_()
        model.classifier.absent_video.normal_()
    return model.eval()


@pytest.fixture
def batch(model: EmotionModel) -> dict[str, torch.Tensor]:
    video = model.recipe.video
    samples = round(model.recipe.audio.seconds * 16000)
    generator = torch.Generator().manual_seed(1)
    return {
        "audio": 0.1 * torch.randn(CLIPS, MICS, samples, generator=generator),
        "mic_mask": torch.ones(CLIPS, MICS, dtype=torch.bool),
        "frames": torch.rand(CLIPS, 3, video.frames, video.size, video.size, generator=generator),
        "video_mask": torch.ones(CLIPS, dtype=torch.bool),
    }


@torch.inference_mode()
def test_a_mixed_batch_equals_its_clips_alone(model: EmotionModel, batch: dict) -> None:
    batch["mic_mask"][1] = False  # video alone
    batch["video_mask"][2] = False  # audio alone
    together = model(**batch)
    for i in range(CLIPS):
        alone = model(**{name: tensor[i : i + 1] for name, tensor in batch.items()})
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("absent", "mask"), [("frames", "video_mask"), ("audio", "mic_mask")])
def test_the_values_of_an_absent_modality_do_not_matter(
    model: EmotionModel, batch: dict, absent: str, mask: str
) -> None:
    batch[mask][:] = False
    before = model(**batch)
    batch[absent] = torch.full_like(batch[absent], float("nan"))
    assert torch.equal(model(**batch), before)
    assert before.isfinite().all()


@torch.inference_mode()
def test_no_frames_at_all_are_absent_videos(model: EmotionModel, batch: dict) -> None:
    without = model(batch["audio"], batch["mic_mask"])
    batch["video_mask"][:] = False
    assert torch.equal(model(**batch), without)


@torch.inference_mode()
def test_both_modalities_have_an_influence(model: EmotionModel, batch: dict) -> None:
    both = model(**batch)
    assert not torch.allclose(model(**batch | {"frames": torch.zeros_like(batch["frames"])}), both, atol=1e-3)
    tone = torch.sin(torch.arange(batch["audio"].shape[-1]) / 10).expand_as(batch["audio"])
    assert not torch.allclose(model(**batch | {"audio": tone}), both, atol=1e-3)


@torch.inference_mode()
def test_of_two_experts_the_absent_one_has_no_influence(model: EmotionModel, batch: dict) -> None:
    torch.nn.init.zeros_(model.classifier.linear2.weight)  # the hidden layer has nothing to add
    torch.nn.init.zeros_(model.classifier.linear2.bias)
    own_audio = model.audio_output(batch["audio"], batch["mic_mask"]).logits
    own_video = model.classifier.video_head(torch.relu(model.video(batch["frames"])))
    both, audio, video = model(**batch, alone=True)
    torch.testing.assert_close(both, own_audio + own_video)
    torch.testing.assert_close(audio, own_audio)
    torch.testing.assert_close(video, own_video)


def test_an_absent_video_does_not_change_the_batch_norm_of_the_others(model: EmotionModel, batch: dict) -> None:
    present = torch.tensor([True, False, True, True])

    def statistics(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        model.train()
        norm = model.video.network.stem[1]
        norm.reset_running_stats()
        where_present(mask, model.classifier.absent_video, lambda rows: model.video(frames[rows]))
        return norm.running_mean.clone()

    whole = statistics(batch["frames"][present], torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(statistics(batch["frames"], present), whole)


def test_the_stand_in_learns_from_absent_clips_and_the_encoder_does_not(model: EmotionModel, batch: dict) -> None:
    batch["video_mask"][:] = False
    torch.nn.init.normal_(model.classifier.linear2.weight)  # Zero at first: the stand-in learns from the second step.
    model(**batch).sum().backward()
    assert model.classifier.absent_video.grad.abs().sum() > 0
    assert model.classifier.absent_audio.grad is None or not model.classifier.absent_audio.grad.any()
    assert all(parameter.grad is None for parameter in model.video.parameters())


def test_the_compact_network_s_layers_have_the_names_and_the_form_of_torchvision_s() -> None:
    full, compact = VideoEncoder(Video()), VideoEncoder(Video(network="compact", width=8, blocks=(2, 2, 2, 2)))
    assert set(compact.state_dict()) == set(full.state_dict())
    assert {name: tensor.ndim for name, tensor in compact.state_dict().items()} == {
        name: tensor.ndim for name, tensor in full.state_dict().items()
    }


def test_gradients_of_the_face_in_bfloat16_agree_with_float32() -> None:
    torch.manual_seed(1)
    encoder = VideoEncoder(Video(network="compact", width=8, size=64, frames=2))
    frames = torch.rand(8, 3, 2, 64, 64)

    def gradients(in_bf16: bool) -> torch.Tensor:
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            latent = encoder(frames)
        latent.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for name, p in encoder.named_parameters() if p.ndim == 5])

    exact, rounded = gradients(False), gradients(True)
    assert (exact - rounded).norm() < 0.05 * exact.norm()


def test_kinetics_weights_fill_all_but_the_head(tmp_path: Path, small: Small) -> None:
    from torchvision.models.video import r2plus1d_18

    torch.manual_seed(2)
    published = r2plus1d_18().state_dict()  # 400 classes, as published
    torch.save(published, tmp_path / "r2plus1d_18.pth")
    model = EmotionModel(small("modalities=video", "video.network=r2plus1d_18"))
    report = fill_video(model, read_video_weights(tmp_path / "r2plus1d_18.pth"), "Kinetics")
    assert torch.equal(model.video.network.stem[0].weight, published["stem.0.weight"])
    assert set(report.unused) == {"video.network.fc.weight", "video.network.fc.bias"}
    assert set(report.missing) == {"video.network.fc.1.weight", "video.network.fc.1.bias"}


def test_a_face_branch_trained_alone_starts_one_of_both(tmp_path: Path, small: Small) -> None:
    alone = EmotionModel(small("modalities=video"))
    save_checkpoint(tmp_path / "face", alone.state_dict(), alone.recipe, "# faces\n")
    both = EmotionModel(small("modalities=both"))
    initialise_video(both, str(tmp_path / "face"))
    ours, theirs = both.video.state_dict(), alone.video.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_network_the_remedy_is_named(tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing cached
    monkeypatch.setattr(torch.hub, "download_url_to_file", _offline)
    model = EmotionModel(small("modalities=both", "video.network=r2plus1d_18"))
    with pytest.raises(FarfeelError, match=r"cannot be downloaded.*--video-weights FILE.*--video-weights none"):
        initialise_video(model, None)
    initialise_video(model, "none")


def _offline(*_: object, **__: object) -> None:
    raise OSError("Network is unreachable")


def test_weights_of_another_network_are_one_clear_line(tmp_path: Path, small: Small) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(FarfeelError, match=r"no stem\.0\.weight"):
        initialise_video(EmotionModel(small("modalities=both")), str(tmp_path / "resnet.pth"))
    with pytest.raises(FarfeelError, match="modalities=audio"):
        initialise_video(EmotionModel(small()), str(tmp_path / "resnet.pth"))
