"""What a model is tested on: every clip as it was recorded in every room; and the prediction table of it.

In a test each clip is heard in every room once, at a source position drawn from the clip's and the room's names, and
the result is treated exactly like a user's file (`Recognizer.probabilities`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from farfeel.data import Clips
from farfeel.infer import Recognizer
from farfeel.recipe import Recipe
from farfeel.recordings import Recording
from farfeel.rooms.bank import Bank
from farfeel.rooms.reverb import convolve, remove_common_delay
from farfeel.types import Clip

BATCH_RECORDINGS = 16  # in memory at once


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


def prediction_table(
    recognizer: Recognizer, recordings: Recordings, on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Prediction table of every recording: clip, speaker, room, position, target, p_<emotion>…, q_<emotion>… (before
    calibration); one row each."""
    rows = []
    for start in range(0, len(recordings), BATCH_RECORDINGS):
        batch = [recordings[i] for i in range(start, min(start + BATCH_RECORDINGS, len(recordings)))]
        found = recognizer.calibrated_and_not([take.recording for take in batch])
        for take, (calibrated, not_yet) in zip(batch, found, strict=True):
            clip = take.clip
            about = {"clip": clip.id, "speaker": clip.speaker, "room": take.room, "position": take.position}
            shares = {f"p_{emotion}": p for emotion, p in zip(recognizer.emotions, calibrated, strict=True)}
            shares |= {f"q_{emotion}": q for emotion, q in zip(recognizer.emotions, not_yet, strict=True)}
            rows.append(about | {"target": clip.emotion} | shares)
        if on_progress:
            on_progress(len(rows), len(recordings))
    return pd.DataFrame(rows)
