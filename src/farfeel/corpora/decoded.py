"""The clips of a corpus, decoded: their audio and their video as a recipe wants them, cached in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farfeel.media.audio import speech_span
from farfeel.media.face_video import FaceVideo, face_video_of
from farfeel.media.microphone_files import read_files
from farfeel.recipe import Recipe
from farfeel.types import Clip, FarfeelError

CACHE_BYTES = 4 << 30  # Dry clips kept in memory; RAVDESS whole takes 0.3 GB.


class DecodedClips:
    """Decoded clips, cached in memory: the audio and the video that the recipe's modalities need.

    trim: cut off the silence before and after the speech.
    """

    def __init__(self, clips: Sequence[Clip], recipe: Recipe, trim: bool) -> None:
        self.clips, self.recipe, self.trim = list(clips), recipe, trim
        self._dry: dict[int, tuple[np.ndarray, float]] = {}
        self._footage: dict[int, FaceVideo] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.clips)

    def dry(self, index: int) -> tuple[np.ndarray, float] | None:
        """The clip's audio (T,) float32, mono, and where it begins in the clip in seconds: 0 without trimming.

        None where the clip has no audio or the recipe uses none. Raises FarfeelError where the file cannot be read.
        """
        clip = self.clips[index]
        if clip.audio is None or self.recipe.modalities == "video":
            return None
        audio_and_start = self._dry.get(index)
        if audio_and_start is None:
            # Five published RAVDESS files are stereo, with the same voice in both channels.
            channels, _ = read_files(clip.audio_files, self.recipe.audio.sample_rate, clip.start_s, clip.end_s)
            audio = channels.mean(axis=0)
            first, last = speech_span(audio[None], self.recipe.audio.sample_rate) if self.trim else (0, len(audio))
            audio_and_start = audio[first:last], first / self.recipe.audio.sample_rate
            if self._fits(audio_and_start[0].nbytes):
                self._dry[index] = audio_and_start
        return audio_and_start

    def footage(self, index: int) -> FaceVideo | None:
        """The clip's video, in the time of its audio; None where it has none or the recipe uses none."""
        clip = self.clips[index]
        if clip.video is None or self.recipe.modalities == "audio":
            return None
        video = self._footage.get(index)
        if video is None:
            video = face_video_of(clip, self.recipe)
            # A long video is decoded anew for each window: it would only collect its crops, epoch after epoch.
            if video.is_decoded_once and self._fits(video.decoded_bytes):
                self._footage[index] = video
        return video

    def others(self, index: int) -> list[int]:
        """The clips with audio of other speakers than the clip's."""
        speaker = self.clips[index].speaker
        return [i for i, clip in enumerate(self.clips) if clip.speaker != speaker and clip.audio is not None]

    def _fits(self, size: int) -> bool:
        if self._cached_bytes + size > CACHE_BYTES:
            return False
        self._cached_bytes += size
        return True


def usable_clips(clips: Sequence[Clip], recipe: Recipe, what: str, to_train: bool = True) -> list[Clip]:
    """The clips of the recipe's emotions that have what its modalities need: audio, video, or one of the two.

    what: names the clips in errors. Raises FarfeelError where no clip is left, and where a model of both modalities is
    to be trained and no clip has video.
    """
    known = [clip for clip in clips if clip.emotion in recipe.data.emotions]
    if not known:
        emotions = sorted({clip.emotion for clip in clips})
        raise FarfeelError(
            f"{what} has no clip of {', '.join(recipe.data.emotions)}; found {', '.join(emotions) or 'no clip'}; "
            "choose other data or data.emotions"
        )
    with_audio = [clip for clip in known if clip.audio is not None]
    with_video = [clip for clip in known if clip.video is not None]
    usable = {"audio": with_audio, "video": with_video, "both": known}[recipe.modalities]
    if not usable or (to_train and recipe.modalities == "both" and not with_video):
        lacking, rest = ("audio", "video") if recipe.modalities == "audio" else ("video", "audio")
        raise FarfeelError(
            f"{what}: none of {len(known)} clips has {lacking}, the recipe's modalities are {recipe.modalities}; "
            f"add the {lacking}, or set modalities={rest} (in a test of both: --modalities {rest})"
        )
    return usable
