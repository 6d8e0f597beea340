"""Laws of audio with video: both are trained on the same stretch; if one cannot be used, the other is recognised."""

import csv
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from farfeel.cli import main
from farfeel.corpora.decoded import usable_clips
from farfeel.corpora.scan import load_clips, write_manifest
from farfeel.corpora.splits import Split
from farfeel.corpora.video_files import write_video
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.table import probabilities_of, read_predictions
from farfeel.evaluate.test_set import Conditions, EvaluationSet
from farfeel.models.checkpoint import load_checkpoint, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Augment, Recipe
from farfeel.recognise.decoding import open_recording
from farfeel.recognise.options import Options
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.windows import Recording
from farfeel.rooms.bank import Bank
from farfeel.training.examples import TrainingSet, Unmixed, at_microphones, collate
from farfeel.training.loop import dropout_loss, fit, mixup
from farfeel.training.tracking import EpochReport
from farfeel.types import Batch, Clip, FarfeelError
from untrained import make

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data")).resolve()
Small = Callable[..., Recipe]
LIGHT = ("video.size=32", "video.width=4", "fusion.hidden=16")
BUSY = (
    "augment.speed=0.1",
    "augment.mic_dropout=0.3",
    "augment.mixup=0.4",
    "rooms.noise=[white, babble]",
    "augment.camera={shift: 0.05, zoom: 0.1, turn_deg: 5, drift: 0.05, mirror: 0.5, light: 0.2, erase: 0.2}",
)
FPS = 10


@pytest.fixture
def audiovisual(small: Small) -> Callable[..., Recipe]:
    """The smallest recipe of audio and video."""
    return lambda *overrides: small("modalities=both", *LIGHT, *overrides)


@pytest.fixture
def recognizer(audiovisual: Small) -> Recognizer:
    return make(audiovisual())


def mixed(clips: Sequence[Clip]) -> list[Clip]:
    """Some with audio, some with video, some with both."""
    return [
        replace(clip, audio=None if i % 4 == 1 else clip.audio, video=None if i % 4 == 2 else clip.video)
        for i, clip in enumerate(clips)
    ]


def clock(path: Path, seconds: float) -> Path:
    """A video whose grey level shows its time: 50 levels a second."""
    grey = (5 * np.arange(round(seconds * FPS))).astype(np.uint8)
    write_video(path, np.broadcast_to(grey[:, None, None, None], (len(grey), 32, 32, 3)), FPS, quality=5)
    return path


def frame_times_s(video: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) → the time that each frame shows."""
    return (video.astype(float).mean(axis=(1, 2, 3)) / 5).round() / FPS + 0.5 / FPS


def voice(path: Path, seconds: float = 2.0, channels: int = 1) -> Path:
    samples = np.random.default_rng(1).normal(0, 0.1, (round(seconds * 16000), channels))
    soundfile.write(path, samples, 16000, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def joined(path: Path, video: Path, audio: np.ndarray) -> Path:
    """Video and audio (T,) in one Matroska file, the video copied, the audio without loss."""
    with av.open(str(video)) as source, av.open(str(path), "w", format="matroska") as target:
        picture = target.add_stream_from_template(source.streams.video[0])
        stream = target.add_stream("pcm_s16le", rate=16000, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = picture
                target.mux(packet)
        block = av.AudioFrame.from_ndarray((audio * 32767).astype(np.int16)[None], format="s16", layout="mono")
        block.sample_rate, block.pts = 16000, 0
        target.mux([*stream.encode(block), *stream.encode(None)])
    return path


def same(one: Unmixed, other: Unmixed) -> bool:
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Unmixed))


# --- training ------------------------------------------------------------------------------------------------------


def test_an_example_follows_from_seed_epoch_and_index_alone(split: Split, bank: Bank, audiovisual: Small) -> None:
    first, second = (TrainingSet(mixed(split.train), audiovisual(*BUSY), bank) for _ in range(2))
    for epoch in (0, 1):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        backwards = [second[i] for i in reversed(range(len(second)))][::-1]
        assert all(same(first[i], backwards[i]) for i in range(len(first)))
    other = TrainingSet(mixed(split.train), audiovisual(*BUSY, "seed=2"), bank)
    other.set_epoch(1)
    assert not any(torch.equal(first[i].video, other[i].video) for i in range(len(first)) if first[i].video_mask)


def test_a_video_changes_nothing_about_the_audio(split: Split, bank: Bank, small: Small, audiovisual: Small) -> None:
    audio_alone, both = (TrainingSet(split.train, recipe(*BUSY), bank) for recipe in (small, audiovisual))
    for index in range(4):
        for name in ("dry", "taps", "noise", "snr_db", "gain", "mic_mask"):
            assert torch.equal(getattr(audio_alone[index], name), getattr(both[index], name))
        assert audio_alone[index].video.numel() == 0


@pytest.mark.parametrize("speed", [0.0, 0.3])
@pytest.mark.parametrize(("start_s", "offset_s"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.6)])
def test_the_frames_are_of_the_same_stretch_as_the_audio(
    tmp_path: Path, audiovisual: Small, speed: float, start_s: float, offset_s: float
) -> None:
    quiet = ("rooms.snr_db=null", "augment.gain_db=0", "augment.camera={}", "audio.trim_silence=false")
    recipe = audiovisual(*quiet, f"augment.speed={speed}", "augment.time_shift_s=0.3", "video.frames=4")
    video_times_s, audio_times_s = [], []
    for seconds in (0.8, 1.5, 3.5):  # shorter than the window, about as long, and longer
        # The audio shows its time as the video does: it rises steadily.
        whole_s = start_s + seconds
        ramp = 0.1 + 0.1 * np.arange(round(whole_s * 16000)) / 16000
        soundfile.write(tmp_path / f"{seconds}.wav", ramp, 16000, subtype="FLOAT")
        video = clock(tmp_path / f"{seconds}.mp4", whole_s + offset_s)
        clip = Clip(
            "a",
            "own",
            "1",
            "happy",
            tmp_path / f"{seconds}.wav",
            video,
            start_s,
            whole_s,
            video_offset_s=offset_s,
            face="whole",
        )
        clips = TrainingSet([clip], recipe, None)
        for epoch in range(12):
            clips.set_epoch(epoch)
            item = clips[0]
            assert item.video_mask
            audio_times_s.append(float((item.dry[item.dry > 0.05].mean() - 0.1) / 0.1))
            video_times_s.append(frame_times_s(item.video.numpy()).mean() - offset_s)
    # The tolerance: half a frame of the video, and half of the spacing of the frames that are kept.
    np.testing.assert_allclose(video_times_s, audio_times_s, atol=0.05 + recipe.audio.seconds / 4 / 2)
    assert abs(np.mean(np.array(video_times_s) - audio_times_s)) < 0.04
    assert np.std(video_times_s) > 0.2


def test_frames_of_trimmed_silence_are_not_used_either(tmp_path: Path, audiovisual: Small) -> None:
    recipe = audiovisual("rooms.snr_db=null", "augment.gain_db=0", "augment.camera={}", "audio.trim_silence=true")
    ramp = 0.1 + 0.1 * np.arange(4 * 16000) / 16000
    ramp[: 2 * 16000] = 0
    soundfile.write(tmp_path / "late.wav", ramp, 16000, subtype="FLOAT")
    clip = Clip("a", "own", "1", "happy", tmp_path / "late.wav", clock(tmp_path / "late.mp4", 4), face="whole")
    clips = TrainingSet([clip], recipe, None)
    for epoch in range(6):
        clips.set_epoch(epoch)
        item = clips[0]
        audio_time_s = float((item.dry[item.dry > 0.05].mean() - 0.1) / 0.1)
        assert frame_times_s(item.video.numpy()).mean() == pytest.approx(audio_time_s, abs=0.4)


def test_a_short_video_stays_in_memory_between_epochs_a_long_one_does_not(tmp_path: Path, audiovisual: Small) -> None:
    for seconds, kept in ((3.0, True), (11.0, False)):
        video, audio = clock(tmp_path / f"{seconds}.mp4", seconds), voice(tmp_path / f"{seconds}.wav", seconds)
        clips = TrainingSet([Clip("a", "own", "1", "happy", audio, video, face="whole")], audiovisual(), None)
        for epoch in range(3):
            clips.set_epoch(epoch)
            assert clips[0].video_mask
        footage = clips.clips.footage(0)
        assert footage
        assert len(footage.crops) == kept


def test_a_video_that_breaks_off_is_named_in_the_first_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], voices: Path
) -> None:
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    (bad,) = corpus.rglob("synthetic-02-happy-01.mp4")
    write_video(bad, np.random.default_rng(1).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8), FPS)
    spoil(bad, "promise")
    words = [
        "train",
        "--recipe",
        "tiny",
        "--corpus",
        "synthetic",
        "--root",
        str(corpus),
        "--out",
        str(tmp_path / "run"),
    ]
    tiny = ["modalities=both", *LIGHT, "data.split=folds-4:1", "audio.seconds=1.28", "model.image_frames=64"]
    assert main([*words, *tiny]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"farfeel: error: {bad} is ")
    assert error.endswith("copy the file again")


def test_what_a_clip_lacks_is_masked_and_the_model_trains_on_the_rest(
    tmp_path: Path, split: Split, bank: Bank, audiovisual: Small
) -> None:
    recipe, train = audiovisual(*BUSY, "train.epochs=1", "augment.modality_dropout=0.4"), mixed(split.train)
    clips = TrainingSet(train, recipe, bank)
    for index, clip in enumerate(train):
        item = clips[index]
        assert bool(item.video_mask) == (clip.video is not None)
        assert bool(item.mic_mask.any()) == (clip.audio is not None)
        assert bool(item.video.any()) == (clip.video is not None)
        assert bool(item.dry.any()) == (clip.audio is not None)
    batch = at_microphones(collate([clips[index] for index in range(len(train))]))
    assert batch.audio.isfinite().all()
    (report,) = learn(tmp_path / "run", recipe, train, mixed(split.val), bank)
    assert np.isfinite([report.train_loss, report.val_loss]).all()
    learnt = load_checkpoint(tmp_path / "run" / "best").state_dict()
    assert all(value.isfinite().all() for value in learnt.values())
    assert learnt["classifier.absent_audio"].any()
    assert learnt["classifier.absent_video"].any()


def test_a_model_of_video_alone_trains_without_audio(tmp_path: Path, split: Split, small: Small) -> None:
    recipe = small("modalities=video", *LIGHT, "train.epochs=1")
    train, val = (usable_clips(mixed(clips), recipe, "corpus") for clips in (split.train, split.val))
    assert all(clip.video for clip in train)
    clips = TrainingSet(train, recipe, None)
    assert clips[0].dry.shape == (1,)
    assert not any(clips[index].mic_mask.any() for index in range(len(clips)))
    (report,) = learn(tmp_path / "run", recipe, train, val, None)
    assert np.isfinite([report.train_loss, report.val_loss]).all()


def test_clips_without_a_recipes_modalities_are_one_clear_line(split: Split, small: Small, audiovisual: Small) -> None:
    deaf = [replace(clip, audio=None) for clip in split.train]
    blind = [replace(clip, video=None) for clip in split.train]
    assert usable_clips(deaf, audiovisual(), "corpus") == deaf
    with pytest.raises(FarfeelError, match="none of 16 clips has audio, the recipe's modalities are audio"):
        usable_clips(deaf, small(), "corpus")
    for modalities in ("video", "both"):
        with pytest.raises(
            FarfeelError, match=f"has video, .* are {modalities}; add the video, or set modalities=audio"
        ):
            usable_clips(blind, small(f"modalities={modalities}"), "corpus")


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, split: Split, bank: Bank, audiovisual: Small
) -> None:
    recipe = audiovisual(
        *BUSY, "augment.modality_dropout=0.4", "video.dropout=0.2", "fusion.dropout=0.2", "train.epochs=2"
    )
    clips = mixed(split.train), mixed(split.val)
    learn(tmp_path / "whole", recipe, *clips, bank)
    learn(tmp_path / "halved", recipe, *clips, bank, epochs=1)
    assert len(learn(tmp_path / "halved", recipe, *clips, bank, resume=True)) == 1
    ours, theirs = (load_checkpoint(tmp_path / run / "best").state_dict() for run in ("whole", "halved"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "halved")


def learn(
    out: Path,
    recipe: Recipe,
    train: list[Clip],
    val: list[Clip],
    bank: Bank | None,
    epochs: int | None = None,
    resume: bool = False,
) -> list[EpochReport]:
    """Reports of a run; with `epochs`, stopped after so many, as if killed."""
    torch.manual_seed(recipe.seed)
    model, clips = EmotionModel(recipe), TrainingSet(train, recipe, bank)
    reports = []
    for report in fit(
        model, clips, EvaluationSet(val, recipe, [bank] if bank else [], one_room_each=True), recipe, out, resume
    ):
        reports.append(report)
        if len(reports) == epochs:
            break
    return reports


def metrics_of(run: Path) -> list[list[str]]:
    """metrics.csv without what depends on the clock."""
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return [[value for name, value in row.items() if name not in ("clips_per_s", "seconds")] for row in rows]


def test_mixup_mixes_video_audio_and_target_alike_and_only_clips_with_the_same_modalities() -> None:
    count, kinds = 48, 3
    has_audio, has_video = torch.arange(count) % kinds != 0, torch.arange(count) % kinds != 1
    target = torch.arange(count)
    rows = F.one_hot(target, count).float()  # audio and video are their own target here
    for seed in range(5):
        torch.manual_seed(seed)
        audio = rows[:, None] * has_audio[:, None, None]
        video = (rows * has_video[:, None])[:, None, None, None].expand(-1, 3, 2, 4, -1)
        mixture = mixup(Batch(audio, has_audio[:, None], target, video, has_video), 0.4, count)
        assert mixture.frames is not None
        others = (mixture.target > 0) & ~rows.bool()
        assert others.any()
        for clip, other in others.nonzero():
            assert clip % kinds == other % kinds
        torch.testing.assert_close(mixture.audio[has_audio, 0], mixture.target[has_audio])
        torch.testing.assert_close(mixture.frames[has_video, 0, 0, 0], mixture.target[has_video])
        assert not mixture.audio[~has_audio].any()
        assert not mixture.frames[~has_video].any()
        assert torch.equal(mixture.mic_mask[:, 0], has_audio)


def views_and_batch() -> tuple[torch.Tensor, Batch]:
    """Logits (3, B, K) of both, audio alone and video alone. A third of the clips has no audio, a third no video."""
    generator = torch.Generator().manual_seed(1)
    views, target = torch.randn(3, 12, 5, generator=generator), torch.randint(5, (12,), generator=generator)
    has_audio, has_video = torch.arange(12) % 3 != 0, torch.arange(12) % 3 != 1
    return views, Batch(torch.zeros(12, 2, 8), has_audio[:, None].expand(-1, 2), target, None, has_video)


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_the_loss_under_modality_dropout_is_the_mean_over_what_could_be_drawn(p: float) -> None:
    views, batch = views_and_batch()
    assert batch.video_mask is not None
    complete = batch.mic_mask.any(dim=1) & batch.video_mask
    draws = 40000
    generator = torch.Generator().manual_seed(2)
    dropped = (torch.rand(draws, 12, generator=generator) < p) & complete
    which = torch.where(dropped, torch.randint(1, 3, (draws, 12), generator=generator), 0)  # 0: nothing is lost
    losses = torch.stack([F.cross_entropy(each, batch.target, reduction="none") for each in views])
    drawn = losses[which, torch.arange(12)].mean(dim=1)
    expected = dropout_loss(views, batch, Augment(modality_dropout=p))
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / draws**0.5


def test_modality_dropout_of_nothing_and_of_everything() -> None:
    views, batch = views_and_batch()
    assert batch.video_mask is not None
    complete = batch.mic_mask.any(dim=1) & batch.video_mask
    whole, of_audio, of_video = (F.cross_entropy(each, batch.target, reduction="none") for each in views)
    torch.testing.assert_close(dropout_loss(views, batch, Augment()), whole.mean())
    # With certainty one of the two is lost; a clip that has but one keeps it, and weighs as much as the others.
    all_lost = torch.where(complete, (of_audio + of_video) / 2, whole).mean()
    torch.testing.assert_close(dropout_loss(views, batch, Augment(modality_dropout=1.0)), all_lost)


# --- recognition ---------------------------------------------------------------------------------------------------


def test_a_row_of_the_table_equals_the_prediction_of_those_files(
    tmp_path: Path, split: Split, audiovisual: Small, recognizer: Recognizer
) -> None:
    clip = split.test[0]
    assert clip.audio
    assert clip.video
    one = joined(tmp_path / "one.mkv", clip.video, soundfile.read(clip.audio)[0])
    in_one = replace(clip, id="one", audio=one, video=one, end_s=None)
    table = prediction_table(recognizer, EvaluationSet([clip, in_one], audiovisual()))
    found = (
        recognizer.predict(clip.video, audio=clip.audio, face="whole"),
        recognizer.predict(one, face="whole"),
    )
    for (_, row), prediction in zip(table.iterrows(), found, strict=True):
        assert prediction.modalities == ("audio", "video")
        assert prediction.warnings == ()
        columns = [f"p_{emotion}" for emotion in prediction.emotions]
        np.testing.assert_allclose(row[columns].astype(float), prediction.probabilities, atol=1e-6)
    np.testing.assert_allclose(found[0].probabilities, found[1].probabilities, atol=0.01)  # 16 bits, container's times


def test_audio_alone_equals_the_audio_file_and_video_alone_the_video_file(
    tmp_path: Path, split: Split, recognizer: Recognizer
) -> None:
    clip = split.test[0]
    assert clip.audio
    assert clip.video
    one = joined(tmp_path / "one.mkv", clip.video, soundfile.read(clip.audio)[0])
    by_audio = recognizer.predict(one, modalities="audio")
    np.testing.assert_allclose(by_audio.probabilities, recognizer.predict(clip.audio).probabilities, atol=1e-3)
    assert by_audio.modalities == ("audio",)
    by_video = recognizer.predict(one, modalities="video", face="whole")
    np.testing.assert_allclose(
        by_video.probabilities, recognizer.predict(clip.video, face="whole").probabilities, atol=0.01
    )
    assert (by_video.modalities, by_video.microphones, by_video.warnings) == (("video",), 0, ())
    assert np.abs(np.subtract(by_audio.probabilities, by_video.probabilities)).max() > 1e-3


def test_probabilities_do_not_depend_on_the_others_in_the_batch(
    split: Split, audiovisual: Small, recognizer: Recognizer
) -> None:
    recordings = [recording.recording for recording in EvaluationSet(mixed(split.test), audiovisual())]
    rng = np.random.default_rng(1)
    recordings.append(Recording(rng.normal(0, 0.1, (3, 30000)).astype(np.float32), recordings[0].video))
    together = recognizer.probabilities(recordings)
    for recording, expected in zip(recordings, together, strict=True):
        np.testing.assert_allclose(recognizer.probabilities([recording])[0], expected, atol=1e-5)


def test_camera_off_follows_from_clip_names_and_a_larger_share_includes_a_smaller(
    split: Split, audiovisual: Small, tmp_path: Path
) -> None:
    video = clock(tmp_path / "film.mp4", 1)
    clips = [Clip(f"clip-{number}", "own", "1", "sad", video, video) for number in range(1000)]
    names = {}
    for share in (0.0, 0.2, 0.5, 1.0):
        recordings = EvaluationSet(clips, audiovisual(), conditions=Conditions(camera_off=share))
        names[share] = {clip.id for clip in clips if not recordings.has_video(clip)}
        assert len(names[share]) == pytest.approx(1000 * share, abs=100)
        some = EvaluationSet(clips[::-7], audiovisual(), conditions=Conditions(camera_off=share))
        assert {clip.id for clip in clips[::-7] if not some.has_video(clip)} == names[share] & {
            clip.id for clip in clips[::-7]
        }
    assert names[0.0] < names[0.2] < names[0.5] < names[1.0]
    # Where there is no audio, the video stays: nothing would be left.
    items = list(EvaluationSet(mixed(split.test), audiovisual(), conditions=Conditions(camera_off=1.0)))
    assert all((item.recording.video is None) == (item.clip.audio is not None) for item in items)
    assert len(
        prediction_table(
            make(audiovisual()), EvaluationSet(mixed(split.test), audiovisual(), conditions=Conditions(camera_off=1.0))
        )
    ) == len(items)


def test_a_video_with_silent_audio_is_recognised_by_the_video(
    tmp_path: Path, split: Split, recognizer: Recognizer
) -> None:
    video = split.test[0].video
    assert video
    silent = recognizer.predict(joined(tmp_path / "silent.mkv", video, np.zeros(16000)), face="whole")
    assert silent.modalities == ("video",)
    assert len(silent.warnings) == 1
    assert "the audio is not used" in silent.warnings[0]
    assert "is silent" in silent.warnings[0]
    alone = recognizer.predict(video, face="whole")
    assert alone.warnings == ()
    assert alone.modalities == ("video",)


def test_silent_channels_leave_the_video_and_a_warning(tmp_path: Path, recognizer: Recognizer) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, (32000, 2))
    samples[:, 1] = 0
    soundfile.write(tmp_path / "half.wav", samples, 16000)
    video = clock(tmp_path / "film.mp4", 2)
    dead = recognizer.predict(video, mics=[1], audio=tmp_path / "half.wav", face="whole")
    assert (dead.modalities, dead.microphones) == (("video",), 0)
    assert dead.warnings == ("every chosen microphone is silent; only the video is used",)
    np.testing.assert_allclose(dead.probabilities, recognizer.predict(video, face="whole").probabilities, atol=1e-6)


def spoil(video: Path, how: str) -> None:
    content = video.read_bytes()
    if how == "cut":
        video.write_bytes(content[: len(content) // 2])
    elif how == "text":
        video.write_text("no film\n" * 100)
    elif how == "empty":
        video.write_bytes(b"")
    elif how == "absent":
        video.unlink()
    else:  # The header is whole and comes first, but the frames break off. Only reading them shows it.
        whole = video.with_name("whole.mp4")
        video.rename(whole)
        options = {"movflags": "faststart"}
        with av.open(str(whole)) as source, av.open(str(video), "w", format="mp4", options=options) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        video.write_bytes(video.read_bytes()[: round(0.6 * video.stat().st_size)])


@pytest.mark.parametrize("how", ["cut", "text", "empty", "absent", "promise"])
def test_a_damaged_video_leaves_the_audio_and_a_warning(tmp_path: Path, recognizer: Recognizer, how: str) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "film.mp4", frames, FPS)
    spoil(tmp_path / "film.mp4", how)
    audio = voice(tmp_path / "sound.wav", channels=3)
    found = recognizer.predict(tmp_path / "film.mp4", audio=audio)
    assert found.modalities == ("audio",)
    assert found.microphones == 3
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"the video is not used: {tmp_path / 'film.mp4'} ")
    np.testing.assert_array_equal(found.probabilities, recognizer.predict(audio).probabilities)
    with pytest.raises(FarfeelError, match=r"film\.mp4 "):
        recognizer.predict(tmp_path / "film.mp4")
    with pytest.raises(FarfeelError, match=r"film\.mp4 "):
        recognizer.predict(tmp_path / "film.mp4", audio=audio, modalities="video")


def test_damaged_audio_leaves_the_video_and_a_warning(tmp_path: Path, recognizer: Recognizer) -> None:
    video = clock(tmp_path / "film.mp4", 2)
    (tmp_path / "sound.wav").write_text("no sound")
    found = recognizer.predict(video, audio=tmp_path / "sound.wav", face="whole")
    assert found.modalities == ("video",)
    assert found.warnings[0].startswith(f"the audio is not used: {tmp_path / 'sound.wav'} cannot be read as audio")
    with pytest.raises(FarfeelError, match=r"sound\.wav cannot be read as audio"):
        recognizer.predict(video, audio=tmp_path / "sound.wav", modalities="audio")
    found = recognizer.predict(voice(tmp_path / "near.wav"), audio=voice(tmp_path / "far.wav", channels=3))
    assert found.microphones == 3
    assert found.modalities == ("audio",)
    assert "near.wav has audio but no video" in found.warnings[0]


@pytest.mark.parametrize(
    ("audio_s", "video_s", "offset_s", "notes"),
    [
        (2.0, 2.0, 0.0, ()),
        (2.0, 2.4, 0.0, ()),
        (3.0, 2.0, 0.0, ("the video ends 1.0 s before the audio",)),
        (2.0, 3.0, 0.0, ("the audio ends 1.0 s before the video",)),
        (2.0, 3.0, 1.0, ()),
        (2.0, 2.0, 1.0, ("the video ends 1.0 s before the audio",)),
    ],
)
def test_audio_and_video_of_different_lengths_give_a_warning(
    tmp_path: Path, recognizer: Recognizer, audio_s: float, video_s: float, offset_s: float, notes: tuple[str, ...]
) -> None:
    video, audio = clock(tmp_path / "film.mp4", video_s), voice(tmp_path / "sound.wav", audio_s)
    found = recognizer.predict(video, audio=audio, audio_offset_s=offset_s, face="whole")
    assert found.modalities == ("audio", "video")
    assert found.end_s == pytest.approx(audio_s)
    assert found.warnings == notes


def test_a_still_goes_with_audio_of_any_length(tmp_path: Path, recognizer: Recognizer) -> None:
    cv2.imwrite(str(tmp_path / "face.jpg"), np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    alone = recognizer.predict(tmp_path / "face.jpg", face="whole")
    assert (alone.modalities, alone.warnings) == (("video",), ())
    for seconds in (0.5, 12.0):
        audio = voice(tmp_path / "sound.wav", seconds)
        found = recognizer.predict(tmp_path / "face.jpg", audio=audio, face="whole")
        assert (found.modalities, found.warnings) == (("audio", "video"), ())


def test_an_offset_moves_the_audio_within_the_video(tmp_path: Path, recognizer: Recognizer) -> None:
    video, audio = clock(tmp_path / "film.mp4", 4), voice(tmp_path / "sound.wav", 1.0)
    for offset_s in (0.0, 1.0, 2.5):
        options = Options(audio=audio, audio_offset_s=offset_s, face="whole")
        recording, _ = open_recording(video, recognizer.recipe, options)
        assert recording.video
        frames = recording.video.frames(0.0, 1.0)
        assert frames is not None
        assert frame_times_s(frames).mean() == pytest.approx(offset_s + 0.5, abs=0.1)
    hardly = recognizer.predict(video, audio=audio, audio_offset_s=3.7)
    assert hardly.modalities == ("audio",)
    assert "the video is not used: it covers less than half of the audio" in hardly.warnings
    beyond = recognizer.predict(video, audio=audio, audio_offset_s=5.0)
    assert beyond.modalities == ("audio",)
    assert "lasts 4.0 s, but the recording begins at 5.0 s of it" in beyond.warnings[0]


@pytest.mark.parametrize("face", ["largest", "left", "right", "whole"])
def test_the_requested_face_is_used(tmp_path: Path, recognizer: Recognizer, face: str) -> None:
    recording, _ = open_recording(clock(tmp_path / "film.mp4", 2), recognizer.recipe, Options(face=face))
    assert recording.video
    assert recording.video.face == face
    with pytest.raises(FarfeelError, match="face is 'middle', expected largest"):
        recognizer.predict(tmp_path / "film.mp4", face="middle")


@pytest.mark.parametrize(
    "other", ["video.frames=4", "video.size=48", "video.crop=none", "video.margin=0.5", "modalities=audio"]
)
def test_an_ensemble_with_different_video_settings_is_one_clear_line(audiovisual: Small, other: str) -> None:
    with pytest.raises(FarfeelError, match="an ensemble needs the same"):
        make(audiovisual(), audiovisual(other))


def test_an_ensemble_on_video_is_the_mean_of_its_members(tmp_path: Path, audiovisual: Small) -> None:
    video, audio = clock(tmp_path / "film.mp4", 2), voice(tmp_path / "sound.wav")
    engines = make(audiovisual(), audiovisual("video.width=8")).engines
    each = [Recognizer([engine]).predict(video, audio=audio, face="whole").probabilities for engine in engines]
    mean = Recognizer(engines).predict(video, audio=audio, face="whole").probabilities
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)


def test_a_checkpoint_of_one_modality_refuses_the_other(tmp_path: Path, small: Small) -> None:
    video, audio = clock(tmp_path / "film.mp4", 2), voice(tmp_path / "sound.wav")
    of_video, of_audio = make(small("modalities=video", *LIGHT)), make(small())
    assert of_video.predict(video, audio=audio, face="whole").modalities == ("video",)
    assert of_audio.predict(video, audio=audio).modalities == ("audio",)
    with pytest.raises(FarfeelError, match="takes audio, --modalities asks for video; remove --modalities"):
        of_audio.predict(video, modalities="video")
    with pytest.raises(FarfeelError, match="takes video, --modalities asks for audio; remove --modalities"):
        of_video.predict(video, modalities="audio")
    with pytest.raises(FarfeelError, match=r"sound\.wav has audio but no video, expected a video"):
        of_video.predict(audio)
    with pytest.raises(FarfeelError, match=r"film\.mp4 has video but no audio, expected an audio track"):
        of_audio.predict(video)


def test_real_videos_are_recognised_by_both_modalities_and_the_face_crops_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], audiovisual: Small
) -> None:
    clips = sorted((DATA / "ravdess-av").rglob("*.mp4"))
    if not clips:
        pytest.skip("no video of RAVDESS under FARFEEL_DATA")
    recipe = audiovisual()
    save_checkpoint(tmp_path / "best", EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
    options = ["--checkpoint", str(tmp_path / "best"), "--debug-dir", str(tmp_path / "views"), "--format", "csv"]
    assert main(["predict", *map(str, clips), *options]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["modalities"], row["warnings"]) for row in rows] == [("audio+video", "")] * len(clips)
    views = {clip.stem: sorted((tmp_path / "views").glob(f"{clip.stem}-*.png")) for clip in clips}
    assert all(len(pictures) == 2 for pictures in views.values())
    assert len(list((tmp_path / "views").iterdir())) == 2 * len(clips)
    for crop, face in views.values():
        picture, frames = cv2.imread(str(crop)), cv2.imread(str(face))
        assert picture is not None
        assert frames is not None
        assert picture.shape[1] > picture.shape[0] > recipe.video.size
        assert frames.shape[1] > frames.shape[0] >= recipe.video.size


def test_a_checkpoint_of_both_is_tested_on_audio_where_there_is_no_video(
    voices: Path, audiovisual: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either modality may be missing, from a clip or from a corpus. A training on video needs some videos."""
    recipe = audiovisual("data.split=folds-4:1")
    save_checkpoint(tmp_path / "both", EmotionModel(recipe).state_dict(), recipe, "# both\n")
    manifest = tmp_path / "sound.parquet"
    audio = [replace(clip, video=None) for clip in load_clips("synthetic", voices)]
    write_manifest(audio, manifest, voices)
    test = ["evaluate", "--checkpoint", str(tmp_path / "both"), "--corpus", str(manifest)]
    for asked in ([], ["--modalities", "audio"]):
        assert main([*test, *asked, "--out", str(tmp_path / f"test{len(asked)}")]) == 0
    assert "no clip has video: the test uses audio only" in capsys.readouterr().err
    tables = [read_predictions(tmp_path / name) for name in ("test0", "test2")]
    np.testing.assert_array_equal(probabilities_of(tables[0]), probabilities_of(tables[1]))
    train = ["train", "--recipe", str(tmp_path / "both" / "recipe.yaml"), "--corpus", str(manifest)]
    assert main([*train, "--out", str(tmp_path / "run")]) == 1
    assert "add the video" in capsys.readouterr().err
