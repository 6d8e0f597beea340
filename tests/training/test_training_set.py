"""Laws of what happens between a dry clip and the microphones."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import Split
from farfeel.evaluate.test_set import Conditions, EvaluationSet
from farfeel.media.audio import speech_span
from farfeel.models.logmel import LogMel, front_end
from farfeel.recipe import Recipe
from farfeel.recognise.windows import Recording, recording_windows
from farfeel.rooms.bank import Bank
from farfeel.rooms.noise import kind_of
from farfeel.training.examples import (
    TrainingSet,
    Unmixed,
    at_microphones,
    collate,
    divide_rooms,
    draw_position_in_window,
)
from farfeel.types import FarfeelError
from farfeel.variants import NOISES

Small = Callable[..., Recipe]
BUSY = (
    "augment.speed=0.1",
    "augment.mic_dropout=0.3",
    "rooms.dry=0.2",
    "rooms.noise=[white, babble]",
    "augment.gain_db=6",
)


def same(one: Unmixed, other: Unmixed) -> bool:
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Unmixed))


def test_an_example_follows_from_seed_epoch_and_index_alone(split: Split, bank: Bank, small: Small) -> None:
    first, second = (TrainingSet(split.train, small(*BUSY), bank) for _ in range(2))
    for epoch in (0, 1):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        backwards = [second[i] for i in reversed(range(len(second)))][::-1]
        assert all(same(first[i], backwards[i]) for i in range(len(first)))


def test_each_epoch_and_each_seed_draws_other_rooms(split: Split, bank: Bank, small: Small) -> None:
    clips = TrainingSet(split.train, small("rooms.dry=0"), bank)
    renderings = []
    for epoch in range(4):
        clips.set_epoch(epoch)
        renderings.append(clips[0].taps)
    assert len({tuple(taps[0, :50].tolist()) for taps in renderings}) > 1
    other = TrainingSet(split.train, small("seed=2"), bank)
    assert not same(clips[0], other[0])


def test_one_microphone_always_works(split: Split, bank: Bank, small: Small) -> None:
    clips = TrainingSet(split.train, small("augment.mic_dropout=1.0"), bank)
    assert all(int(clips[i].mic_mask.sum()) == 1 for i in range(len(clips)))


def test_no_room_and_no_noise_leave_the_dry_clip(split: Split, small: Small) -> None:
    recipe = small("rooms.snr_db=null", "augment.gain_db=0", "augment.time_shift_s=0")
    clips = TrainingSet(split.train, recipe, None)
    item = clips[0]
    batch = at_microphones(collate([item]))
    torch.testing.assert_close(batch.audio[0], item.dry.expand(3, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_microphones_have_the_requested_snr(
    tmp_path: Path, split: Split, bank: Bank, small: Small, channels: int, kind: str
) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (30000, channels))
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    quiet = ("augment.gain_db=0", "rooms.dry=0", f"rooms.noise_folder={tmp_path}")
    clips = TrainingSet(split.train, small(*quiet, "rooms.snr_db=[7, 7]", f"rooms.noise=[{kind}]"), bank)
    sources = collate([clips[0]])
    clean = at_microphones(replace(sources, snr_db=torch.tensor([float("inf")]))).audio
    noise = at_microphones(sources).audio - clean
    snr_db = 10 * torch.log10(clean.square().sum() / noise.square().sum())
    assert snr_db.item() == pytest.approx(7.0, abs=0.01)


def test_a_noise_folder_without_audio_is_one_clear_line(tmp_path: Path, split: Split, bank: Bank, small: Small) -> None:
    with pytest.raises(FarfeelError, match="has no audio file"):
        TrainingSet(split.train, small("rooms.noise=[recorded]", f"rooms.noise_folder={tmp_path}"), bank)


def test_fewer_microphones_than_requested_is_one_clear_line(split: Split, bank: Bank, small: Small) -> None:
    with pytest.raises(FarfeelError, match="has 3 microphones, the recipe asks for 4"):
        TrainingSet(split.train, small("microphones.count=4"), bank)


def test_validation_rooms_are_never_trained_in(bank: Bank) -> None:
    training, validation = divide_rooms(bank)
    assert training
    assert validation
    assert not set(training) & set(validation)
    assert set(training) | set(validation) == set(bank.rooms)


def test_the_audio_of_a_test_clip_does_not_depend_on_the_others(split: Split, bank: Bank, small: Small) -> None:
    recordings = EvaluationSet(split.test, small(), [bank])
    together = {(item.clip.id, item.room): item.recording.audio for item in recordings}
    assert len(together) == len(split.test) * len(bank.rooms)
    for clip in split.test[:3]:
        for alone in EvaluationSet([clip], small(), [bank]):
            np.testing.assert_array_equal(together[clip.id, alone.room], alone.recording.audio)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_of_a_test_has_its_level_and_depends_on_names_alone(
    voices: Path, bank: Bank, small: Small, noise: str, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(1).normal(0, 0.1, 30000), 16000)
    recipe = small(f"rooms.noise_folder={tmp_path}")
    clips = load_clips("synthetic", voices)
    quiet = EvaluationSet(clips, recipe, [bank])
    noisy = EvaluationSet(clips, recipe, [bank], conditions=Conditions(snr_db=7, noise=noise))
    for index in (0, 5, 40):
        speech, with_noise = quiet[index].recording.audio, noisy[index].recording.audio
        added = with_noise - speech
        assert 10 * np.log10((speech**2).sum() / (added**2).sum()) == pytest.approx(7, abs=1e-2)
        if kind_of(noise).OF_EACH_MICROPHONE:
            each = 10 * np.log10((speech**2).sum(axis=1) / (added**2).sum(axis=1))
            assert each == pytest.approx([7, 7, 7], abs=0.2)
        again = EvaluationSet(clips, recipe, [bank], conditions=Conditions(snr_db=7, noise=noise))[index]
        np.testing.assert_array_equal(again.recording.audio, with_noise)


def test_dead_microphones_of_a_test_are_silent_and_drawn(voices: Path, bank: Bank, small: Small) -> None:
    clips = load_clips("synthetic", voices)
    whole, rest = (
        EvaluationSet(clips, small(), [bank]),
        EvaluationSet(clips, small(), [bank], conditions=Conditions(dead_mics=2)),
    )
    working = [np.abs(item.recording.audio).max(axis=1) > 0 for item in rest]
    assert all(works.sum() == 1 for works in working)
    assert np.stack(working).any(axis=0).all()
    for index in (0, 7):
        works = working[index]
        np.testing.assert_array_equal(rest[index].recording.audio[works], whole[index].recording.audio[works])
    with pytest.raises(FarfeelError, match="3 of 3 microphones would be dead, expected 2 at most"):
        _ = EvaluationSet(clips, small(), [bank], conditions=Conditions(dead_mics=3))[0]


def test_a_test_with_recorded_noise_needs_recordings(voices: Path, bank: Bank, small: Small) -> None:
    with pytest.raises(FarfeelError, match=r"rooms\.noise_folder \(None\) has no audio file"):
        EvaluationSet(load_clips("synthetic", voices), small(), [bank], conditions=Conditions(5, "recorded"))


def test_babble_needs_another_speaker(voices: Path, bank: Bank, small: Small) -> None:
    alone = load_clips("synthetic", voices)[:2]
    with pytest.raises(FarfeelError, match="second speaker"):
        _ = EvaluationSet(alone, small(), [bank], conditions=Conditions(snr_db=0, noise="babble"))[0]


def test_a_single_training_speaker_has_every_noise_but_babble(voices: Path, bank: Bank, small: Small) -> None:
    alone = [clip for clip in load_clips("synthetic", voices) if clip.speaker == "01"]
    noises = "rooms.noise=[white, babble, fan]"
    assert TrainingSet(alone, small(noises), bank).noises == ["white", "fan"]
    assert TrainingSet(alone, small("rooms.noise=[babble]", "rooms.snr_db=null"), bank)[0].snr_db == float("inf")
    with pytest.raises(FarfeelError, match="babble: it needs a second speaker, found 1"):
        TrainingSet(alone, small("rooms.noise=[babble]"), bank)


def test_without_rooms_a_recording_is_the_file(split: Split, small: Small) -> None:
    recordings = EvaluationSet(split.test, small())
    assert {item.room for item in recordings} == {"clean"}
    assert all(item.recording.audio.shape[0] == 1 for item in recordings)


def test_choosing_microphones_keeps_their_order(split: Split, bank: Bank, small: Small) -> None:
    whole, chosen = (
        EvaluationSet(split.test[:1], small(), [bank]),
        EvaluationSet(split.test[:1], small(), [bank], [2, 0]),
    )
    assert chosen[0].recording.audio.shape[0] == 2
    # Each loses the delay that its own microphones have in common: equal but for a shift.
    all_three, two = whole[0].recording.audio, chosen[0].recording.audio
    lags = [np.correlate(all_three[mic], two[i], "full").argmax() for i, mic in enumerate((2, 0))]
    assert lags[0] == lags[1]


@given(st.integers(1, 60000), st.integers(1, 3))
def test_windows_cover_a_recording_and_have_one_length(small: Small, samples: int, mics: int) -> None:
    recipe = small("audio.trim_silence=false")
    audio = np.arange(mics * samples, dtype=np.float32).reshape(mics, samples) + 1
    windows = recording_windows(Recording(audio), recipe)
    assert windows.audio.shape[1:] == (mics, recipe.audio.window_samples)
    assert windows.mic_mask.all()
    assert set(audio[0].tolist()) <= set(windows.audio[:, 0].ravel().tolist())
    assert windows.spans_s.min() == 0
    assert windows.spans_s.max() == pytest.approx(samples / 16000)


def test_trimming_removes_silence_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    speech = rng.normal(0, 0.1, (2, 16000)).astype(np.float32)
    audio = np.pad(speech, ((0, 0), (8000, 12000)))
    trimmed = audio[:, slice(*speech_span(audio, 16000))]
    assert 16000 <= trimmed.shape[1] <= 16000 + 2 * (0.1 + 0.025) * 16000
    assert np.square(trimmed).sum() == pytest.approx(np.square(speech).sum(), rel=1e-6)
    assert speech_span(np.zeros((1, 16000), np.float32), 16000) == (0, 16000)  # of silence, nothing is removed


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**31))
def test_a_placed_clip_is_whole_or_fills_the_window(length: int, samples: int, seed: int) -> None:
    dry = np.arange(1, length + 1, dtype=np.float32)
    window, start = draw_position_in_window(dry, samples, 0.0, np.random.default_rng(seed))
    assert window.shape == (samples,)
    assert window[max(0, start)] == 1 + max(0, -start)  # where the clip begins
    assert np.count_nonzero(window) == min(length, samples)
    assert (np.diff(window[window > 0]) == 1).all()


def test_renderings_are_used_in_turn_and_equal_the_input_of_the_network(split: Split, bank: Bank, small: Small) -> None:
    fresh, kept = small(*BUSY), small(*BUSY, "rooms.renderings=2")
    epochs = []
    for epoch in range(4):
        clips = TrainingSet(split.train, kept, bank)
        clips.set_epoch(epoch)
        epochs.append(clips[3])
    assert torch.equal(epochs[0].audio, epochs[2].audio)
    assert torch.equal(epochs[1].audio, epochs[3].audio)
    assert not torch.equal(epochs[0].audio, epochs[1].audio)
    drawn = TrainingSet(split.train, fresh, bank)
    drawn.set_epoch(1)
    batch = at_microphones(collate([drawn[3]]))
    mels = front_end(batch.audio, LogMel(fresh.audio), fresh.audio)
    torch.testing.assert_close(epochs[1].audio.float(), mels[0], atol=0.05, rtol=0)  # kept in half precision
    assert torch.equal(epochs[1].mic_mask, batch.mic_mask[0])


def test_renderings_are_for_audio_alone(small: Small) -> None:
    with pytest.raises(FarfeelError, match="renderings are for audio alone"):
        small("modalities=both", "rooms.renderings=2")
