"""Laws of the simulated camera: at rest it changes nothing, and all randomness comes from the generator."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from farfeel.media.camera import fit, simulate_camera
from farfeel.recipe import Camera

UNSTEADY = Camera(
    shift=0.05, zoom=0.1, turn_deg=8, drift=0.05, mirror=0.5, upside_down=0.1, light=0.2, noise=0.02, erase=0.3
)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(count: int = 3, height: int = 40, width: int = 40) -> np.ndarray:
    return rng().integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """Pictures without detail, so that the kind of interpolation does not matter."""
    coarse = rng().integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) for picture in coarse])


def dot(size: int = 64) -> np.ndarray:
    frame = np.zeros((1, size, size, 3), dtype=np.uint8)
    cv2.circle(frame[0], (size // 2, size // 2), 4, (255, 255, 255), -1)
    return frame


def centres(video: np.ndarray) -> np.ndarray:
    """(N, 2): centre of the light in each frame, x and y in pixels."""
    light = video.mean(axis=3)
    positions = np.arange(video.shape[1])
    total = light.sum(axis=(1, 2))
    return np.stack(
        [(light.sum(axis=1) * positions).sum(1) / total, (light.sum(axis=2) * positions).sum(1) / total], axis=1
    )


@pytest.mark.parametrize("frames", [1, 3])
def test_a_camera_that_does_nothing_leaves_the_pixels_alone(frames: int) -> None:
    video = noise(frames)
    np.testing.assert_array_equal(
        simulate_camera(video, 40, 3, Camera(), rng()), np.broadcast_to(video, (3, 40, 40, 3))
    )
    assert fit(video, 40) is video


@pytest.mark.parametrize(("height", "width", "size"), [(30, 30, 48), (64, 64, 48), (36, 90, 48)])
def test_without_movement_the_whole_frame_is_fitted(height: int, width: int, size: int) -> None:
    video = smooth(2, height, width)
    fitted = fit(video, size)
    assert fitted.shape == (2, size, size, 3)
    assert fitted.dtype == np.uint8
    assert np.abs(fitted.astype(int) - simulate_camera(video, size, 2, Camera(), rng())).max() <= 6


def test_the_same_seed_gives_the_same_video_and_another_seed_another() -> None:
    video = noise()
    np.testing.assert_array_equal(
        simulate_camera(video, 40, 3, UNSTEADY, rng()), simulate_camera(video, 40, 3, UNSTEADY, rng())
    )
    assert (simulate_camera(video, 40, 3, UNSTEADY, rng(1)) != simulate_camera(video, 40, 3, UNSTEADY, rng(2))).any()


def test_the_number_of_draws_does_not_depend_on_the_pictures() -> None:
    after = []
    for video in (noise(), smooth(3, 64, 64), noise(1)):
        drawn = rng()
        simulate_camera(video, 40, 3, UNSTEADY.model_copy(update={"erase": 0.0, "noise": 0.0}), drawn)
        after.append(drawn.random())
    assert len(set(after)) == 1


@pytest.mark.parametrize("setting", ["mirror", "upside_down"])
def test_two_flips_restore_the_picture(setting: str) -> None:
    video, camera = noise(), Camera(**{setting: 1.0})
    once = simulate_camera(video, 40, 3, camera, rng())
    np.testing.assert_array_equal(once, np.flip(video, axis=2 if setting == "mirror" else 1))
    np.testing.assert_array_equal(simulate_camera(once, 40, 3, camera, rng()), video)


def test_a_still_picture_moves_by_drift_and_by_drift_alone() -> None:
    picture = noise(1)
    steady = simulate_camera(picture, 40, 5, Camera(shift=0.2, zoom=0.2, turn_deg=10), rng())
    assert (steady == steady[0]).all()
    moving = simulate_camera(picture, 40, 5, Camera(drift=0.1), rng())
    assert all((one != other).any() for one, other in pairwise(moving))


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("count", [1, 4])
def test_a_video_has_the_requested_shape(size: int, count: int) -> None:
    for video in (noise(1, 50, 30), noise(count, 30, 50)):
        recorded = simulate_camera(video, size, count, UNSTEADY, rng())
        assert recorded.shape == (count, size, size, 3)
        assert recorded.dtype == np.uint8


def test_frames_keep_their_order() -> None:
    video = np.broadcast_to(np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None], (5, 32, 32, 3))
    for seed in range(5):
        recorded = simulate_camera(video, 32, 5, Camera(shift=0.1, zoom=0.1, turn_deg=5, drift=0.1), rng(seed))
        np.testing.assert_array_equal(recorded.mean(axis=(1, 2, 3)), video.mean(axis=(1, 2, 3)))


def test_the_picture_moves_as_far_as_the_range_and_no_farther() -> None:
    shifts = np.array(
        [centres(simulate_camera(dot(), 64, 1, Camera(shift=0.1), rng(seed)))[0] - 32 for seed in range(40)]
    )
    assert np.abs(shifts).max() <= 0.1 * 64 + 0.5
    assert np.abs(shifts).max() > 0.08 * 64
    drifts = centres(simulate_camera(dot(), 64, 20, Camera(drift=0.1), rng())) - 32
    assert np.abs(drifts).max() <= 0.1 * 64 + 0.5
    assert np.abs(np.diff(drifts, axis=0)).max() < 0.05 * 64  # slowly


def test_zoom_goes_both_ways_and_stays_in_its_range() -> None:
    areas = [simulate_camera(dot(), 64, 1, Camera(zoom=0.25), rng(seed)).mean() / dot().mean() for seed in range(40)]
    assert max(areas) == pytest.approx(1.25**2, rel=0.1)
    assert min(areas) == pytest.approx(1.25**-2, rel=0.1)


def test_light_and_noise_stay_within_their_range() -> None:
    grey = np.full((2, 32, 32, 3), 128, dtype=np.uint8)
    for seed in range(20):
        lit = simulate_camera(grey, 32, 2, Camera(light=0.2), rng(seed))
        assert (lit == lit[0, 0, 0, 0]).all()
        assert abs(int(lit[0, 0, 0, 0]) - 128) <= 0.2 * 128 + 1
        assert simulate_camera(grey, 32, 2, Camera(noise=0.05), rng(seed)).std() <= 0.05 * 255 * 1.1


def test_the_hidden_part_is_one_rectangle_in_all_frames() -> None:
    video = noise(3)
    hidden = (simulate_camera(video, 40, 3, Camera(erase=1.0), rng()) != video).any(axis=3)
    rows, columns = np.flatnonzero(hidden.any(axis=(0, 2))), np.flatnonzero(hidden.any(axis=(0, 1)))
    assert 0.15 * 40 - 1 <= len(rows) <= 0.4 * 40
    assert 0.15 * 40 - 1 <= len(columns) <= 0.4 * 40
    inside = hidden[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert inside.mean() > 0.95
    assert hidden.sum() == inside.sum()
