"""The recordings that a model is tested on: every clip as it was recorded in every room.

Each clip is in every room once, at a source position that is drawn from the names of the clip and the room. The model
then treats the recording exactly like a user's file (`Recognizer.probabilities`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from farfeel.corpora.decoded import DecodedClips
from farfeel.media.audio import files_in
from farfeel.recipe import Recipe
from farfeel.recognise.windows import Recording
from farfeel.rooms.bank import Bank
from farfeel.rooms.noise import kind_of, usable
from farfeel.rooms.reverb import convolve, record
from farfeel.rooms.scene import Material, Scene, draw_dead, no_room, response_of
from farfeel.types import Clip, FarfeelError

TALKERS = 4  # of babble


@dataclass(frozen=True)
class Conditions:
    """What a test adds to the rooms. Everything random in it is drawn from the names of clip and room alone.

    snr_db: noise is added this far below the speech; None: no noise. noise: the kind of noise, one of
    `farfeel.variants.NOISES`. White noise is below the speech of each microphone. All other noise is below the speech
    of all microphones together, and comes from other positions in the room (any position where the room has only one).
    dead_mics: microphones of each recording that record nothing. camera_off: the share of the clips with audio that are
    tested without their video.
    """

    snr_db: float | None = None
    noise: str = "white"
    dead_mics: int = 0
    camera_off: float = 0.0

    def as_details(self) -> dict[str, str]:
        """The lines about it in a report."""
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
    """Every clip in every room once. Without a bank, the only room is the dry clip itself, called `clean`.

    Items are computed when they are read: item i is clip i // rooms in room i % rooms; with `one_room_each`, item i is
    clip i in one room. `mics` are the microphones of the bank, all by default.

    Positions and conditions are drawn from the names of the clip and the room alone. So two evaluations test with the
    same recordings, also with other subsets or in another order. The one exception is noise from other talkers:
    these are drawn from the clips that are there.

    Raises FarfeelError where the noise of the conditions cannot be made.
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
        self.recipe, self.mics, self.one_room_each, self.conditions = recipe, mics, one_room_each, conditions
        self.rooms: list[tuple[str, Bank | None]] = [
            (room, bank) for bank in banks for room in bank.rooms if rooms is None or room in rooms
        ] or [("clean", None)]
        self.noise_files: tuple[Path, ...] = ()
        speakers = {clip.speaker for clip in clips if clip.audio is not None}
        if conditions.snr_db is not None and speakers and recipe.modalities != "video":
            folder = recipe.rooms.noise_folder
            self.noise_files = tuple(files_in(Path(folder))) if folder else ()
            material = Material(True, len(speakers), self.noise_files, folder)
            usable([conditions.noise], material, "choose another --noise, or test more clips")

    def __len__(self) -> int:
        return len(self.clips) * (1 if self.one_room_each else len(self.rooms))

    def __getitem__(self, index: int) -> EvaluationItem:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.one_room_each:
            clip_index, room_index = index, zlib.crc32(self.clips.clips[index].id.encode()) % len(self.rooms)
        else:
            clip_index, room_index = divmod(index, len(self.rooms))
        clip, (room, bank) = self.clips.clips[clip_index], self.rooms[room_index]
        video = self.clips.footage(clip_index) if self.has_video(clip) else None
        dry = self.clips.dry(clip_index)
        if dry is None:
            return EvaluationItem(clip, room, "", Recording(None, video))
        position, wet = "", dry[0][None]
        if bank is not None:
            response = int(rng_of(clip, room).choice(bank.indices(room)))
            position = bank[response].position
            taps = response_of(bank, response, self.mics)
            wet = convolve(torch.from_numpy(dry[0])[None], torch.from_numpy(taps)[None])[0].numpy()
        audio = self._in_conditions(clip_index, room, bank, position, wet)
        return EvaluationItem(clip, room, position, Recording(audio, video))

    def _in_conditions(
        self, clip_index: int, room: str, bank: Bank | None, position: str, wet: np.ndarray
    ) -> np.ndarray:
        """Speech in the room (M, T) → (M, T), with noise and with dead microphones."""
        conditions, (mics, samples) = self.conditions, wet.shape
        if conditions.snr_db is None and not conditions.dead_mics:
            return wet
        rng = rng_of(self.clips.clips[clip_index], room, "trouble")
        noise, snr_db = np.zeros_like(wet), float("inf")
        if conditions.snr_db is not None:
            kind, snr_db = kind_of(conditions.noise), conditions.snr_db
            noise = kind.make(self._scene(clip_index, room, bank, position, mics, samples, rng))
            if kind.OF_EACH_MICROPHONE:
                noise = noise * np.sqrt(np.mean(wet**2, axis=1, keepdims=True))
        if conditions.dead_mics >= mics:
            raise FarfeelError(
                f"{conditions.dead_mics} of {mics} microphones would be dead, expected {mics - 1} at most; choose fewer"
            )
        working = draw_dead(mics, conditions.dead_mics, rng) if conditions.dead_mics else np.ones(mics, dtype=bool)
        speech, added, mask = (torch.from_numpy(part)[None] for part in (wet, noise, working))
        return record(speech, added, torch.tensor([snr_db]), mask)[0].numpy()

    def _scene(
        self,
        clip_index: int,
        room: str,
        bank: Bank | None,
        position: str,
        mics: int,
        samples: int,
        rng: np.random.Generator,
    ) -> Scene:
        """The noise sources that a room may have besides the speaker, who is at `position`."""

        def draw_positions(count: int) -> list[np.ndarray]:
            if bank is None:
                return [no_room(mics)] * count
            everywhere = bank.indices(room)
            elsewhere = [index for index in everywhere if bank[index].position != position]
            responses = rng.choice(elsewhere or everywhere, size=count)
            return [response_of(bank, int(index), self.mics) for index in responses]

        def draw_talkers() -> tuple[list[np.ndarray], list[np.ndarray]]:
            responses = draw_positions(TALKERS)
            talkers = map(self.clips.dry, rng.choice(self.clips.others(clip_index), size=TALKERS))
            return [speech[0] for speech in talkers if speech is not None], responses

        rate = self.recipe.audio.sample_rate
        return Scene(mics, samples, rate, rng, draw_positions, draw_talkers, self.noise_files)

    def has_video(self, clip: Clip) -> bool:
        """Whether the clip is tested with its video. A clip without audio always is."""
        if clip.video is None or clip.audio is None:
            return clip.video is not None
        return zlib.crc32(f"camera|{clip.id}".encode()) / 2**32 >= self.conditions.camera_off


def rng_of(clip: Clip, *words: str) -> np.random.Generator:
    """A generator that is seeded by names alone."""
    return np.random.default_rng(zlib.crc32("|".join((clip.id, *words)).encode()))
