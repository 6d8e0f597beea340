"""The acoustic scene of one recording: microphones in a room, the speaker, and everything else that sounds there.

Training, testing and preparing share it. They differ only in how positions, talkers and levels are drawn: training
draws anew in each epoch, a test draws from names alone, and preparing draws a permutation of the bank for each clip.
Convolution and mixing of whole batches are in `farfeel.rooms.reverb`, in PyTorch. Nothing here imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from farfeel.rooms.acoustics import remove_common_delay
from farfeel.rooms.bank import Bank


@dataclass(frozen=True)
class Material:
    """What noise can be made from.

    positions: whether the positions of other sources in the room are known. speakers: how many speak in the clips.
    recordings: audio files of noise, from the folder `noise_folder`.
    """

    positions: bool
    speakers: int
    recordings: tuple[Path, ...] = ()
    noise_folder: str | None = None


@dataclass(frozen=True)
class Scene:
    """M microphones that record T samples in a room, or in no room at all.

    mics: M. samples: T. sample_rate: in Hz. rng: everything random is drawn from it. recordings: audio files of noise.
    draw_positions: a count → as many responses (M, L) of positions in the room; unit impulses where there is no room.
    draw_talkers: → the dry speech (T_k,) of other speakers, and the response (M, L_k) of the position of each.
    """

    mics: int
    samples: int
    sample_rate: int
    rng: np.random.Generator
    draw_positions: Callable[[int], list[np.ndarray]]
    draw_talkers: Callable[[], tuple[list[np.ndarray], list[np.ndarray]]]
    recordings: Sequence[Path] = ()

    def draw_position(self) -> np.ndarray:
        """The response (M, L) of one position in the room."""
        (response,) = self.draw_positions(1)
        return response

    def draw_recording(self) -> Path:
        """One of the audio files of noise."""
        return self.recordings[int(self.rng.integers(len(self.recordings)))]

    def sound_from(self, dry: np.ndarray, response: np.ndarray) -> np.ndarray:
        """A steady sound (T',) at a position with the response (M, L) → (M, T) float32, at the microphones.

        The sound begins early enough to fill the room before the first sample. A stretch of it is drawn; a sound that
        is too short begins at any of its samples and is repeated.
        """
        before = response.shape[1] - 1
        length = int(next_fast_len(self.samples + before, real=True))
        spectrum = rfft(np.asarray(draw_stretch(dry[None], self.samples + before, self.rng), np.float32), length)
        # The convolution is circular: its wrapped end falls on the samples before the room is filled.
        wet = irfft(spectrum * rfft(np.asarray(response, np.float32), length), length)
        return np.asarray(wet[:, before : before + self.samples], dtype=np.float32)


def response_of(bank: Bank, index: int, mics: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """A response (M, L) of a bank at some of its microphones (None: all), without the delay that they share."""
    return remove_common_delay(bank.taps(index, mics))


def no_room(mics: int) -> np.ndarray:
    """Unit impulses (M, 1): what a sound meets where there is no room."""
    return np.ones((mics, 1), np.float32)


def in_room(dry: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Dry speech (T,), response (M, L) → (M, T) float32.

    The result is that of `reverb.convolve`, but with the same bits in every process.
    """
    samples = len(dry)
    response = response[:, :samples]
    n_fft = next_fast_len(samples + response.shape[1] - 1, real=True)
    wet = irfft(rfft(dry, n_fft) * rfft(response, n_fft, axis=1), n_fft, axis=1)
    return np.asarray(wet[:, :samples], dtype=np.float32)


def draw_stretch(audio: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(M, T') → (M, T): a random stretch; audio that is too short begins at any sample and is repeated."""
    surplus = audio.shape[1] - samples
    if surplus >= 0:
        start = int(rng.integers(surplus + 1))
        return audio[:, start : start + samples]
    indices = (int(rng.integers(audio.shape[1])) + np.arange(samples)) % audio.shape[1]
    return audio[:, indices]


def draw_dead(mics: int, dead: int, rng: np.random.Generator) -> np.ndarray:
    """(M,) bool: False for so many dead microphones, True for the working ones."""
    working = np.ones(mics, dtype=bool)
    working[rng.permutation(mics)[:dead]] = False
    return working


def draw_working(mics: int, failure: float, rng: np.random.Generator) -> np.ndarray:
    """(M,) bool: each microphone is dead with the chance `failure`, but one at least works."""
    working = rng.random(mics) >= failure
    working[rng.integers(mics)] = True
    return np.asarray(working)
