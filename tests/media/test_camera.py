"""Laws of the camera: without movement it changes nothing, its chance is the generator's, a still becomes a film."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from farfeel.media.camera import fit, shoot
from farfeel.recipe import Camera

UNSTEADY = Camera(
    shift=0.05, zoom=0.1, turn_deg=8, drift=0.05, mirror=0.5, upside_down=0.1, light=0.2, noise=0.02, erase=0.3
)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(count: int = 3, height: int = 40, width: int = 40) -> np.ndarray:
    return rng().integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """Pictures without detail, so that it does not matter how they are resized."""
    coarse = rng().integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) for picture in coarse])


def dot(size: int = 64) -> np.ndarray:
    frame = np.zeros((1, size, size, 3), dtype=np.uint8)
    cv2.circle(frame[0], (size // 2, size // 2), 4, (255, 255, 255), -1)
    return frame


def centres(film: np.ndarray) -> np.ndarray:
    """(N, 2): where the light of each frame is, x and y in pixels."""
    light = film.mean(axis=3)
    places = np.arange(film.shape[1])
    whole = light.sum(axis=(1, 2))
    return np.stack([(light.sum(axis=1) * places).sum(1) / whole, (light.sum(axis=2) * places).sum(1) / whole], axis=1)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_camera_that_does_nothing_leaves_the_pixels_alone(frames: int) -> None:
    film = noise(frames)
    np.testing.assert_array_equal(shoot(film, 40, 3, Camera(), rng()), np.broadcast_to(film, (3, 40, 40, 3)))
    assert fit(film, 40) is film


@pytest.mark.parametrize(("height", "width", "size"), [(30, 30, 48), (64, 64, 48), (36, 90, 48)])
def test_without_movement_the_whole_frame_is_fitted(height: int, width: int, size: int) -> None:
    film = smooth(2, height, width)
    fitted = fit(film, size)
    assert fitted.shape == (2, size, size, 3)
    assert fitted.dtype == np.uint8
    assert np.abs(fitted.astype(int) - shoot(film, size, 2, Camera(), rng())).max() <= 6


def test_the_same_chance_gives_the_same_film_and_another_another() -> None:
    film = noise()
    np.testing.assert_array_equal(shoot(film, 40, 3, UNSTEADY, rng()), shoot(film, 40, 3, UNSTEADY, rng()))
    assert (shoot(film, 40, 3, UNSTEADY, rng(1)) != shoot(film, 40, 3, UNSTEADY, rng(2))).any()


def test_what_one_film_draws_does_not_depend_on_what_it_shows() -> None:
    after = []
    for film in (noise(), smooth(3, 64, 64), noise(1)):
        drawn = rng()
        shoot(film, 40, 3, UNSTEADY.model_copy(update={"erase": 0.0, "noise": 0.0}), drawn)
        after.append(drawn.random())
    assert len(set(after)) == 1


@pytest.mark.parametrize("knob", ["mirror", "upside_down"])
def test_a_flip_is_one_and_two_are_none(knob: str) -> None:
    film, camera = noise(), Camera(**{knob: 1.0})
    once = shoot(film, 40, 3, camera, rng())
    np.testing.assert_array_equal(once, np.flip(film, axis=2 if knob == "mirror" else 1))
    np.testing.assert_array_equal(shoot(once, 40, 3, camera, rng()), film)


def test_a_still_becomes_a_moving_film_by_drift_and_by_drift_alone() -> None:
    still = noise(1)
    steady = shoot(still, 40, 5, Camera(shift=0.2, zoom=0.2, turn_deg=10), rng())
    assert (steady == steady[0]).all()
    moving = shoot(still, 40, 5, Camera(drift=0.1), rng())
    assert all((one != other).any() for one, other in pairwise(moving))


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("count", [1, 4])
def test_a_film_has_the_shape_that_was_asked_for(size: int, count: int) -> None:
    for film in (noise(1, 50, 30), noise(count, 30, 50)):
        found = shoot(film, size, count, UNSTEADY, rng())
        assert found.shape == (count, size, size, 3)
        assert found.dtype == np.uint8


def test_frames_keep_their_order() -> None:
    film = np.broadcast_to(np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None], (5, 32, 32, 3))
    for seed in range(5):
        filmed = shoot(film, 32, 5, Camera(shift=0.1, zoom=0.1, turn_deg=5, drift=0.1), rng(seed))
        np.testing.assert_array_equal(filmed.mean(axis=(1, 2, 3)), film.mean(axis=(1, 2, 3)))


def test_the_picture_moves_as_far_as_allowed_and_no_farther() -> None:
    shifts = np.array([centres(shoot(dot(), 64, 1, Camera(shift=0.1), rng(seed)))[0] - 32 for seed in range(40)])
    assert np.abs(shifts).max() <= 0.1 * 64 + 0.5
    assert np.abs(shifts).max() > 0.08 * 64
    drifts = centres(shoot(dot(), 64, 20, Camera(drift=0.1), rng())) - 32
    assert np.abs(drifts).max() <= 0.1 * 64 + 0.5
    assert np.abs(np.diff(drifts, axis=0)).max() < 0.05 * 64  # slowly


def test_zoom_goes_both_ways_and_no_farther_than_allowed() -> None:
    areas = [shoot(dot(), 64, 1, Camera(zoom=0.25), rng(seed)).mean() / dot().mean() for seed in range(40)]
    assert max(areas) == pytest.approx(1.25**2, rel=0.1)
    assert min(areas) == pytest.approx(1.25**-2, rel=0.1)


def test_light_and_noise_stay_within_their_range() -> None:
    grey = np.full((2, 32, 32, 3), 128, dtype=np.uint8)
    for seed in range(20):
        lit = shoot(grey, 32, 2, Camera(light=0.2), rng(seed))
        assert (lit == lit[0, 0, 0, 0]).all()
        assert abs(int(lit[0, 0, 0, 0]) - 128) <= 0.2 * 128 + 1
        assert shoot(grey, 32, 2, Camera(noise=0.05), rng(seed)).std() <= 0.05 * 255 * 1.1


def test_what_is_hidden_is_one_rectangle_in_all_frames() -> None:
    film = noise(3)
    hidden = (shoot(film, 40, 3, Camera(erase=1.0), rng()) != film).any(axis=3)
    rows, columns = np.flatnonzero(hidden.any(axis=(0, 2))), np.flatnonzero(hidden.any(axis=(0, 1)))
    assert 0.15 * 40 - 1 <= len(rows) <= 0.4 * 40
    assert 0.15 * 40 - 1 <= len(columns) <= 0.4 * 40
    inside = hidden[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert inside.mean() > 0.95
    assert hidden.sum() == inside.sum()
