"""Drawn faces differ where their expressions do, move with the speech, and are the same for the same seed."""

from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pytest

from farfeel.corpora.drawn_faces import FPS, Expression, draw_expression, draw_person, draw_video
from farfeel.corpora.synthetic import SAME_FACE
from farfeel.types import EMOTIONS

PAIRS = list(combinations(EMOTIONS, 2))
LOUDNESS = np.abs(np.sin(1.1 * np.arange(25)))


def drawn(expression: Expression, loudness: np.ndarray = LOUDNESS, person: int = 1) -> np.ndarray:
    """(N, 64, 64, 3) of one person in one light, as int so that differences keep their sign."""
    looks = draw_person(np.random.default_rng(person))
    return draw_video(looks, expression, loudness, np.random.default_rng(7)).astype(int)


def expressions(emotion: str) -> np.ndarray:
    """(200, actions) drawn for clips 0 to 199; turned aside to either side is the same."""
    drawn = [draw_expression(emotion, np.random.default_rng(clip)) for clip in range(200)]
    return np.array([list(asdict(replace(one, head_aside=abs(one.head_aside))).values()) for one in drawn])


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_emotions_look_alike_only_where_it_is_documented(pair: tuple[str, str]) -> None:
    first, second = map(expressions, pair)
    assert np.array_equal(first, second) == (pair in SAME_FACE)
    # Elsewhere the means of at least one action lie apart by more than a clip deviates.
    apart = np.abs(first.mean(axis=0) - second.mean(axis=0)) / (0.5 * (first.std(axis=0) + second.std(axis=0)))
    assert (apart.max() > 2) == (pair not in SAME_FACE)


@pytest.mark.parametrize("action", asdict(Expression()))
def test_every_action_changes_the_picture(action: str) -> None:
    rest, moved = drawn(Expression()), drawn(Expression(**{action: 1.0}))
    assert np.abs(moved - rest)[12:].max() > 40


def test_a_face_begins_near_rest_and_reaches_its_expression_within_a_second() -> None:
    difference = np.abs(drawn(Expression(corners=1.0)) - drawn(Expression())).mean(axis=(1, 2, 3))
    assert difference[0] < 0.2 * difference.max()
    assert difference[round(FPS) :].min() > 0.3 * difference.max()


def test_the_mouth_opens_with_the_speech() -> None:
    silent, speaking = drawn(Expression(), np.zeros(25)), drawn(Expression(), LOUDNESS)
    change = np.abs(speaking - silent)[:, 32:].mean(axis=(1, 2, 3))
    assert np.corrcoef(change, LOUDNESS)[0, 1] > 0.8


def test_same_seed_same_video_and_another_person_another() -> None:
    expression = draw_expression("happy", np.random.default_rng(3))
    first = drawn(expression)
    assert np.array_equal(first, drawn(expression))
    assert np.abs(first - drawn(expression, person=2)).mean() > 5


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_video_has_one_frame_per_loudness(count: int) -> None:
    frames = drawn(Expression(jaw=1.0), LOUDNESS[:count])
    assert frames.shape == (count, 64, 64, 3)


def test_strong_expressions_stay_drawable() -> None:
    for strength in (-2.0, 2.0):  # beyond what chance draws
        frames = drawn(Expression(**dict.fromkeys(asdict(Expression()), strength)))
        assert frames.std() > 5
