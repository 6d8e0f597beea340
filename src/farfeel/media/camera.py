"""What a camera does to a face: where it points, how it drifts while it films, the light, the sensor's noise.

`shoot` films frames through one camera drawn at random; on a still it makes a film of it. All of it is drawn from the
generator that is passed in, and one warp does every movement, so that a frame is interpolated once.
"""

from __future__ import annotations

import cv2
import numpy as np

from farfeel.recipe import Camera


def shoot(frames: np.ndarray, size: int, count: int, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """frames (N, H, W, 3) uint8 → (count, size, size, 3) uint8, N being `count` or 1 (a still).

    Each frame is fitted to the size; what a movement brings in from outside the frame repeats its edge.
    """
    mirrored, upside_down = rng.random(2) < (camera.mirror, camera.upside_down)
    shift = camera.shift * rng.uniform(-1, 1, 2) + camera.drift * _wander(
        count, 2, rng
    )  # (count, 2), share of the size
    zoom = np.exp2(np.log2(1 + camera.zoom) * (rng.uniform(-1, 1) + 0.5 * camera.drift * _wander(count, 1, rng)[:, 0]))
    turn = np.deg2rad(camera.turn_deg) * (rng.uniform(-1, 1) + camera.drift * _wander(count, 1, rng)[:, 0])
    gain = 1 + camera.light * rng.uniform(-1, 1)
    bias = 128 * camera.light * rng.uniform(-1, 1)
    filmed = np.empty((count, size, size, 3), dtype=np.uint8)
    for i in range(count):
        frame = frames[i if len(frames) > 1 else 0]
        matrix = _matrix(frame.shape, size, shift[i], zoom[i], turn[i], mirrored, upside_down)
        cv2.warpAffine(frame, matrix, (size, size), filmed[i], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if camera.light or camera.noise:
        lit = filmed.astype(np.float32) * gain + (bias + 128 * (1 - gain))
        if camera.noise:
            lit += 255 * camera.noise * rng.random() * rng.standard_normal(filmed.shape, dtype=np.float32)
        filmed = np.clip(lit, 0, 255).astype(np.uint8)
    if camera.erase and rng.random() < camera.erase:
        height, width = (rng.uniform(0.15, 0.4, 2) * size).astype(int)
        top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
        filmed[:, top : top + height, left : left + width] = int(filmed.mean())  # a hand, a cup, a microphone
    return filmed


def fit(frames: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 → (N, size, size, 3), the whole of each frame."""
    if frames.shape[1:3] == (size, size):
        return frames
    area = cv2.INTER_AREA if min(frames.shape[1:3]) > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=area) for frame in frames])


def _wander(count: int, axes: int, rng: np.random.Generator) -> np.ndarray:
    """(count, axes) in about [-1, 1]: half a period or so of a slow oscillation, as of a hand or a head."""
    cycles, phase = rng.uniform(0.2, 1.0, axes), rng.uniform(0, 2 * np.pi, axes)
    time = np.arange(count)[:, None] / max(count - 1, 1)
    return np.sin(2 * np.pi * cycles * time + phase)


def _matrix(
    shape: tuple[int, ...],
    size: int,
    shift: np.ndarray,
    zoom: float,
    turn: float,
    mirrored: bool,
    upside_down: bool,
) -> np.ndarray:
    """Affine (2, 3) from the frame's pixels to the film's."""
    height, width = shape[:2]
    scale = np.array([size / width, size / height]) * zoom
    flip = np.diag([-1.0 if mirrored else 1.0, -1.0 if upside_down else 1.0])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = rotation @ flip @ np.diag(scale)
    centre_in, centre_out = np.array([(width - 1) / 2, (height - 1) / 2]), (size - 1) / 2 + shift * size
    return np.column_stack([linear, centre_out - linear @ centre_in])
