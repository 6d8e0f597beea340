"""Laws of the augmentation of log-mels."""

import torch

from farfeel.models.augment import Warp
from farfeel.recipe import Augment


def tones(clips: int = 64) -> torch.Tensor:
    """(clips, 3, 64, 100) with one loud spot in band 40, frame 70."""
    mels = torch.full((clips, 3, 64, 100), -60.0)
    mels[:, :, 39:42, 69:72] = 0.0
    return mels


def test_a_warp_moves_bands_and_frames_within_its_limits_and_alike_at_all_microphones() -> None:
    torch.manual_seed(1)
    warped = Warp(Augment(vtlp=0.1, tempo=0.2)).train()(tones())
    assert torch.equal(warped[:, 0], warped[:, 1])
    spot = warped[:, 0].flatten(1).argmax(dim=1)
    band, frame = spot // 100, spot % 100
    assert 35 <= band.min() < 40 < band.max() <= 45  # 40 / 1.1 to 40 / 0.9
    assert 64 <= frame.min() < 70 < frame.max() <= 76  # from the middle: 49.5 + 20.5 / 1.2 to 49.5 + 20.5 / 0.8


def test_no_warp_outside_training() -> None:
    assert torch.equal(Warp(Augment(vtlp=0.1, tempo=0.2)).eval()(tones()), tones())
    assert torch.equal(Warp(Augment()).train()(tones()), tones())
