"""What a model is tested on: every clip as it was recorded in every room; and the prediction table of it.

In a test each clip is heard in every room once, at a source position drawn from the clip's and the room's names, and
the result is treated exactly like a user's file (`Recognizer.probabilities`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from farfeel.corpora.decoded import DecodedClips
from farfeel.recipe import Recipe
from farfeel.recognise.windows import Recording
from farfeel.rooms.acoustics import remove_common_delay
from farfeel.rooms.bank import Bank
from farfeel.rooms.noise import babble, fan, white_noise
from farfeel.rooms.reverb import add_noise, convolve
from farfeel.types import Clip, FarfeelError

TALKERS = 4  # in babble


@dataclass(frozen=True)
class Conditions:
    """What a test adds to the rooms. Who and what is struck follows from the names of clip and room alone.

    snr_db: noise that far below the speech. noise: white, of each microphone by itself and below its own speech;
    babble, four clips of other speakers at once at other places in the room (any place where it has but one), below the
    speech of all microphones together; or fan, steady pink noise from one such place.
    dead_mics: how many microphones of each recording carry nothing. camera_off: the share of clips with sound whose
    film is missing.
    """

    snr_db: float | None = None
    noise: str = "white"
    dead_mics: int = 0
    camera_off: float = 0.0

    def as_details(self) -> dict[str, str]:
        """What a report says of it."""
        noise = {} if self.snr_db is None else {"noise": f"{self.noise}, SNR {self.snr_db:g} dB"}
        dead = {"dead microphones": str(self.dead_mics)} if self.dead_mics else {}
        return noise | dead | ({"camera off": f"{self.camera_off:.0%} of the clips"} if self.camera_off else {})


NONE = Conditions()


@dataclass(frozen=True)
class EvaluationItem:
    """A clip as it was recorded in a room."""

    clip: Clip
    room: str
    position: str
    recording: Recording


class EvaluationSet(Sequence[EvaluationItem]):
    """Every clip in every room once; a bank of None is the dry clip itself, called `clean`.

    Lazily computed: item i is clip i // rooms in room i % rooms; with `one_room_each`, item i is clip i in one room.
    `mics` are the microphones of the bank, all by default. Position and trouble follow from the names of the clip and
    the room alone, so that two evaluations, of whatever subset and in whatever order, hear and see the same; but for
    babble, whose talkers come from among the clips.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        recipe: Recipe,
        banks: Sequence[Bank] = (),
        mics: Sequence[int] | None = None,
        rooms: Sequence[str] | None = None,
        one_room_each: bool = False,
        conditions: Conditions = NONE,
    ) -> None:
        self.clips = DecodedClips(clips, recipe, trim=False)
        self.mics, self.one_room_each, self.conditions = mics, one_room_each, conditions
        self.rooms: list[tuple[str, Bank | None]] = [
            (room, bank) for bank in banks for room in bank.rooms if rooms is None or room in rooms
        ] or [("clean", None)]

    def __len__(self) -> int:
        return len(self.clips) * (1 if self.one_room_each else len(self.rooms))

    def __getitem__(self, index: int) -> EvaluationItem:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.one_room_each:
            which, where = index, zlib.crc32(self.clips.clips[index].id.encode()) % len(self.rooms)
        else:
            which, where = divmod(index, len(self.rooms))
        clip, (room, bank) = self.clips.clips[which], self.rooms[where]
        footage = self.clips.footage(which) if self.is_filmed(clip) else None
        sound = self.clips.dry(which)
        if sound is None:
            return EvaluationItem(clip, room, "", Recording(None, footage))
        position, wet = "", sound[0][None]
        if bank is not None:
            chosen = int(rng_of(clip, room).choice(bank.indices(room)))
            position = bank[chosen].position
            taps = remove_common_delay(bank.taps(chosen, self.mics))
            wet = convolve(torch.from_numpy(sound[0])[None], torch.from_numpy(taps)[None])[0].numpy()
        wet = self._troubled(which, room, bank, position, wet)
        return EvaluationItem(clip, room, position, Recording(wet, footage))

    def _troubled(self, which: int, room: str, bank: Bank | None, position: str, wet: np.ndarray) -> np.ndarray:
        """(M, T) → (M, T) with noise, and with dead microphones."""
        conditions, (mics, samples) = self.conditions, wet.shape
        rng = rng_of(self.clips.clips[which], room, "trouble")
        if conditions.snr_db is not None:
            if conditions.noise == "white":
                # Amplifiers are set for the speech: a louder microphone is a noisier one.
                noise = white_noise(mics, samples, rng) * np.sqrt(np.mean(wet**2, axis=1, keepdims=True))
            elif conditions.noise == "fan":
                (place,) = self._places(1, room, bank, position, mics, rng)
                noise = fan(place, samples, rng)
            else:
                noise = self._babble(which, room, bank, position, mics, samples, rng)
            parts = torch.from_numpy(wet)[None], torch.from_numpy(noise)[None]
            wet = add_noise(*parts, torch.tensor([conditions.snr_db]))[0].numpy()
        if conditions.dead_mics:
            if conditions.dead_mics >= mics:
                raise FarfeelError(f"{conditions.dead_mics} of {mics} microphones would be dead; leave one alive")
            wet = wet.copy()
            wet[rng.permutation(mics)[: conditions.dead_mics]] = 0
        return wet

    def _babble(
        self, which: int, room: str, bank: Bank | None, position: str, mics: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(M, T) of other speakers, at other places of the room."""
        speaker = self.clips.clips[which].speaker
        others = [i for i, clip in enumerate(self.clips.clips) if clip.speaker != speaker and clip.audio is not None]
        if not others:
            raise FarfeelError("babble needs a second speaker among the clips, found one; choose white noise")
        places = self._places(TALKERS, room, bank, position, mics, rng)
        voices = [voice[0] for voice in map(self.clips.dry, rng.choice(others, size=TALKERS)) if voice is not None]
        return babble(voices, places, samples, rng)

    def _places(
        self, count: int, room: str, bank: Bank | None, position: str, mics: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Responses (M, L) of other places in the room; of no room, unit impulses."""
        if bank is None:
            return [np.ones((mics, 1), np.float32)] * count
        anywhere = bank.indices(room)
        elsewhere = [index for index in anywhere if bank[index].position != position]
        chosen = rng.choice(elsewhere or anywhere, size=count)
        return [remove_common_delay(bank.taps(int(index), self.mics)) for index in chosen]

    def is_filmed(self, clip: Clip) -> bool:
        """Whether there is a film of the clip, and the camera is on; where film is all there is, it always is."""
        if clip.video is None or clip.audio is None:
            return clip.video is not None
        return zlib.crc32(f"camera|{clip.id}".encode()) / 2**32 >= self.conditions.camera_off


def rng_of(clip: Clip, *words: str) -> np.random.Generator:
    """Chance that depends on names alone."""
    return np.random.default_rng(zlib.crc32("|".join((clip.id, *words)).encode()))
