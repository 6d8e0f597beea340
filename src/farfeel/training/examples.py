"""Training examples: clips in rooms → Batch, from dry speech to the microphones and from the video to its frames.

Each epoch draws a new room for each clip, and a new camera for its video. Every random choice of an example is drawn
from `default_rng((seed, epoch, index))`. So it does not depend on the order of reading, on the number of workers, or on
whether the training was resumed. The dataset only reads and draws. Convolution and mixing run in batches on the model's
device.
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
from farfeel.media.camera import simulate_camera
from farfeel.media.face_windows import FaceWindows
from farfeel.models.logmel import LogMel, front_end
from farfeel.models.video_networks import to_frames
from farfeel.recipe import Recipe
from farfeel.rooms.bank import Bank
from farfeel.rooms.noise import kind_of, usable
from farfeel.rooms.reverb import convolve, record
from farfeel.rooms.scene import Material, Scene, draw_working, no_room, response_of
from farfeel.types import Batch, Clip, FarfeelError

MIN_TALKERS, MAX_TALKERS = 3, 6  # of babble
VALIDATION_ROOMS = 0.1  # share of a training bank's rooms that are used for validation alone


@dataclass
class Unmixed:
    """A batch before the room acts on it.

    dry: (B, T), or (B, M, T) where the clips were prepared in rooms. taps: responses (B, M, L). noise: (B, M, T).
    snr_db: (B,). gain: (B,), a factor. mic_mask: (B, M) bool, False for a dead microphone. video: (B, N, S, S, 3)
    uint8, empty for a model without video. video_mask: (B,) bool, False where a clip has no video. target: (B,).
    """

    dry: Tensor
    taps: Tensor
    noise: Tensor
    snr_db: Tensor
    gain: Tensor
    mic_mask: Tensor
    video: Tensor
    video_mask: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Unmixed:
        """The batch on another device."""
        return Unmixed(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def at_microphones(sources: Unmixed) -> Batch:
    """What the microphones record of a batch: convolution, noise at its level, dead microphones, gain; and frames."""
    wet = sources.dry if sources.dry.ndim == 3 else convolve(sources.dry, sources.taps)
    audio = record(wet, sources.noise, sources.snr_db, sources.mic_mask) * sources.gain[:, None, None]
    frames = to_frames(sources.video) if sources.video.numel() else None
    return Batch(audio, sources.mic_mask, sources.target, frames, sources.video_mask)


@dataclass(frozen=True)
class Drawn:
    """One example: its audio, as in `Unmixed` but without the first axis, and its video before a camera is drawn.

    span_s: start and end in the clip of the audio in the window, in seconds; None where there is no audio.
    """

    dry: np.ndarray
    taps: np.ndarray
    noise: np.ndarray
    snr_db: float
    working: np.ndarray
    span_s: tuple[float, float] | None
    video: FaceWindows | None

    @classmethod
    def without_audio(cls, silence: np.ndarray, mics: int, video: FaceWindows | None) -> Drawn:
        """No audio: all M microphones are dead; `silence` has the shape that the dry audio would have."""
        noise = np.zeros((mics, silence.shape[-1]), np.float32)
        return cls(silence, no_room(mics), noise, float("inf"), np.zeros(mics, dtype=bool), None, video)


class TrainingSet(Dataset["Unmixed | Batch"]):
    """Clips by index, in each epoch in other rooms. Call `set_epoch` before each epoch.

    Indices go on beyond the clips: i + len is clip i drawn once more in this epoch, in another room. With
    `rooms.renderings`, an item is what the network receives, a Batch without its first axis, and is kept in memory.

    noises: the kinds of noise to draw from. lacking: kind → what these clips lack for a kind that the recipe names.
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
        self.noise_files: tuple[Path, ...] = ()
        self.noises: list[str] = list(recipe.rooms.noise)
        self.lacking: dict[str, str] = {}
        if recipe.rooms.snr_db is not None:
            material = self._material()
            self.noise_files = material.recordings
            remedy = "set rooms.noise=[white], or another kind that can be made"
            self.noises, self.lacking = usable(recipe.rooms.noise, material, remedy)
        self.logmel = LogMel(recipe.audio)
        self._rendered: dict[tuple[int, int], Batch] = {}

    def _material(self) -> Material:
        """What noise can be made from."""
        speakers = {clip.speaker for clip in self.clips.clips if clip.audio is not None}
        return material_of(self.recipe, len(speakers))

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose examples are drawn."""
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
        """What the network receives of a clip in one of its renderings, without the first axis."""
        recorded = at_microphones(collate([self._draw(index, version)]))
        mels = front_end(recorded.audio, self.logmel, self.recipe.audio)[0].half()
        return Batch(mels, recorded.mic_mask[0], recorded.target[0])

    def _draw(self, index: int, epoch: int) -> Unmixed:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, epoch, index))
        index %= len(self)
        drawn = self._draw_audio(index, rng)
        gain_db = recipe.augment.gain_db * rng.uniform(-1, 1)
        video = self._draw_video(drawn, rng)
        side = recipe.video.train_size or recipe.video.size
        without_video = (recipe.video.frames, side, side, 3) if recipe.modalities != "audio" else (0,)
        return Unmixed(
            dry=torch.from_numpy(drawn.dry),
            taps=torch.from_numpy(drawn.taps),
            noise=torch.from_numpy(drawn.noise),
            snr_db=torch.tensor(drawn.snr_db, dtype=torch.float32),
            gain=torch.tensor(10 ** (gain_db / 20), dtype=torch.float32),
            mic_mask=torch.from_numpy(drawn.working),
            video=torch.zeros(without_video, dtype=torch.uint8) if video is None else torch.from_numpy(video),
            video_mask=torch.tensor(video is not None),
            target=torch.tensor(self.targets[index]),
        )

    def _draw_audio(self, index: int, rng: np.random.Generator) -> Drawn:
        """A clip somewhere in the window, the room that it is spoken in, its noise, and the dead microphones."""
        recipe, video = self.recipe, self.clips.footage(index)
        mics, samples = recipe.microphones.count, recipe.audio.window_samples
        decoded = self.clips.dry(index)
        if decoded is None:
            samples = 1 if recipe.modalities == "video" else samples  # A model without audio needs no convolution.
            return Drawn.without_audio(np.zeros(samples, np.float32), mics, video)
        dry, span_s = self._draw_window(*decoded, rng)
        room, mic_indices = self._draw_room(mics, rng)
        response = self._draw_response(room, mic_indices, rng)
        noise, snr_db = self._draw_noise(index, room, mic_indices, samples, rng)
        working = draw_working(mics, recipe.augment.mic_dropout, rng)
        return Drawn(dry, response, noise, snr_db, working, span_s, video)

    def _draw_window(
        self, audio: np.ndarray, first_s: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """(…, T), which begins first_s into its clip → (…, samples), faster or slower, somewhere in the window.

        And the start and the end in the clip of what is in the window, in seconds.
        """
        recipe, samples = self.recipe, self.recipe.audio.window_samples
        speed = 1 + recipe.augment.speed * rng.uniform(-1, 1)
        changed = change_speed(audio, speed)
        shift = recipe.augment.time_shift_s * recipe.audio.sample_rate
        window, start = draw_position_in_window(changed, samples, shift, rng)
        # The video is of the same stretch. The rest of the window is silence, and has no video.
        inside = np.clip([-start, samples - start], 0, changed.shape[-1])
        start_s, end_s = first_s + inside * speed / recipe.audio.sample_rate
        return window, (start_s, end_s)

    def _draw_video(self, drawn: Drawn, rng: np.random.Generator) -> np.ndarray | None:
        """(N, S, S, 3), as a random camera would record it; None where there is no video.

        It is of the stretch of the clip whose audio is in the window. Without audio, it is of any stretch.
        """
        video, span_s = drawn.video, drawn.span_s
        if video is None:
            return None
        if span_s is None:
            window_s = min(self.recipe.audio.seconds, video.end_s - video.begin_s)
            start_s = rng.uniform(video.begin_s, video.end_s - window_s)
            span_s = start_s, start_s + window_s
        pictures = video.frames(*span_s)
        if pictures is None:
            return None
        settings = self.recipe.video
        frames = simulate_camera(pictures, settings.size, settings.frames, self.recipe.augment.camera, rng)
        if settings.train_size is None:
            return frames
        top, left = rng.integers(settings.size - settings.train_size + 1, size=2)
        return np.ascontiguousarray(frames[:, top : top + settings.train_size, left : left + settings.train_size])

    def _draw_room(self, mics: int, rng: np.random.Generator) -> tuple[str | None, np.ndarray]:
        """A room's name, None for no room, and `mics` of the bank's microphones."""
        if self.bank is None or rng.random() < self.recipe.rooms.dry:
            return None, np.arange(mics)
        return self.rooms[rng.integers(len(self.rooms))], rng.permutation(self.bank.mics)[:mics]

    def _draw_response(self, room: str | None, mics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The response (M, L) of any position in the room; unit impulses where there is no room."""
        if self.bank is None or room is None:
            return no_room(len(mics))
        return response_of(self.bank, int(rng.choice(self.responses[room])), mics)

    def _draw_noise(
        self, index: int, room: str | None, mics: np.ndarray, samples: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Noise (M, T) at the microphones, and how far it is below the speech, in dB; none: zeros and infinity."""
        if self.recipe.rooms.snr_db is None:
            return np.zeros((len(mics), samples), dtype=np.float32), float("inf")
        snr_db = float(rng.uniform(*self.recipe.rooms.snr_db))
        kind = kind_of(self.noises[rng.integers(len(self.noises))])

        def draw_positions(count: int) -> list[np.ndarray]:
            return [self._draw_response(room, mics, rng) for _ in range(count)]

        def draw_talkers() -> tuple[list[np.ndarray], list[np.ndarray]]:
            talkers = rng.choice(self.clips.others(index), size=rng.integers(MIN_TALKERS, MAX_TALKERS + 1))
            responses = draw_positions(len(talkers))
            return [speech[0] for speech in map(self.clips.dry, talkers) if speech is not None], responses

        rate = self.recipe.audio.sample_rate
        scene = Scene(len(mics), samples, rate, rng, draw_positions, draw_talkers, self.noise_files)
        return kind.make(scene), snr_db


class EpochOrder(Sampler[int]):
    """A permutation that follows from the seed and the epoch alone; with weights that differ, a draw of as many.

    In an epoch of N draws, clip i comes N * w_i / sum(w) times on average. In each epoch this number is rounded up or
    down (systematic sampling), so that no clip is forgotten. A clip's second draw is index i + N, its third i + 2 N.
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
            upto[-1] = self.size  # The sum may have been rounded.
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


def draw_position_in_window(
    audio: np.ndarray, samples: int, shift: float, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """(…, T) → (…, samples): a shorter clip somewhere in the window, a longer one cut, then moved by up to ± shift.

    And the sample of the window at which the clip begins; negative where its beginning is cut off. shift: in samples.
    """
    length = audio.shape[-1]
    start = int(rng.integers(abs(samples - length) + 1)) * (1 if length <= samples else -1)
    start += round(shift * rng.uniform(-1, 1))
    window = np.zeros((*audio.shape[:-1], samples), dtype=np.float32)
    first, last = max(0, start), min(samples, start + length)
    if first < last:
        window[..., first:last] = audio[..., first - start : last - start]
    return window, start


def divide_rooms(bank: Bank | None) -> tuple[list[str] | None, list[str] | None]:
    """The rooms of a training bank for training, and those for validation: training never uses the latter.

    A bank of one room gives it to both. None: no bank.
    """
    if bank is None:
        return None, None
    held_out = max(1, round(VALIDATION_ROOMS * len(bank.rooms)))
    if len(bank.rooms) < 2:
        return list(bank.rooms), list(bank.rooms)
    return list(bank.rooms[:-held_out]), list(bank.rooms[-held_out:])


def material_of(recipe: Recipe, speakers: int, positions: bool = True) -> Material:
    """What noise can be made from with a recipe, where so many speakers are in the clips."""
    folder = recipe.rooms.noise_folder
    return Material(positions, speakers, tuple(files_in(Path(folder))) if folder else (), folder)


def _weights(clips: Sequence[Clip], recipe: Recipe) -> list[float]:
    """How often each clip is drawn, relative to the others."""
    corpora, weights = {clip.corpus for clip in clips}, recipe.data.weights
    if unknown := sorted(set(weights) - corpora):
        raise FarfeelError(
            f"data.weights names {', '.join(unknown)}, the training clips are of {', '.join(sorted(corpora))}; "
            "remove that weight or correct it"
        )
    return [weights.get(clip.corpus, 1.0) for clip in clips]
