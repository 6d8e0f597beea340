"""Clips x rooms -> Batch: what happens between a dry recording and the microphones.

Training: each epoch a clip meets another room. Everything that chance decides about an example is drawn from
`default_rng((seed, epoch, index))`, so that neither the order of reading, nor the number of workers, nor a resumption
changes it. The dataset only reads and draws; convolution and mixing run batched on the model's device.

Testing: each clip is heard in every room once, at a source position drawn from the clip's and the room's names, and
the result is treated exactly like a recording that a user brings (`recording_windows`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from farfeel.media.audio import audio_files, read_audio
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank
from farfeel.rooms.noise import babble, recorded_noise, white_noise
from farfeel.rooms.reverb import add_noise, convolve, remove_common_delay
from farfeel.types import Batch, Clip, FarfeelError

TRIM_DB = 40.0  # A frame this far below the loudest is silence; RAVDESS's pauses lie at -55 dB, its speech above -35.
TRIM_FRAME_S = 0.025
TRIM_MARGIN_S = 0.1
CACHE_BYTES = 4 << 30  # Dry clips kept in memory; RAVDESS whole takes 0.3 GB.
MAX_TALKERS = 6
VALIDATION_ROOMS = 0.1  # Share of a training bank's rooms that only validation hears.


@dataclass
class Sources:
    """A batch before the room: dry (B, T), taps (B, M, L), noise (B, M, T), snr_db (B,), gain (B,), mic_mask (B, M),
    target (B,)."""

    dry: Tensor
    taps: Tensor
    noise: Tensor
    snr_db: Tensor
    gain: Tensor
    mic_mask: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Sources:
        return Sources(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def to_microphones(sources: Sources) -> Batch:
    """Let the room act: convolution, noise at its level, gain; dead microphones are silent."""
    wet = convolve(sources.dry, sources.taps)
    heard = add_noise(wet, sources.noise, sources.snr_db) * sources.gain[:, None, None]
    return Batch(heard * sources.mic_mask[..., None], sources.mic_mask, sources.target)


class DryClips:
    """Decoded clips of a corpus as (T,) mono, cached in memory, with their silence trimmed where the recipe says so."""

    def __init__(self, clips: Sequence[Clip], recipe: Recipe, trim: bool) -> None:
        self.clips, self.recipe, self.trim = list(clips), recipe, trim
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        dry = self._cache.get(index)
        if dry is None:
            clip = self.clips[index]
            if clip.audio is None:
                raise FarfeelError(f"clip {clip.id} has no audio file; leave it out of the manifest")
            # Five published RAVDESS files are stereo, with the same voice in both channels.
            dry = read_audio(clip.audio, self.recipe.audio.sample_rate, clip.start_s, clip.end_s).mean(axis=0)
            if self.trim:
                dry = trim_silence(dry[None], self.recipe.audio.sample_rate)[0]
            if self._cached_bytes + dry.nbytes <= CACHE_BYTES:
                self._cache[index] = dry
                self._cached_bytes += dry.nbytes
        return dry


class TrainingClips(Dataset[Sources]):
    """Each index is a clip; each epoch it is spoken in another room. `set_epoch` before each epoch."""

    def __init__(
        self, clips: Sequence[Clip], recipe: Recipe, bank: Bank | None, rooms: Sequence[str] | None = None
    ) -> None:
        self.recipe, self.bank, self.epoch = recipe, bank, 0
        self.dry = DryClips(clips, recipe, trim=recipe.audio.trim_silence)
        self.targets = [recipe.data.emotions.index(clip.emotion) for clip in clips]
        self.responses = {} if bank is None else {room: bank.indices(room) for room in rooms or bank.rooms}
        self.rooms = list(self.responses)
        if bank is not None and bank.mics < recipe.microphones.count:
            raise FarfeelError(
                f"the RIR bank has {bank.mics} microphones, the recipe asks for {recipe.microphones.count}; "
                f"set microphones.count={bank.mics} or simulate a bank with more"
            )
        self.noise_files = _noise_files(recipe)

    def __len__(self) -> int:
        return len(self.dry)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sources:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, self.epoch, index))
        mics, samples = recipe.microphones.count, window_samples(recipe)
        dry = change_speed(self.dry[index], 1 + recipe.augment.speed * rng.uniform(-1, 1))
        dry = place(dry, samples, recipe.augment.time_shift_s * recipe.audio.sample_rate, rng)
        room, chosen = self._draw_room(mics, rng)
        taps = self._response(room, chosen, rng)
        noise, snr_db = self._draw_noise(index, room, chosen, samples, rng)
        dead = rng.random(mics) < recipe.augment.mic_dropout
        dead[rng.integers(mics)] = False
        return Sources(
            dry=torch.from_numpy(dry),
            taps=torch.from_numpy(taps),
            noise=torch.from_numpy(noise),
            snr_db=torch.tensor(snr_db, dtype=torch.float32),
            gain=torch.tensor(10 ** (recipe.augment.gain_db * rng.uniform(-1, 1) / 20), dtype=torch.float32),
            mic_mask=torch.from_numpy(~dead),
            target=torch.tensor(self.targets[index]),
        )

    def _draw_room(self, mics: int, rng: np.random.Generator) -> tuple[str | None, np.ndarray]:
        """A room's name, None for no room, and `mics` of the bank's microphones."""
        if self.bank is None or rng.random() < self.recipe.rooms.dry:
            return None, np.arange(mics)
        return self.rooms[rng.integers(len(self.rooms))], rng.permutation(self.bank.mics)[:mics]

    def _response(self, room: str | None, mics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Responses (M, L) from any place in the room; no room: unit impulses."""
        if self.bank is None or room is None:
            return np.ones((len(mics), 1), dtype=np.float32)
        return remove_common_delay(self.bank.taps(int(rng.choice(self.responses[room])), mics))

    def _draw_noise(
        self, index: int, room: str | None, mics: np.ndarray, samples: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Noise (M, T) at the microphones, and its level below the speech; none: zeros and infinity."""
        rooms = self.recipe.rooms
        if rooms.snr_db is None:
            return np.zeros((len(mics), samples), dtype=np.float32), float("inf")
        snr_db = float(rng.uniform(*rooms.snr_db))
        kind = rooms.noise[rng.integers(len(rooms.noise))]
        if kind == "white":
            return white_noise(len(mics), samples, rng), snr_db
        if kind == "recorded":
            path = self.noise_files[rng.integers(len(self.noise_files))]
            taps = self._response(room, mics, rng)
            return recorded_noise(path, len(mics), self.recipe.audio.sample_rate, samples, taps, rng), snr_db
        speaker = self.dry.clips[index].speaker
        others = [i for i, clip in enumerate(self.dry.clips) if clip.speaker != speaker]
        if not others:
            raise FarfeelError("babble needs a second training speaker; set rooms.noise=[white] or add speakers")
        talkers = rng.choice(others, size=rng.integers(3, MAX_TALKERS + 1))
        places = [self._response(room, mics, rng) for _ in talkers]
        return babble([self.dry[i] for i in talkers], places, samples, rng), snr_db


class EpochOrder(Sampler[int]):
    """A permutation that follows from the seed and the epoch alone."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng((self.seed, self.epoch)).permutation(self.size).tolist())


def collate(items: list[Sources]) -> Sources:
    """Examples → batch; shorter responses are padded with silence."""
    longest = max(item.taps.shape[-1] for item in items)
    batch = {f.name: [getattr(item, f.name) for item in items] for f in fields(Sources)}
    batch["taps"] = [torch.nn.functional.pad(taps, (0, longest - taps.shape[-1])) for taps in batch["taps"]]
    return Sources(**{name: torch.stack(values) for name, values in batch.items()})


@dataclass(frozen=True)
class Recording:
    """A clip as microphones in a room heard it: audio (M, T) at the recipe's rate."""

    clip: Clip
    room: str
    position: str
    audio: np.ndarray


class Recordings(Sequence[Recording]):
    """Every clip in every room once; a bank of None is the dry clip itself, called `clean`.

    Lazily computed: item i is clip i // rooms in room i % rooms; with `one_room_each`, item i is clip i in one room.
    `mics` are the microphones of the bank, all by default. Room and position follow from the names of the clip and the
    room alone, so that two evaluations, of whatever subset and in whatever order, hear the same.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        recipe: Recipe,
        banks: Sequence[Bank] = (),
        mics: Sequence[int] | None = None,
        rooms: Sequence[str] | None = None,
        one_room_each: bool = False,
    ) -> None:
        self.dry = DryClips(clips, recipe, trim=False)
        self.mics, self.one_room_each = mics, one_room_each
        self.rooms: list[tuple[str, Bank | None]] = [
            (room, bank) for bank in banks for room in bank.rooms if rooms is None or room in rooms
        ] or [("clean", None)]

    def __len__(self) -> int:
        return len(self.dry) * (1 if self.one_room_each else len(self.rooms))

    def __getitem__(self, index: int) -> Recording:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.one_room_each:
            which, where = index, zlib.crc32(self.dry.clips[index].id.encode()) % len(self.rooms)
        else:
            which, where = divmod(index, len(self.rooms))
        clip, dry, (room, bank) = self.dry.clips[which], self.dry[which], self.rooms[where]
        if bank is None:
            return Recording(clip, room, "", dry[None])
        rng = np.random.default_rng(zlib.crc32(f"{clip.id}|{room}".encode()))
        chosen = int(rng.choice(bank.indices(room)))
        taps = remove_common_delay(bank.taps(chosen, self.mics))
        wet = convolve(torch.from_numpy(dry)[None], torch.from_numpy(taps)[None])[0].numpy()
        return Recording(clip, room, bank[chosen].position, wet)


def recording_windows(audio: np.ndarray, recipe: Recipe) -> np.ndarray:
    """(M, T) recording → (W, M, window) float32: silence trimmed, cut into windows that overlap by half or more and
    cover it evenly; one shorter than a window lies in its centre."""
    if recipe.audio.trim_silence:
        audio = trim_silence(audio, recipe.audio.sample_rate)
    samples = window_samples(recipe)
    surplus = audio.shape[1] - samples
    if surplus <= 0:
        before = -surplus // 2
        return np.pad(audio, ((0, 0), (before, -surplus - before)))[None]
    starts = np.linspace(0, surplus, 1 + int(np.ceil(2 * surplus / samples))).round().astype(int)
    return np.stack([audio[:, start : start + samples] for start in starts])


def window_samples(recipe: Recipe) -> int:
    return round(recipe.audio.seconds * recipe.audio.sample_rate)


def trim_silence(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(M, T) → (M, T'): from the first to the last frame within 40 dB of the loudest, with a margin."""
    frame = round(TRIM_FRAME_S * sample_rate)
    frames = audio.shape[1] // frame
    if frames == 0:
        return audio
    energy = np.square(audio[:, : frames * frame].reshape(len(audio), frames, frame)).sum(axis=(0, 2))
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-TRIM_DB / 10))
    if not len(loud):  # digital silence
        return audio
    margin = round(TRIM_MARGIN_S * sample_rate)
    return audio[:, max(0, loud[0] * frame - margin) : (loud[-1] + 1) * frame + margin]


def change_speed(dry: np.ndarray, speed: float) -> np.ndarray:
    """(T,) → (T / speed,): faster and higher, or slower and lower."""
    return dry if speed == 1 else soxr.resample(dry, speed, 1.0, quality="MQ").astype(np.float32)


def place(dry: np.ndarray, samples: int, shift: float, rng: np.random.Generator) -> np.ndarray:
    """(T,) → (samples,): a shorter clip somewhere in the window, a longer one cut somewhere, then moved by ± shift."""
    start = int(rng.integers(abs(samples - len(dry)) + 1)) * (1 if len(dry) <= samples else -1)
    start += round(shift * rng.uniform(-1, 1))
    window = np.zeros(samples, dtype=np.float32)
    first, last = max(0, start), min(samples, start + len(dry))
    if first < last:
        window[first:last] = dry[first - start : last - start]
    return window


def divide_rooms(bank: Bank | None) -> tuple[list[str] | None, list[str] | None]:
    """Rooms of a training bank for training and for validation: validation must hear rooms that training never met."""
    if bank is None:
        return None, None
    held_out = max(1, round(VALIDATION_ROOMS * len(bank.rooms)))
    if len(bank.rooms) < 2:
        return list(bank.rooms), list(bank.rooms)
    return list(bank.rooms[:-held_out]), list(bank.rooms[-held_out:])


def check_emotions(clips: Sequence[Clip], recipe: Recipe, what: str) -> list[Clip]:
    """Clips whose emotion the recipe knows; an error where there is none."""
    known = [clip for clip in clips if clip.emotion in recipe.data.emotions]
    if not known:
        found = sorted({clip.emotion for clip in clips})
        raise FarfeelError(
            f"{what} has no clip of {', '.join(recipe.data.emotions)}; found {', '.join(found) or 'no clip'}; "
            "choose other data or data.emotions"
        )
    return known


def _noise_files(recipe: Recipe) -> list[Path]:
    if recipe.rooms.snr_db is None or "recorded" not in recipe.rooms.noise:
        return []
    files = audio_files(Path(recipe.rooms.noise_folder)) if recipe.rooms.noise_folder else []
    if not files:
        raise FarfeelError(
            f"rooms.noise asks for recorded noise, rooms.noise_folder ({recipe.rooms.noise_folder}) has no audio file; "
            "name a folder of noise recordings"
        )
    return files
