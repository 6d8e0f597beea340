"""What a model is tested on, and what a user brings: recordings, and the windows that they are cut into.

In a test each clip is heard in every room once, at a source position drawn from the clip's and the room's names, and
the result is treated exactly like a user's file (`recording_windows`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from farfeel.data import Clips, window_samples
from farfeel.media.audio import speech_span
from farfeel.media.footage import Footage
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank
from farfeel.rooms.reverb import convolve, remove_common_delay
from farfeel.types import Clip

DEAD_DB = -90.0  # A channel whose peak is below this carries no signal: the microphone is dead.


@dataclass(frozen=True)
class Recording:
    """What the microphones and the camera took: audio (M, T) at the recipe's rate, and the film; one may be missing."""

    audio: np.ndarray | None
    footage: Footage | None = None


@dataclass(frozen=True)
class Take:
    """A clip as it was recorded in a room."""

    clip: Clip
    room: str
    position: str
    recording: Recording


class Recordings(Sequence[Take]):
    """Every clip in every room once; a bank of None is the dry clip itself, called `clean`.

    Lazily computed: item i is clip i // rooms in room i % rooms; with `one_room_each`, item i is clip i in one room.
    `mics` are the microphones of the bank, all by default. In a share `camera_off` of the clips with sound the
    film is missing. Room, position and missing films follow from the names of the clip and the room alone, so that two
    evaluations, of whatever subset and in whatever order, hear and see the same.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        recipe: Recipe,
        banks: Sequence[Bank] = (),
        mics: Sequence[int] | None = None,
        rooms: Sequence[str] | None = None,
        one_room_each: bool = False,
        camera_off: float = 0.0,
    ) -> None:
        self.clips = Clips(clips, recipe, trim=False)
        self.mics, self.one_room_each, self.camera_off = mics, one_room_each, camera_off
        self.rooms: list[tuple[str, Bank | None]] = [
            (room, bank) for bank in banks for room in bank.rooms if rooms is None or room in rooms
        ] or [("clean", None)]

    def __len__(self) -> int:
        return len(self.clips) * (1 if self.one_room_each else len(self.rooms))

    def __getitem__(self, index: int) -> Take:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.one_room_each:
            which, where = index, zlib.crc32(self.clips.clips[index].id.encode()) % len(self.rooms)
        else:
            which, where = divmod(index, len(self.rooms))
        clip, (room, bank) = self.clips.clips[which], self.rooms[where]
        footage = self.clips.footage(which) if self.is_filmed(clip) else None
        sound = self.clips.dry(which)
        if sound is None or bank is None:
            return Take(clip, room, "", Recording(None if sound is None else sound[0][None], footage))
        rng = np.random.default_rng(zlib.crc32(f"{clip.id}|{room}".encode()))
        chosen = int(rng.choice(bank.indices(room)))
        taps = remove_common_delay(bank.taps(chosen, self.mics))
        wet = convolve(torch.from_numpy(sound[0])[None], torch.from_numpy(taps)[None])[0].numpy()
        return Take(clip, room, bank[chosen].position, Recording(wet, footage))

    def is_filmed(self, clip: Clip) -> bool:
        """Whether there is a film of the clip, and the camera is on; where film is all there is, it always is."""
        if clip.video is None or clip.audio is None:
            return clip.video is not None
        return zlib.crc32(f"camera|{clip.id}".encode()) / 2**32 >= self.camera_off


@dataclass(frozen=True)
class Windows:
    """A recording cut for the model: audio (W, M, T) float32, mic_mask (W, M), and the span of each window that the
    recording fills, (W, 2) in seconds."""

    audio: np.ndarray
    mic_mask: np.ndarray
    spans_s: np.ndarray


def recording_windows(recording: Recording, recipe: Recipe) -> Windows:
    """Silence trimmed, cut into windows that overlap by half or more and cover the recording evenly; one shorter than
    a window lies in its centre. Without sound, the film's length is the recording's, and the microphone is dead."""
    samples, rate = window_samples(recipe), recipe.audio.sample_rate
    audio, first = recording.audio, 0
    if audio is None:
        assert recording.footage is not None, "a recording has sound or film"
        first, last = (round(moment * rate) for moment in (recording.footage.begin_s, recording.footage.end_s))
        length, alive = last - first, np.zeros(1, dtype=bool)
    else:
        alive = is_alive(audio)
        if recipe.audio.trim_silence:
            first, last = speech_span(audio, rate)
            audio = audio[:, first:last]
        length = audio.shape[1]
    surplus = max(0, length - samples)
    starts = np.linspace(0, surplus, 1 + int(np.ceil(2 * surplus / samples))).round().astype(int)
    if audio is None:
        windows = np.zeros((len(starts), 1, samples), dtype=np.float32)
    elif length < samples:
        before = (samples - length) // 2
        windows = np.pad(audio, ((0, 0), (before, samples - length - before)))[None]
    else:
        windows = np.stack([audio[:, start : start + samples] for start in starts])
    spans_s = (first + np.stack([starts, starts + min(samples, length)], axis=1)) / rate
    return Windows(windows, np.tile(alive, (len(starts), 1)), spans_s)


def is_alive(audio: np.ndarray) -> np.ndarray:
    """(M, T) → (M,) bool: microphones that carry a signal."""
    return np.abs(audio).max(axis=1) >= 10 ** (DEAD_DB / 20)
