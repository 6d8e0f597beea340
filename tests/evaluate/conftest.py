"""Prediction tables with speakers of different difficulty, as real ones have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def draw_table(
    rng: np.random.Generator,
    speakers: int = 7,
    clips: int = 24,
    rooms: tuple[str, ...] = ("dry", "lab", "lounge"),
    logit: float = 0.6,
    speaker_sd: float = 0.6,
    room_step: float = 0.5,
    emotions: tuple[str, ...] = EMOTIONS,
) -> pd.DataFrame:
    """`clips` clips of each speaker in each room. The chance that a row is right is expit(logit + speaker + emotion +
    clip - room_step · room): speakers, emotions and clips differ, and each room is harder than the one before."""
    count = len(emotions)
    speaker = np.repeat(np.arange(speakers), clips)
    target = np.tile(np.arange(clips) % count, speakers)
    ease = logit + (speaker_sd * rng.standard_normal(speakers))[speaker]
    ease = ease + np.linspace(-0.8, 0.8, count)[target] + 0.5 * rng.standard_normal(len(target))
    parts = []
    for i, room in enumerate(rooms):
        right = rng.random(len(target)) < 1 / (1 + np.exp(room_step * i - ease))
        decision = np.where(right, target, (target + rng.integers(1, count, len(target))) % count)
        scores = rng.normal(0, 1, (len(target), count))
        scores[np.arange(len(target)), decision] = scores.max(axis=1) + rng.exponential(1.5, len(target)) + 0.01
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        part = pd.DataFrame(
            {
                "clip": [f"clip-{s:02d}-{i % clips:03d}" for i, s in enumerate(speaker)],
                "speaker": [f"actor-{s + 1:02d}" for s in speaker],
                "room": room,
                "target": [emotions[t] for t in target],
                **{f"p_{emotion}": p[:, k] for k, emotion in enumerate(emotions)},
                "t60_s": 0.3 + 0.2 * i,
            }
        )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def decide(targets: list[str], decisions: list[str], emotions: tuple[str, ...], speaker: str = "a") -> pd.DataFrame:
    """A table with these targets and decisions, one clip each in one room, probability 1 on the decision."""
    return pd.DataFrame(
        {
            "clip": [f"{speaker}{i}" for i in range(len(targets))],
            "speaker": speaker,
            "room": "dry",
            "target": targets,
            **{f"p_{e}": [float(d == e) for d in decisions] for e in emotions},
        }
    )


@pytest.fixture(scope="session")
def fake_table() -> Callable[..., pd.DataFrame]:
    return draw_table


@pytest.fixture(scope="session")
def decided() -> Callable[..., pd.DataFrame]:
    return decide
