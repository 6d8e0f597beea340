"""The embedded corpus follows from its seed, and is whole or absent. Emotions differ in the voice or in the face."""

import hashlib
from itertools import combinations
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from farfeel.corpora import drawn_faces
from farfeel.corpora.readers.synthetic import SYNTHETIC
from farfeel.corpora.scan import scan
from farfeel.corpora.synthetic import SAME_FACE, SAME_VOICE, SAMPLE_RATE, _draw_manner, generate
from farfeel.media.audio import read_audio
from farfeel.types import EMOTIONS, FarfeelError

SPEAKERS, TAKES = 6, 2
PAIRS = list(combinations(EMOTIONS, 2))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("synthetic"), SPEAKERS, TAKES, seed=5)


def digest(root: Path) -> dict[str, str]:
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("synthetic-*"))
    }


def test_every_speaker_has_every_emotion_equally_often(corpus: Path) -> None:
    report = scan(SYNTHETIC, corpus)
    speakers = [f"{speaker:02d}" for speaker in range(1, SPEAKERS + 1)]
    assert report.counts == {emotion: dict.fromkeys(speakers, TAKES) for emotion in EMOTIONS}
    assert report.sample_rates == {SAMPLE_RATE: SPEAKERS * len(EMOTIONS) * TAKES}
    assert report.channels == {1: SPEAKERS * len(EMOTIONS) * TAKES}
    assert not report.unreadable


def test_clips_are_speech_length_and_never_clip(corpus: Path) -> None:
    for clip in SYNTHETIC.clips(corpus):
        assert clip.audio is not None
        audio = read_audio(clip.audio, SAMPLE_RATE)
        assert 1.0 < audio.shape[1] / SAMPLE_RATE < 6.0
        assert np.abs(audio).max() < 0.99


def test_audio_and_video_of_a_clip_have_the_same_length(corpus: Path) -> None:
    clips = list(SYNTHETIC.clips(corpus))
    assert len(clips) == SPEAKERS * len(EMOTIONS) * TAKES
    for clip in clips:
        assert clip.audio is not None
        assert clip.video is not None
        assert clip.face == "whole"
        with av.open(str(clip.video)) as video:
            stream = video.streams.video[0]
            assert (stream.width, stream.height, float(stream.average_rate or 0)) == (64, 64, drawn_faces.FPS)
            assert stream.frames == -(-soundfile.info(clip.audio).frames * drawn_faces.FPS // SAMPLE_RATE)
            assert not video.streams.audio


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_emotions_have_the_same_voice_only_where_it_is_documented(pair: tuple[str, str]) -> None:
    first, second = (
        np.array([list(vars(_draw_manner(emotion, np.random.default_rng(clip))).values()) for clip in range(200)])
        for emotion in pair
    )
    assert np.array_equal(first, second) == (pair in SAME_VOICE)
    # Elsewhere the means of at least one habit lie apart by more than a clip deviates.
    apart = np.abs(first.mean(axis=0) - second.mean(axis=0)) / (0.5 * (first.std(axis=0) + second.std(axis=0)))
    assert (apart.max() > 2) == (pair not in SAME_VOICE)


def test_a_pair_with_the_same_voice_has_different_faces() -> None:
    assert not set(SAME_VOICE) & set(SAME_FACE)


@pytest.mark.parametrize("pair", SAME_FACE, ids="-".join)
def test_the_length_of_a_video_does_not_distinguish_emotions_with_one_face(pair: tuple[str, str]) -> None:
    rates = [[_draw_manner(emotion, np.random.default_rng(clip)).rate_log2 for clip in range(50)] for emotion in pair]
    assert np.allclose(rates[0], rates[1])


def test_same_seed_same_bytes_other_seed_other_bytes(corpus: Path, tmp_path: Path) -> None:
    again, other = generate(tmp_path / "again", 1, TAKES, seed=5), generate(tmp_path / "other", 1, TAKES, seed=6)
    first = {name: bytes_ for name, bytes_ in digest(corpus).items() if name.startswith("speaker_01/")}
    assert digest(again) == first
    assert digest(other).keys() == first.keys()
    assert not set(digest(other).values()) & set(first.values())


def test_no_two_clips_are_alike(corpus: Path) -> None:
    digests = digest(corpus)
    assert len(set(digests.values())) == len(digests)


def test_a_killed_run_leaves_whole_speakers_only_and_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digest(generate(tmp_path / "whole", 2, 1))
    with monkeypatch.context() as patch:
        written: list[Path] = []
        save = soundfile.write

        def killed(path: Path, *args: object, **kwargs: object) -> None:
            if len(written) == len(EMOTIONS) + 3:  # in the middle of the second speaker
                raise KeyboardInterrupt
            written.append(path)
            save(path, *args, **kwargs)

        patch.setattr(soundfile, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "killed", 2, 1)
    assert {clip.speaker for clip in SYNTHETIC.clips(tmp_path / "killed")} == {"01"}
    kept = (tmp_path / "killed/speaker_01/synthetic-01-happy-01.flac").stat().st_mtime_ns
    assert digest(generate(tmp_path / "killed", 2, 1)) == whole
    assert (tmp_path / "killed/speaker_01/synthetic-01-happy-01.flac").stat().st_mtime_ns == kept


def test_other_parameters_replace_what_was_there(tmp_path: Path) -> None:
    generate(tmp_path, 2, 1)
    (tmp_path / "speaker_01/synthetic-01-happy-01.flac").unlink()
    steps: list[tuple[int, int]] = []
    generate(tmp_path, 1, 2, seed=3, progress=lambda done, total: steps.append((done, total)))
    clips = list(SYNTHETIC.clips(tmp_path))
    assert {clip.speaker for clip in clips} == {"01"}
    assert len(clips) == 2 * len(EMOTIONS)
    assert steps == [(1, 1)]


def test_a_lost_clip_is_made_again(tmp_path: Path) -> None:
    before = digest(generate(tmp_path, 1, 1))
    for suffix in (".flac", ".mp4"):
        (tmp_path / "speaker_01/synthetic-01-sad-01").with_suffix(suffix).unlink()
        assert digest(generate(tmp_path, 1, 1)) == before


@pytest.mark.parametrize("counts", [(0, 1), (100, 1), (1, 0), (1, 100)])
def test_counts_above_two_digits_are_refused(tmp_path: Path, counts: tuple[int, int]) -> None:
    with pytest.raises(FarfeelError, match="expected 1 to 99"):
        generate(tmp_path, *counts)


def test_some_emotions_of_unknown_speakers_are_recognised_from_audio_not_all(corpus: Path) -> None:
    features, emotions, speakers = [], [], []
    for clip in SYNTHETIC.clips(corpus):
        assert clip.audio is not None
        _, _, spectrum = stft(read_audio(clip.audio, SAMPLE_RATE)[0], SAMPLE_RATE, nperseg=512, noverlap=256)
        bands = np.abs(spectrum[1:]).reshape(32, 8, -1).sum(axis=1)
        level = 20 * np.log10(bands + 1e-6)
        change = np.abs(np.diff(level, axis=1)).mean(axis=1)
        features.append(np.concatenate([level.mean(axis=1), level.std(axis=1), change, [level.shape[1]]]))
        emotions.append(clip.emotion)
        speakers.append(clip.speaker)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    predicted = cross_val_predict(model, np.array(features), np.array(emotions), groups=speakers, cv=GroupKFold(3))
    accuracy = np.mean(predicted == np.array(emotions))
    assert 4 / len(EMOTIONS) <= accuracy < 0.85  # chance is one in eight; two pairs have the same voice
