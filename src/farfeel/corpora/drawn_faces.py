"""Drawn faces for the embedded corpus: a person, an expression and the loudness of the speech → frames.

Lengths are in half heads: the head's centre is (0, 0), its top (0, -1), its chin (0, 1); x to the right, y down.
Each shape is an outline (N, P, 2), P points in each of N frames, drawn in one colour. The head's pose moves all shapes.

An expression is a set of muscle actions, from 0 (rest) to 1 (the most that a face can do). They are action units of the
Facial Action Coding System (Ekman and Friesen, 1978), combined as Ekman and Friesen (1983, EMFACS) give them for
emotions. How a head moves, and how strong the actions are, was chosen here. The strength differs from clip to clip, so
expressions overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np

SIZE = 64  # pixels, height and width
FPS = 12.5
_FINE = 2  # Shapes are drawn so many times larger and then reduced: thin lines keep fractions of a pixel.
_SHIFT = 4  # Points go to OpenCV in sixteenths of a pixel.

Colour = tuple[int, int, int]  # RGB

_SKINS = np.array([(255, 224, 196), (238, 195, 154), (206, 150, 108), (150, 98, 64), (96, 60, 42)])
_HAIRS: tuple[Colour, ...] = ((28, 22, 20), (70, 44, 28), (120, 76, 40), (206, 168, 96), (150, 64, 30), (176, 172, 168))
_EYES: tuple[Colour, ...] = ((60, 36, 22), (52, 90, 130), (70, 104, 62), (30, 24, 22))
_WHITE: Colour = (244, 242, 238)
_DARK: Colour = (40, 14, 18)  # inside the mouth


@dataclass(frozen=True)
class Person:
    """A speaker's looks."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    shirt: Colour
    wall: Colour
    head_width: float
    jaw_width: float  # relative to the head's
    eye_spacing: float
    eye_size: float
    brow_height: float
    brow_weight: float
    nose_length: float
    mouth_width: float
    hairline: float
    hair_volume: float
    hair_length: float


@dataclass(frozen=True)
class Expression:
    """What an emotion does to a face; action units are in brackets."""

    inner_brows: float = 0.0  # raised (1)
    outer_brows: float = 0.0  # raised (2)
    frown: float = 0.0  # brows lowered and drawn together (4)
    wide_eyes: float = 0.0  # upper lids raised (5)
    squint: float = 0.0  # cheeks and lower lids raised (6, 7)
    sneer: float = 0.0  # nose wrinkled, upper lip raised (9, 10)
    corners: float = 0.0  # of the mouth, up (12), below 0 down (15)
    stretch: float = 0.0  # mouth wider (20), below 0 narrower (23)
    jaw: float = 0.0  # open (26)
    head_down: float = 0.0  # (54), below 0 up (53)
    head_aside: float = 0.0  # turned and tilted (51, 55)
    head_near: float = 0.0  # (57), below 0 drawn back (58)
    nodding: float = 0.0  # with the syllables


_NONE = Expression()
_ALARM = Expression(0.9, 0.9, 0.0, 1.0, 0.0, 0.0, -0.1, -0.3, 0.55, -0.3, 0.0, -0.8, 0.0)

_EXPRESSIONS = {  # brows inner, outer, frown; eyes wide, squint; sneer, corners, stretch, jaw; head down … nodding
    "neutral": _NONE,
    "calm": _NONE,
    "happy": Expression(0.2, 0.2, 0.0, 0.0, 0.8, 0.0, 1.0, 0.7, 0.25, -0.2, 0.2, 0.1, 0.8),
    "sad": Expression(1.0, -0.5, 0.3, -0.6, 0.0, 0.0, -0.9, -0.1, 0.0, 0.9, 0.5, -0.2, 0.0),
    "angry": Expression(-0.3, 0.4, 1.0, 0.4, 0.5, 0.2, -0.5, -0.3, 0.15, 0.3, 0.0, 0.9, 0.6),
    "fearful": _ALARM,
    "disgust": Expression(-0.2, -0.2, 0.6, -0.2, 0.8, 1.0, -0.5, 0.0, 0.1, -0.4, 0.8, -0.4, 0.0),
    "surprised": _ALARM,
}
_WEAKEST, _STRONGEST = 0.6, 1.15
_SPREAD = 0.15  # standard deviation of every action between clips of one emotion and speaker


def draw_person(rng: np.random.Generator) -> Person:
    """The looks of a speaker, drawn at random."""
    tone = rng.uniform(0, len(_SKINS) - 1)
    skin = [np.interp(tone, range(len(_SKINS)), channel) for channel in _SKINS.T]
    hair = _HAIRS[rng.integers(len(_HAIRS))] if tone < 2 else _HAIRS[rng.integers(2)]
    return Person(
        skin=_colour(skin),
        hair=hair,
        iris=_EYES[rng.integers(len(_EYES))] if tone < 2 else _EYES[0],
        lips=_colour(np.add(np.multiply(skin, (0.82, 0.55, 0.55)), (10, 0, 6))),
        shirt=_colour(rng.uniform(30, 220, 3)),
        wall=_colour(rng.uniform(90, 210) + rng.uniform(-45, 45, 3)),
        head_width=rng.uniform(0.68, 0.8),
        jaw_width=rng.uniform(0.78, 0.95),
        eye_spacing=rng.uniform(0.29, 0.34),
        eye_size=rng.uniform(0.9, 1.12),
        brow_height=rng.uniform(0.24, 0.3),
        brow_weight=rng.uniform(0.045, 0.085),
        nose_length=rng.uniform(0.3, 0.4),
        mouth_width=rng.uniform(0.24, 0.31),
        hairline=rng.uniform(-0.75, -0.52),
        hair_volume=rng.uniform(0.03, 0.22),
        hair_length=rng.choice((-0.2, 0.0, 0.5, 1.1)) + rng.uniform(-0.1, 0.1),
    )


def draw_expression(emotion: str, rng: np.random.Generator) -> Expression:
    """The emotion's expression, stronger or weaker, and with the clip's own deviation in everything."""
    strength = rng.uniform(_WEAKEST, _STRONGEST)
    side = rng.choice((-1.0, 1.0))
    drawn = {
        action: strength * full + _SPREAD * rng.standard_normal()
        for action, full in asdict(_EXPRESSIONS[emotion]).items()
    }
    return Expression(**{**drawn, "head_aside": side * drawn["head_aside"]})


def draw_video(person: Person, expression: Expression, loudness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 64, 64, 3) uint8 RGB at 12.5 frames a second: the person speaks with this expression.

    `loudness` (N,) in [0, 1], that of the speech in each frame, opens the mouth. The face begins near rest and reaches
    the expression after about half a second. It then varies with the speech.
    """
    actions = _course(expression, loudness, rng)
    to_pixels = _pose(actions, loudness, rng)
    picture, light = _surroundings(person, rng)
    shapes = [(to_pixels(points), colour, weight) for points, colour, weight in _shapes(person, actions)]
    frames = np.empty((len(loudness), SIZE, SIZE, 3), np.uint8)
    for index, frame in enumerate(frames):
        canvas = picture.copy()
        for points, colour, weight in shapes:
            if weight:
                cv2.polylines(canvas, [points[index]], False, colour, weight, cv2.LINE_AA, _SHIFT)
            else:
                cv2.fillPoly(canvas, [points[index]], colour, cv2.LINE_AA, _SHIFT)
        small = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        cv2.multiply(small, light, dst=frame, dtype=cv2.CV_8U)
    return frames


def _course(expression: Expression, loudness: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Action → (N, 1) over time: an onset, then a level that varies with the speech; `lids` (1 open) blink."""
    count = len(loudness)
    time_s = np.arange(count) / FPS
    onset = np.clip((time_s - rng.uniform(0.0, 0.2)) / rng.uniform(0.3, 0.5), 0, 1)
    level = onset**2 * (3 - 2 * onset) * (0.85 + 0.3 * (_smooth(loudness) - 0.5))
    actions = {action: (apex * level)[:, None] for action, apex in asdict(expression).items()}
    actions["jaw"] = np.clip(actions["jaw"] + 0.4 * loudness[:, None], 0, 1.2)
    actions["squint"], actions["sneer"] = (np.maximum(actions[action], 0) for action in ("squint", "sneer"))
    actions["lids"] = np.ones((count, 1))
    blink = int(FPS * rng.uniform(0, 2.5))
    while blink < count:
        actions["lids"][blink : blink + 2] = 0.1
        blink += int(FPS * rng.uniform(1.2, 3.5))
    return actions


def _pose(
    actions: dict[str, np.ndarray], loudness: np.ndarray, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """The head's pose in each frame: a function (N, P, 2) half heads → (N, P, 2) int32 parts of a fine pixel."""
    time_s = np.arange(len(loudness))[:, None] / FPS
    sway = [rng.uniform(0.3, 1) * np.sin(2 * np.pi * (rng.uniform(0.15, 0.5) * time_s + rng.uniform())) for _ in "xy"]
    unit = SIZE * rng.uniform(0.37, 0.42) * (1 + 0.09 * actions["head_near"])
    centre = SIZE / 2 + rng.uniform(-2.5, 2.5, 2) + (0, 1.5)
    nod = 2.2 * actions["nodding"] * (_smooth(loudness)[:, None] - 0.5)
    x = centre[0] + sway[0] + 2.0 * actions["head_aside"]
    y = centre[1] + sway[1] + 2.5 * actions["head_down"] + nod
    tilt = 0.2 * actions["head_aside"] + rng.normal(0, 0.04)
    cosine, sine = unit * np.cos(tilt), unit * np.sin(tilt)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        across, down = points[..., 0], points[..., 1]
        placed = np.stack([x + cosine * across - sine * down, y + sine * across + cosine * down], axis=-1)
        # OpenCV counts from the middle of the first pixel, the picture from its edge.
        return np.round((placed * _FINE - 0.5) * 2**_SHIFT).astype(np.int32)

    return to_pixels


def _surroundings(person: Person, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A wall with the shoulders before it, (128, 128, 3) uint8, and the light on each pixel, (64, 64, 3) float32."""
    size = SIZE * _FINE
    picture = np.full((size, size, 3), person.wall, np.uint8)
    picture[:, : int(size * rng.uniform(0, 0.4))] = _shaded(person.wall, rng.uniform(0.75, 0.95))
    middle = size // 2
    cv2.ellipse(picture, (middle, size + 8), (size * 4 // 9, size // 5), 0, 0, 360, person.shirt, -1, cv2.LINE_AA)
    ramp = np.linspace(-0.5, 0.5, SIZE)
    slopes = rng.uniform(-0.4, 0.4, 2)
    light = rng.uniform(0.65, 1.1) * (1 + slopes[0] * ramp[None, :] + slopes[1] * ramp[:, None])
    tint = 1 + rng.uniform(-0.08, 0.08, 3)
    return picture, (light[..., None] * tint).astype(np.float32)


def _shapes(person: Person, actions: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, Colour, int]]:
    """Outlines (N, P, 2) in the order of drawing, each with its colour and, for a line, its width in fine pixels."""
    yield from _head(person, actions)
    # Features slide over the skull as it turns, which looks like depth.
    slide = np.stack([0.16 * actions["head_aside"], 0.08 * actions["head_down"]], axis=-1)
    for features in (_eyes(person, actions), _nose(person, actions), _mouth(person, actions)):
        for points, colour, weight in features:
            yield points + slide, colour, weight


def _head(person: Person, actions: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, Colour, int]]:
    still = np.zeros_like(actions["jaw"])
    angle = np.linspace(0, 2 * np.pi, 33)[None, :]
    x, y = np.cos(angle), np.sin(angle)
    width, volume = person.head_width, person.hair_volume
    hair_x = (width + 0.6 * volume) * np.where(y < 0, x, np.sign(x) * np.abs(x) ** 0.3)  # falls straight down
    hair_y = np.where(y < 0, (1 + volume) * y, max(person.hair_length, 0.1) * y)
    yield _points(still + hair_x, still + hair_y), person.hair, 0
    yield _points(still + 0.3 * x, still + 0.9 + 0.4 * y), _shaded(person.skin, 0.8), 0  # neck
    for side in (-1, 1):
        yield _points(still + side * width + 0.09 * x, still + 0.02 + 0.17 * y), _shaded(person.skin, 0.88), 0
    narrowing = np.where(y > 0, 1 - (1 - person.jaw_width) * np.maximum(y, 0) * 1.2, 1)
    chin = np.where(y > 0, y * (1 + 0.1 * actions["jaw"]), y)
    yield _points(still + width * x * narrowing, chin), person.skin, 0
    across = np.linspace(-1, 1, 13)[None, :]
    top = -(1 + 0.5 * volume) * np.sqrt(np.maximum(1 - across**2, 0))
    hairline = np.where(np.abs(across) < 0.85, person.hairline + 0.3 * across**4, -0.1)
    cap_x = 1.02 * width * np.concatenate([across, across[:, ::-1]], axis=1)
    yield _points(still + cap_x, still + np.concatenate([np.minimum(top, hairline), hairline], axis=1)), person.hair, 0


def _eyes(person: Person, actions: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, Colour, int]]:
    along = np.linspace(-1, 1, 9)[None, :]  # of the eye, from the nose outwards
    angle = np.linspace(0, 2 * np.pi, 17)[None, :]
    outwards = np.linspace(0, 1, 5)[None, :]  # of the brow
    size, middle_y = person.eye_size, -0.12
    up = 0.105 * size * np.maximum(1 + 0.6 * actions["wide_eyes"] - 0.35 * actions["squint"], 0.25) * actions["lids"]
    down = 0.065 * size * np.maximum(1 + 0.2 * actions["wide_eyes"] - 0.8 * actions["squint"], 0.1) * actions["lids"]
    slant = 0.03 * (actions["inner_brows"] - actions["outer_brows"] - actions["frown"]) * along
    for side in (-1, 1):
        x = side * person.eye_spacing + 0.17 * size * side * along
        upper, lower = (middle_y + slant + reach * (1 - along**2) for reach in (-up, down))
        yield (
            _points(np.concatenate([x, x[:, ::-1]], axis=1), np.concatenate([upper, lower[:, ::-1]], axis=1)),
            _WHITE,
            0,
        )
        iris = 0.095 * size
        within = 1 - (iris / (0.17 * size)) ** 2 * np.cos(angle) ** 2
        iris_y = np.clip(middle_y + 0.02 * actions["head_down"] + iris * np.sin(angle), middle_y - up * within, None)
        iris_y = np.minimum(iris_y, middle_y + down * within)
        yield _points(side * person.eye_spacing + iris * np.cos(angle), iris_y), person.iris, 0
        yield _points(x, upper), _shaded(person.skin, 0.4), 2
        brow_x = side * (person.eye_spacing - 0.2 + 0.4 * outwards - 0.08 * actions["frown"] * (1 - outwards))
        brow_y = middle_y - person.brow_height - 0.05 * np.sin(np.pi * outwards)
        brow_y = brow_y - 0.17 * actions["inner_brows"] * (1 - outwards) - 0.15 * actions["outer_brows"] * outwards
        brow_y = brow_y + 0.15 * actions["frown"] * (1 - 0.6 * outwards) + 0.04 * actions["sneer"]
        yield _points(brow_x, brow_y), _shaded(person.hair, 0.7), _line(person.brow_weight)


def _nose(person: Person, actions: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, Colour, int]]:
    shade = _shaded(person.skin, 0.68)
    tip = -0.06 + person.nose_length - 0.09 * actions["sneer"]
    wings = np.array([[-0.12, -0.05, 0.0, 0.05, 0.12]]) * (1 + 0.3 * actions["sneer"])
    yield _points(wings, tip + np.array([[-0.05, 0.01, 0.03, 0.01, -0.05]])), shade, 2
    bridge = np.array([[-0.03, -0.05, -0.06]])
    yield _points(bridge + 0 * tip, np.concatenate([0 * tip - 0.12, tip - 0.2, tip - 0.04], axis=1)), shade, 1
    for side in (-1, 1):  # wrinkles beside the bridge, folds from the nose's wings
        wrinkle = 0.11 * actions["sneer"] * np.array([[0.0, 1.0]])
        for height in (-0.12, -0.04):
            yield _points(side * (0.02 + wrinkle), height - 0.6 * wrinkle + 0 * tip), shade, 1
        fold = np.maximum(actions["sneer"], np.maximum(actions["corners"], 0)) * np.array([[0.0, 0.5, 1.0]])
        yield _points(side * (0.16 + 0.2 * fold), tip - 0.05 + 0.28 * fold), shade, 1


def _mouth(person: Person, actions: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, Colour, int]]:
    along = np.linspace(-1, 1, 13)[None, :]
    arch = 1 - along**2
    x = person.mouth_width * (1 + 0.25 * actions["stretch"] + 0.12 * actions["corners"]) * along
    line = 0.5 - 0.17 * actions["corners"] * (along**2 - 0.4)
    upper = line - arch * (0.01 + 0.08 * actions["jaw"]) - 0.12 * actions["sneer"] * arch**0.5
    lower = line + arch * (0.01 + 0.34 * actions["jaw"])
    x_round = np.concatenate([x, x[:, ::-1]], axis=1)
    lips = np.concatenate([upper - 0.05 * arch**0.5, (lower + 0.07 * arch**0.5)[:, ::-1]], axis=1)
    yield _points(x_round, lips), person.lips, 0
    yield _points(x_round, np.concatenate([upper, lower[:, ::-1]], axis=1)), _DARK, 0
    teeth = np.minimum(upper + 0.09 * arch**0.5, lower)
    yield _points(0.92 * x_round, np.concatenate([upper, teeth[:, ::-1]], axis=1)), _WHITE, 0


def _points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x and y, (N, P) both after broadcasting → (N, P, 2)."""
    return np.stack(np.broadcast_arrays(x, y), axis=-1)


def _smooth(loudness: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(loudness, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")


def _line(width: float) -> int:
    return max(1, round(width * 0.4 * SIZE * _FINE))


def _colour(values: Sequence[float] | np.ndarray) -> Colour:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue


def _shaded(colour: Colour, share: float) -> Colour:
    return _colour(np.multiply(colour, share))
