"""The network in PyTorch, on any of its devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.video_networks import to_frames
from farfeel.recipe import Recipe


class TorchEngine:
    """`precision` of the network: "32" or "bf16" (autocast)."""

    def __init__(self, model: EmotionModel, device: str | torch.device = "cpu", precision: str = "32") -> None:
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self.in_bf16 = precision == "bf16"

    @classmethod
    def load(cls, checkpoint: Path, device: str | torch.device = "cpu", precision: str = "32") -> TorchEngine:
        return cls(load_checkpoint(checkpoint), device, precision)

    @property
    def recipe(self) -> Recipe:
        return self.model.recipe

    @property
    def temperature(self) -> np.ndarray:
        return self.model.temperature.double().cpu().numpy()

    @torch.inference_mode()
    def probabilities(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        video = None if frames is None else to_frames(self._on_device(frames))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16):
            result = self.model.probabilities(
                self._on_device(audio), self._on_device(mic_mask), video, self._on_device(seen)
            )
        return result.double().cpu().numpy()

    def _on_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
