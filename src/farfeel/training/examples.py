"""Clips x rooms -> Batch, in training: from a dry recording to the microphones, from a film to the frames.

Each epoch a clip meets another room, and its film another camera. Everything that chance decides about an example is
drawn from `default_rng((seed, epoch, index))`, so that neither the order of reading, nor the number of workers, nor a
resumption changes it. The dataset only reads and draws; convolution and mixing run batched on the model's device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from farfeel.corpora.decoded import DecodedClips
from farfeel.media.audio import files_in
from farfeel.media.camera import shoot
from farfeel.media.face_windows import FaceWindows
from farfeel.models.logmel import LogMel, front_end
from farfeel.models.video import to_frames
from farfeel.recipe import Recipe
from farfeel.rooms.acoustics import remove_common_delay
from farfeel.rooms.bank import Bank
from farfeel.rooms.noise import babble, fan, recorded_noise, white_noise
from farfeel.rooms.reverb import add_noise, convolve
from farfeel.types import Batch, Clip, FarfeelError

MAX_TALKERS = 6
VALIDATION_ROOMS = 0.1  # Share of a training bank's rooms that only validation hears.


@dataclass
class Unmixed:
    """A batch before the room: dry (B, T), or (B, M, T) where a room has acted already, taps (B, M, L), noise
    (B, M, T), snr_db (B,), gain (B,), mic_mask (B, M), film (B, N, S, S, 3) uint8 (empty for a model without eyes),
    video_mask (B,), target (B,)."""

    dry: Tensor
    taps: Tensor
    noise: Tensor
    snr_db: Tensor
    gain: Tensor
    mic_mask: Tensor
    film: Tensor
    video_mask: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Unmixed:
        return Unmixed(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def at_microphones(sources: Unmixed) -> Batch:
    """Let the room act: convolution, noise at its level, gain; dead microphones are silent. Films become frames."""
    wet = sources.dry if sources.dry.ndim == 3 else convolve(sources.dry, sources.taps)
    heard = add_noise(wet, sources.noise, sources.snr_db) * sources.gain[:, None, None]
    frames = to_frames(sources.film) if sources.film.numel() else None
    return Batch(heard * sources.mic_mask[..., None], sources.mic_mask, sources.target, frames, sources.video_mask)


@dataclass(frozen=True)
class Sound:
    """What is drawn about an example's sound: as in Unmixed, and the stretch of the clip that is heard, in seconds
    (None where there is no sound), and its film."""

    dry: np.ndarray
    taps: np.ndarray
    noise: np.ndarray
    snr_db: float
    alive: np.ndarray
    span_s: tuple[float, float] | None
    footage: FaceWindows | None

    @classmethod
    def silent(cls, nothing: np.ndarray, mics: int, footage: FaceWindows | None) -> Sound:
        """No sound at M microphones, all dead; `nothing` has the shape of what there would be."""
        taps, noise = np.ones((mics, 1), np.float32), np.zeros((mics, nothing.shape[-1]), np.float32)
        return cls(nothing, taps, noise, float("inf"), np.zeros(mics, dtype=bool), None, footage)


class TrainingSet(Dataset["Unmixed | Batch"]):
    """Each index is a clip; each epoch it is spoken in another room. `set_epoch` before each epoch.

    Indices go on beyond the clips: i + len is clip i drawn once more in this epoch, in yet another room.
    With renderings, an item is what the network sees of it, a Batch without its first axis, and kept in memory.
    """

    def __init__(
        self, clips: Sequence[Clip], recipe: Recipe, bank: Bank | None, rooms: Sequence[str] | None = None
    ) -> None:
        self.recipe, self.bank, self.epoch = recipe, bank, 0
        self.clips = DecodedClips(clips, recipe, trim=recipe.audio.trim_silence)
        self.targets = [recipe.data.emotions.index(clip.emotion) for clip in clips]
        self.weights = _weights(clips, recipe)
        self.responses = {} if bank is None else {room: bank.indices(room) for room in rooms or bank.rooms}
        self.rooms = list(self.responses)
        if bank is not None and bank.mics < recipe.microphones.count:
            raise FarfeelError(
                f"the RIR bank has {bank.mics} microphones, the recipe asks for {recipe.microphones.count}; "
                f"set microphones.count={bank.mics} or simulate a bank with more"
            )
        self.noise_files = _noise_files(recipe)
        self.noises = self._noises()
        self.logmel = LogMel(recipe.audio)
        self._rendered: dict[tuple[int, int], Batch] = {}

    def _noises(self) -> list[str]:
        """The recipe's kinds of noise, without what these clips cannot have."""
        kinds: list[str] = list(self.recipe.rooms.noise)
        speakers = {clip.speaker for clip in self.clips.clips if clip.audio is not None}
        if self.recipe.rooms.snr_db and len(speakers) < 2 and "babble" in kinds:
            kinds.remove("babble")
            if not kinds:
                raise FarfeelError("babble needs a second training speaker; set rooms.noise=[white] or add speakers")
        return kinds

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Unmixed | Batch:
        if not self.recipe.rooms.renderings:
            return self._draw(index, self.epoch)
        again, index = divmod(index, len(self))
        version = (self.epoch + again) % self.recipe.rooms.renderings
        if (version, index) not in self._rendered:
            self._rendered[version, index] = self.render(index, version)
        return self._rendered[version, index]

    def render(self, index: int, version: int) -> Batch:
        """What the network sees of a clip in one of its renderings, without the first axis."""
        heard = at_microphones(collate([self._draw(index, version)]))
        mels = front_end(heard.audio, self.logmel, self.recipe.audio)[0].half()
        return Batch(mels, heard.mic_mask[0], heard.target[0])

    def _draw(self, index: int, epoch: int) -> Unmixed:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, epoch, index))
        index %= len(self)
        sound = self._hear(index, rng)
        gain_db = recipe.augment.gain_db * rng.uniform(-1, 1)
        film = self._film(sound, rng)
        side = recipe.video.train_size or recipe.video.size
        unseen = (recipe.video.frames, side, side, 3) if recipe.modalities != "audio" else (0,)
        return Unmixed(
            dry=torch.from_numpy(sound.dry),
            taps=torch.from_numpy(sound.taps),
            noise=torch.from_numpy(sound.noise),
            snr_db=torch.tensor(sound.snr_db, dtype=torch.float32),
            gain=torch.tensor(10 ** (gain_db / 20), dtype=torch.float32),
            mic_mask=torch.from_numpy(sound.alive),
            film=torch.zeros(unseen, dtype=torch.uint8) if film is None else torch.from_numpy(film),
            video_mask=torch.tensor(film is not None),
            target=torch.tensor(self.targets[index]),
        )

    def _hear(self, index: int, rng: np.random.Generator) -> Sound:
        """A clip somewhere in the window, the room that it is spoken in, and its noise."""
        recipe, footage = self.recipe, self.clips.footage(index)
        mics, samples = recipe.microphones.count, recipe.audio.window_samples
        sound = self.clips.dry(index)
        if sound is None:
            samples = 1 if recipe.modalities == "video" else samples  # Nobody listens: nothing to convolve.
            return Sound.silent(np.zeros(samples, np.float32), mics, footage)
        dry, span_s = self._place(*sound, rng)
        room, chosen = self._draw_room(mics, rng)
        taps = self._response(room, chosen, rng)
        noise, snr_db = self._draw_noise(index, room, chosen, samples, rng)
        return Sound(dry, taps, noise, snr_db, self._draw_alive(rng), span_s, footage)

    def _place(
        self, sound: np.ndarray, first_s: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """(…, T), which begins first_s into its clip → (…, samples), faster or slower, somewhere in the window; and the
        stretch of the clip that is left, in seconds."""
        recipe, samples = self.recipe, self.recipe.audio.window_samples
        speed = 1 + recipe.augment.speed * rng.uniform(-1, 1)
        heard = change_speed(sound, speed)
        window, start = place(heard, samples, recipe.augment.time_shift_s * recipe.audio.sample_rate, rng)
        # The same stretch of the film; what the window has beyond the clip is silence, and shows nothing.
        inside = np.clip([-start, samples - start], 0, heard.shape[-1])
        start_s, end_s = first_s + inside * speed / recipe.audio.sample_rate
        return window, (start_s, end_s)

    def _draw_alive(self, rng: np.random.Generator) -> np.ndarray:
        """(M,) bool: microphones fail, but never all."""
        mics = self.recipe.microphones.count
        alive = rng.random(mics) >= self.recipe.augment.mic_dropout
        alive[rng.integers(mics)] = True
        return np.asarray(alive)

    def _film(self, sound: Sound, rng: np.random.Generator) -> np.ndarray | None:
        """(N, S, S, 3) of the stretch of the clip that is heard (without sound: of any), filmed by a camera that is
        drawn; None where there is no film."""
        footage, span_s = sound.footage, sound.span_s
        if footage is None:
            return None
        if span_s is None:
            window_s = min(self.recipe.audio.seconds, footage.end_s - footage.begin_s)
            start_s = rng.uniform(footage.begin_s, footage.end_s - window_s)
            span_s = start_s, start_s + window_s
        found = footage.frames(*span_s)
        if found is None:
            return None
        video = self.recipe.video
        film = shoot(found, video.size, video.frames, self.recipe.augment.camera, rng)
        if video.train_size is None:
            return film
        top, left = rng.integers(video.size - video.train_size + 1, size=2)
        return np.ascontiguousarray(film[:, top : top + video.train_size, left : left + video.train_size])

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
        kind = self.noises[rng.integers(len(self.noises))]
        if kind == "white":
            return white_noise(len(mics), samples, rng), snr_db
        if kind == "recorded":
            path = self.noise_files[rng.integers(len(self.noise_files))]
            taps = self._response(room, mics, rng)
            return recorded_noise(path, len(mics), self.recipe.audio.sample_rate, samples, taps, rng), snr_db
        if kind == "fan":
            return fan(self._response(room, mics, rng), samples, rng), snr_db
        speaker = self.clips.clips[index].speaker
        others = [i for i, clip in enumerate(self.clips.clips) if clip.speaker != speaker and clip.audio is not None]
        talkers = rng.choice(others, size=rng.integers(3, MAX_TALKERS + 1))
        places = [self._response(room, mics, rng) for _ in talkers]
        voices = [voice[0] for voice in map(self.clips.dry, talkers) if voice is not None]
        return babble(voices, places, samples, rng), snr_db


class EpochOrder(Sampler[int]):
    """A permutation that follows from the seed and the epoch alone; with weights that differ, a draw of as many.

    An epoch of N draws has clip i N * w_i / sum(w) times on average, and in each epoch that many rounded up or down
    (systematic sampling), so that chance forgets nobody. A clip's second draw is index i + N, its third i + 2 N.
    """

    def __init__(self, size: int, seed: int, weights: Sequence[float] = ()) -> None:
        self.size, self.seed, self.epoch = size, seed, 0
        self.weights = np.array(weights) if len(set(weights)) > 1 else None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.size)
        if self.weights is not None:
            expected = self.weights[order] * self.size / self.weights.sum()
            upto = np.floor(np.cumsum(expected) + rng.random()).astype(int).clip(max=self.size)
            upto[-1] = self.size  # whatever the sum was rounded to
            times = np.diff(upto, prepend=0)
            again = np.arange(self.size) - np.repeat(upto - times, times)
            order = rng.permutation(np.repeat(order, times) + again * self.size)
        return iter(order.tolist())


def collate_rendered(items: list[Batch]) -> Batch:
    """Rendered examples → batch."""
    fields_of = ((getattr(item, name) for item in items) for name in ("audio", "mic_mask", "target"))
    mels, mic_mask, target = (torch.stack(list(values)) for values in fields_of)
    return Batch(mels.float(), mic_mask, target)


def collate(items: list[Unmixed]) -> Unmixed:
    """Examples → batch; shorter responses are padded with silence."""
    longest = max(item.taps.shape[-1] for item in items)
    batch = {f.name: [getattr(item, f.name) for item in items] for f in fields(Unmixed)}
    batch["taps"] = [torch.nn.functional.pad(taps, (0, longest - taps.shape[-1])) for taps in batch["taps"]]
    return Unmixed(**{name: torch.stack(values) for name, values in batch.items()})


def change_speed(dry: np.ndarray, speed: float) -> np.ndarray:
    """(…, T) → (…, T / speed): faster and higher, or slower and lower."""
    if speed == 1:
        return dry
    return np.ascontiguousarray(soxr.resample(dry.T, speed, 1.0, quality="MQ").T, dtype=np.float32)


def place(dry: np.ndarray, samples: int, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """(…, T) → (…, samples): a shorter clip somewhere in the window, a longer one cut somewhere, then moved by ± shift;
    and the window's sample at which the clip begins, negative where its beginning is cut off."""
    length = dry.shape[-1]
    start = int(rng.integers(abs(samples - length) + 1)) * (1 if length <= samples else -1)
    start += round(shift * rng.uniform(-1, 1))
    window = np.zeros((*dry.shape[:-1], samples), dtype=np.float32)
    first, last = max(0, start), min(samples, start + length)
    if first < last:
        window[..., first:last] = dry[..., first - start : last - start]
    return window, start


def divide_rooms(bank: Bank | None) -> tuple[list[str] | None, list[str] | None]:
    """Rooms of a training bank for training and for validation: validation must hear rooms that training never met."""
    if bank is None:
        return None, None
    held_out = max(1, round(VALIDATION_ROOMS * len(bank.rooms)))
    if len(bank.rooms) < 2:
        return list(bank.rooms), list(bank.rooms)
    return list(bank.rooms[:-held_out]), list(bank.rooms[-held_out:])


def _weights(clips: Sequence[Clip], recipe: Recipe) -> list[float]:
    """How often each clip is drawn, relative to the others."""
    corpora, weights = {clip.corpus for clip in clips}, recipe.data.weights
    if unknown := sorted(set(weights) - corpora):
        raise FarfeelError(
            f"data.weights names {', '.join(unknown)}, the training clips are of {', '.join(sorted(corpora))}; leave "
            "that weight out or correct it"
        )
    return [weights.get(clip.corpus, 1.0) for clip in clips]


def _noise_files(recipe: Recipe) -> list[Path]:
    if recipe.rooms.snr_db is None or "recorded" not in recipe.rooms.noise:
        return []
    files = files_in(Path(recipe.rooms.noise_folder)) if recipe.rooms.noise_folder else []
    if not files:
        raise FarfeelError(
            f"rooms.noise asks for recorded noise, rooms.noise_folder ({recipe.rooms.noise_folder}) has no audio file; "
            "name a folder of noise recordings"
        )
    return files
