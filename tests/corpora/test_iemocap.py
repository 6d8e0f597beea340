"""IEMOCAP's layout is read as released. The files here are generated: no recording of IEMOCAP is at hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from farfeel.cli import main
from farfeel.corpora.labels import label_set, relabelled
from farfeel.corpora.readers.iemocap import IEMOCAP, _read_dialogue
from farfeel.corpora.scan import load_clips, read_manifest, scan
from farfeel.corpora.splits import split_clips
from farfeel.recipe import Data
from farfeel.types import FarfeelError

Write = Callable[..., Path]
TURNS = (("F000", "neu"), ("M000", "exc"), ("M001", "hap"))
LABELS = {
    "Ses01F_impro01": [
        (0.2, 0.8, "F000", "neu", "Excuse me."),
        (1.0, 1.6, "M000", "exc", "Do you have your forms?"),
        (1.5, 2.0, "F001", "fru", "Yeah."),
        (2.1, 2.6, "M001", "xxx", "Let me see them."),
        (2.6, 2.9, "F002", "ang", "Is there a problem?"),
    ],
    "Ses01M_script01_1b": [(0.1, 0.6, "M000", "sad", "So?"), (0.7, 1.4, "F000", "sur", "What?")],
    "Ses02F_impro01": [(0.1, 0.6, "F000", "fea", "Oh."), (0.7, 1.4, "M000", "dis", "Ugh.")],
}


@pytest.fixture
def release(write: Write, video: Write, tmp_path: Path) -> Path:
    root = tmp_path / "IEMOCAP_full_release"
    for name, rows in LABELS.items():
        session = root / f"Session{name[4]}"
        labels, words = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
        for start_s, end_s, turn, emotion, text in rows:
            utterance = f"{name}_{turn}"
            write(session / "sentences/wav" / name / f"{utterance}.wav", seconds=end_s - start_s)
            labels += [f"[{start_s:.4f} - {end_s:.4f}]\t{utterance}\t{emotion}\t[2.5000, 2.5000, 2.5000]"]
            labels += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
            words += [f"{utterance} [{start_s:08.4f}-{end_s:08.4f}]: {text}"]
        for folder, lines in {"EmoEvaluation": labels, "transcriptions": words}.items():
            place = session / "dialog" / folder / f"{name}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("\n".join(lines) + "\n", encoding="latin-1")
        video(session / "dialog/avi/DivX" / f"{name}.avi", frames=30)
        write(session / "dialog/wav" / f"{name}.wav", seconds=3.0)
    return root


def test_labels_times_words_and_video_come_from_the_dialogue(release: Path) -> None:
    report = scan(IEMOCAP, release)
    assert [(clip.id, clip.speaker, clip.emotion, clip.sentence) for clip in report.clips] == [
        ("Ses01F_impro01_F000", "Ses01F", "neutral", "Excuse me."),
        ("Ses01F_impro01_F002", "Ses01F", "angry", "Is there a problem?"),
        ("Ses01M_script01_1b_F000", "Ses01F", "surprised", "What?"),
        ("Ses01F_impro01_M000", "Ses01M", "happy", "Do you have your forms?"),
        ("Ses01M_script01_1b_M000", "Ses01M", "sad", "So?"),
        ("Ses02F_impro01_F000", "Ses02F", "fearful", "Oh."),
        ("Ses02F_impro01_M000", "Ses02M", "disgust", "Ugh."),
    ]
    assert [clip.video_offset_s for clip in report.clips] == [0.2, 2.6, 0.7, 1.0, 0.1, 0.1, 0.7]
    assert [clip.end_s for clip in report.clips] == pytest.approx([0.6, 0.3, 0.7, 0.6, 0.5, 0.5, 0.7])
    assert {clip.start_s for clip in report.clips} == {0.0}
    for clip in report.clips:
        assert clip.video == release / f"Session{clip.id[4]}/dialog/avi/DivX" / f"{clip.id.rpartition('_')[0]}.avi"
    assert report.skipped == {"frustrated": 1, "listeners did not agree": 1}
    assert not report.unreadable
    assert report.absent_speakers == ("Ses03F", "Ses03M", "Ses04F", "Ses04M", "Ses05F", "Ses05M")


def test_who_wears_the_markers_is_on_the_left(release: Path) -> None:
    faces = {clip.id: clip.face for clip in IEMOCAP.clips(release)}
    assert faces["Ses01F_impro01_F000"] == "left"
    assert faces["Ses01F_impro01_M000"] == "right"
    assert faces["Ses01M_script01_1b_M000"] == "left"
    assert faces["Ses01M_script01_1b_F000"] == "right"


def test_the_root_may_be_any_folder_above_the_sessions(release: Path) -> None:
    assert len(list(IEMOCAP.clips(release.parent))) == len(list(IEMOCAP.clips(release))) == 7
    assert len(list(IEMOCAP.clips(release / "Session1"))) == 5


def test_without_videos_the_audio_alone_is_read(release: Path) -> None:
    for video in release.rglob("*.avi"):
        video.unlink()
    assert {(clip.video, clip.video_offset_s) for clip in scan(IEMOCAP, release).clips} == {(None, 0.0)}


def test_an_unreadable_video_is_reported_once_and_leaves_the_audio(release: Path) -> None:
    broken = release / "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    broken.write_bytes(b"no film")
    report = scan(IEMOCAP, release)
    assert [path for path, _ in report.unreadable] == [broken]
    assert sum(clip.video is None for clip in report.clips) == 3
    assert len(report.clips) == 7


def test_utterances_without_their_labels_are_left_out_with_the_reason(release: Path, tmp_path: Path) -> None:
    (release / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt").unlink()
    reason = "utterances without a label in dialog/EmoEvaluation"
    assert IEMOCAP.listing(release / "Session2").skipped == {reason: 2}
    with pytest.raises(FarfeelError, match=reason):
        scan(IEMOCAP, release / "Session2")


def test_a_labelled_utterance_without_its_audio_is_missing(release: Path) -> None:
    assert scan(IEMOCAP, release).missing == ()
    for name in ("F002", "M001"):  # angry; and one that listeners did not agree on
        (release / f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{name}.wav").unlink()
    assert scan(IEMOCAP, release).missing == ("Ses01F_impro01_F002",)


def test_a_manifest_keeps_offset_and_side(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "iemocap.parquet"
    assert main(["scan", "iemocap", "--root", str(release), "--out", str(out)]) == 0
    assert read_manifest(out) == load_clips("iemocap", release)


def test_one_session_is_tested_at_a_time(write: Write, tmp_path: Path) -> None:
    for session in range(1, 6):
        name = f"Ses0{session}F_impro01"
        labels = tmp_path / f"Session{session}/dialog/EmoEvaluation/{name}.txt"
        labels.parent.mkdir(parents=True)
        rows = [f"[0.0 - 0.3]\t{name}_{turn}\t{label}\t[2.5, 2.5, 2.5]" for turn, label in TURNS]
        labels.write_text("\n".join(rows))
        for turn, _ in TURNS:
            write(tmp_path / f"Session{session}/sentences/wav" / name / f"{name}_{turn}.wav")
    clips, notes = relabelled(load_clips("iemocap", tmp_path), Data(**label_set("iemocap-4-happy")), "audio")
    assert notes == ["left out: 5 excited clips"]
    for session in range(1, 6):
        parts = split_clips(clips, f"folds-5:{session}")
        assert {clip.speaker for clip in parts.test} == {f"Ses0{session}F", f"Ses0{session}M"}
        assert {clip.speaker for clip in parts.val} == {f"Ses0{session % 5 + 1}F", f"Ses0{session % 5 + 1}M"}
        assert len({clip.speaker for clip in parts.train}) == 6


def test_excited_counts_as_happy_and_is_still_known(release: Path) -> None:
    clips = {clip.id: clip for clip in load_clips("iemocap", release)}
    assert [clip.id for clip in clips.values() if clip.intensity] == ["Ses01F_impro01_M000"]
    excited = clips["Ses01F_impro01_M000"]
    assert (excited.emotion, excited.intensity) == ("happy", "excited")


def test_an_utterance_of_two_channels_is_one_clip(release: Path, write: Write) -> None:
    write(release / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", channels=2, seconds=0.6)
    report = scan(IEMOCAP, release)
    assert (len(report.clips), report.channels) == (7, {1: 6, 2: 1})


def test_a_damaged_line_labels_nothing(release: Path) -> None:
    """Of two lines that were written over each other, the first time is no number."""
    before = scan(IEMOCAP, release)
    labels = release / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    lines = labels.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("[") and before.clips[0].id in line)
    lines[at] = lines[at].replace("[", "[1.2.", 1)
    labels.write_text("\n".join(lines))
    _read_dialogue.cache_clear()
    after = scan(IEMOCAP, release)
    assert before.clips[0].id not in {clip.id for clip in after.clips}
    assert len(after.clips) == len(before.clips) - 1
