"""A simulated camera, for augmentation: pointing error, drift during the recording, light and sensor noise.

`simulate_camera` passes frames through one camera with random parameters. From a still picture it makes a video. All
random numbers come from the generator that is passed in. Each frame is warped only once, so it is interpolated once.
"""

from __future__ import annotations

import cv2
import numpy as np

from farfeel.recipe import Camera


def simulate_camera(frames: np.ndarray, size: int, count: int, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Record frames with a camera whose parameters are drawn at random. Areas outside a frame repeat its edge.

    Args:
        frames: (N, H, W, 3) uint8, where N is `count`, or 1 for a still picture.
        size: Side of the square output frames, in pixels.
        count: Number of output frames.
        camera: The ranges that the parameters are drawn from (the recipe's `camera` section).
        rng: Source of all random numbers.

    Returns:
        (count, size, size, 3) uint8.
    """
    mirrored, upside_down = rng.random(2) < (camera.mirror, camera.upside_down)
    shift = camera.shift * rng.uniform(-1, 1, 2) + camera.drift * _drift(count, 2, rng)  # (count, 2), share of the size
    zoom = np.exp2(np.log2(1 + camera.zoom) * (rng.uniform(-1, 1) + 0.5 * camera.drift * _drift(count, 1, rng)[:, 0]))
    turn = np.deg2rad(camera.turn_deg) * (rng.uniform(-1, 1) + camera.drift * _drift(count, 1, rng)[:, 0])
    gain = 1 + camera.light * rng.uniform(-1, 1)
    bias = 128 * camera.light * rng.uniform(-1, 1)
    recorded = np.empty((count, size, size, 3), dtype=np.uint8)
    for i in range(count):
        frame = frames[i if len(frames) > 1 else 0]
        matrix = _matrix(frame.shape, size, shift[i], zoom[i], turn[i], mirrored, upside_down)
        cv2.warpAffine(
            frame, matrix, (size, size), recorded[i], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    if camera.light or camera.noise:
        lit = recorded.astype(np.float32) * gain + (bias + 128 * (1 - gain))
        if camera.noise:
            lit += 255 * camera.noise * rng.random() * rng.standard_normal(recorded.shape, dtype=np.float32)
        recorded = np.clip(lit, 0, 255).astype(np.uint8)
    if camera.erase and rng.random() < camera.erase:
        height, width = (rng.uniform(0.15, 0.4, 2) * size).astype(int)
        top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
        # A rectangle hides a part of the face, as a hand, a cup or a microphone does.
        recorded[:, top : top + height, left : left + width] = int(recorded.mean())
    return recorded


def fit(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize whole frames to a square, without keeping their aspect ratio.

    Args:
        frames: (N, H, W, 3) uint8.
        size: Side of the square, in pixels.

    Returns:
        (N, size, size, 3) uint8. Frames of that size already are returned as they are.
    """
    if frames.shape[1:3] == (size, size):
        return frames
    interpolation = cv2.INTER_AREA if min(frames.shape[1:3]) > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=interpolation) for frame in frames])


def _drift(count: int, axes: int, rng: np.random.Generator) -> np.ndarray:
    """(count, axes) within [-1, 1]: a slow oscillation of 0.2 to 1 periods, like that of a hand or a head."""
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
    """Affine matrix (2, 3) from the pixels of the input frame to those of the output frame."""
    height, width = shape[:2]
    scale = np.array([size / width, size / height]) * zoom
    flip = np.diag([-1.0 if mirrored else 1.0, -1.0 if upside_down else 1.0])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = rotation @ flip @ np.diag(scale)
    centre_in, centre_out = np.array([(width - 1) / 2, (height - 1) / 2]), (size - 1) / 2 + shift * size
    return np.column_stack([linear, centre_out - linear @ centre_in])
