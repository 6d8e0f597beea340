"""Prepared corpora: bytes that depend on the seed alone, shards that are whole or not there, faults that are named."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from farfeel.cli import main
from farfeel.corpora.scan import load_clips
from farfeel.evaluate.prepared_test_set import PreparedEvaluationSet
from farfeel.media.audio import read_audio
from farfeel.media.face_video import face_video_of
from farfeel.recipe import Recipe
from farfeel.rooms.acoustics import remove_common_delay
from farfeel.rooms.bank import Bank
from farfeel.rooms.reverb import convolve
from farfeel.rooms.scene import in_room
from farfeel.shards.prepare import prepare
from farfeel.shards.reading import clips_of
from farfeel.shards.store import Shards, write_index
from farfeel.training.examples import at_microphones, collate
from farfeel.training.prepared_examples import PreparedTrainingSet
from farfeel.types import Clip, FarfeelError

Small = Callable[..., Recipe]


@pytest.fixture(scope="module")
def clips(voices: Path) -> list[Clip]:
    return load_clips("synthetic", voices)


@pytest.fixture(scope="module")
def prepared(clips: list[Clip], bank: Bank, small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two renderings of 32 clips by three microphones, in shards of ten."""
    out = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(clips, small(), bank, out, [0, 1, 2], renderings=2, per_shard=10)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_an_example_is_the_clip_in_its_room(prepared: Path, clips: list[Clip], bank: Bank) -> None:
    shards, clip_of = Shards.open(prepared), {clip.id: clip for clip in clips}
    places = {(bank[i].room, bank[i].position): i for i in range(len(bank))}
    assert len(shards) == 2 * len(clips)
    for index in range(0, len(shards), 9):
        row = shards.rows[index]
        clip = clip_of[row["clip"]]
        assert (row["speaker"], row["emotion"], row["corpus"]) == (clip.speaker, clip.emotion, clip.corpus)
        dry = read_audio(clip.audio, 16000).mean(axis=0)
        taps = remove_common_delay(bank.taps(places[row["room"], row["position"]]))
        wet = convolve(torch.from_numpy(dry)[None], torch.from_numpy(taps)[None])[0].numpy()
        audio = shards[index].audio
        assert audio.shape == wet.shape
        assert np.abs(audio - wet).max() < 2 * np.abs(wet).max() / 2**15 / 0.9  # 16 bits


def test_renderings_of_a_clip_are_all_different_and_can_be_all_there_are(
    clips: list[Clip], bank: Bank, small: Small, tmp_path: Path
) -> None:
    shards = prepare(clips[:3], small(), bank, tmp_path / "all", [1], renderings=len(bank))
    met = {(row["clip"], row["room"], row["position"]) for row in shards.rows}
    assert len(met) == len(shards) == 3 * len(bank)
    with pytest.raises(FarfeelError, match="7 renderings of each clip, expected 1 to 6"):
        prepare(clips[:3], small(), bank, tmp_path / "more", [1], renderings=7)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(
    prepared: Path, clips: list[Clip], bank: Bank, small: Small, tmp_path: Path
) -> None:
    prepare(clips, small(), bank, tmp_path / "two", [0, 1, 2], renderings=2, per_shard=10, workers=2)
    assert contents(tmp_path / "two") == contents(prepared)
    prepare(clips, small(), bank, tmp_path / "other", [0, 1, 2], renderings=2, per_shard=10, seed=2)
    assert contents(tmp_path / "other")["shard-00000.tar"] != contents(prepared)["shard-00000.tar"]


def test_the_position_of_a_clip_does_not_depend_on_the_others(
    prepared: Path, clips: list[Clip], bank: Bank, small: Small, tmp_path: Path
) -> None:
    alone = prepare(clips[5:7], small(), bank, tmp_path / "few", [0, 1, 2], renderings=2)
    together = {row["key"]: row for row in Shards.open(prepared).rows}
    for row in alone.rows:
        assert (row["room"], row["position"]) == (together[row["key"]]["room"], together[row["key"]]["position"])


def test_shards_are_what_other_software_reads(prepared: Path) -> None:
    """WebDataset's convention: members of one example follow each other and share their name up to the first dot."""
    keys = []
    for shard in sorted(prepared.glob("shard-*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            assert [name.partition(".")[2] for name in names] == ["flac", "json"] * (len(names) // 2)
            assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
            keys += [name.partition(".")[0] for name in names[::2]]
            member = tar.extractfile(names[0])
            assert member is not None
            audio, rate = soundfile.read(io.BytesIO(member.read()))
            assert (audio.shape[1], rate) == (3, 16000)
    assert sorted(keys) == sorted(row["key"] for row in Shards.open(prepared).rows)


def test_a_killed_preparation_resumes_to_the_same_bytes(
    prepared: Path, voices: Path, bank: Bank, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "farfeel.cli", "prepare", "--corpus", "synthetic", "--root", str(voices)]
    command += ["--rirs", str(bank.path), "--out", str(out), "--renderings", "2", "--per-shard", "10"]
    command += ["--recipe", "tiny", "--workers", "1", "audio.seconds=1.28"]
    for _ in range(1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = len(list(out.glob("*.tar"))) if out.exists() else 0
        while process.poll() is None and (len(list(out.glob("*.tar"))) if out.exists() else 0) <= begun:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (out / "index.parquet").exists():
            with pytest.raises(FarfeelError, match="not finished"):
                Shards.open(out)
        for shard in out.glob("shard-*.tar"):
            assert shard.read_bytes() == (prepared / shard.name).read_bytes()
    assert main(command[3:]) == 0
    assert contents(out) == contents(prepared)
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("shard-*")}
    assert main(command[3:]) == 0
    assert {file.name: file.stat().st_mtime_ns for file in out.glob("shard-*")} == before


def test_a_flipped_bit_is_found_and_named(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(prepared, tmp_path / "bad")
    assert main(["prepare", "--verify", str(tmp_path / "bad")]) == 0
    assert main(["prepare", "--out", str(tmp_path / "bad"), "--verify"]) == 0
    assert main(["prepare", "--verify"]) == 1
    victim = tmp_path / "bad" / "shard-00002.tar"
    held = bytearray(victim.read_bytes())
    row = next(row for row in Shards.open(prepared).rows if row["shard"] == victim.name)
    held[row["audio_at"] + 999] ^= 4
    victim.write_bytes(held)
    capsys.readouterr()
    assert main(["prepare", "--verify", str(tmp_path / "bad")]) == 1
    said = capsys.readouterr().err
    assert "shard-00002.tar" in said
    assert "shard-00001.tar" not in said
    shards = Shards.open(tmp_path / "bad")
    with pytest.raises(FarfeelError, match=r"shard-00002.tar is damaged \(audio of"):
        _ = shards[shards.rows.index(next(one for one in shards.rows if one["key"] == row["key"]))]
    victim.write_bytes(held[:-512])
    assert "bytes, expected" in shards.verify()[0]
    victim.unlink()
    assert "does not exist" in shards.verify()[0]


def test_other_things_do_not_replace_what_is_there(
    prepared: Path, clips: list[Clip], bank: Bank, small: Small, tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path / "there")
    with pytest.raises(FarfeelError, match=r"other parameters \(renderings 2, requested 1"):
        prepare(clips, small(), bank, tmp_path / "there", [0, 1, 2], renderings=1, per_shard=10)
    with pytest.raises(FarfeelError, match=r"other parameters \(clips 32, requested 31"):
        prepare(clips[1:], small(), bank, tmp_path / "there", [0, 1, 2], renderings=2, per_shard=10)
    assert contents(tmp_path / "there") == contents(prepared)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(FarfeelError, match=r"thesis\.txt, which is no part of"):
        prepare(clips, small(), bank, tmp_path / "mine")


def test_two_clips_of_one_name_are_one_line(clips: list[Clip], bank: Bank, small: Small, tmp_path: Path) -> None:
    with pytest.raises(FarfeelError, match="two clips"):
        prepare([clips[0], clips[1], clips[0]], small(), bank, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_another_version_is_one_line(prepared: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    shutil.copytree(prepared, tmp_path / "old")
    table = pq.read_table(tmp_path / "old" / "index.parquet")
    facts = json.loads(table.schema.metadata[b"farfeel"]) | {"version": 0}
    pq.write_table(table.replace_schema_metadata({b"farfeel": json.dumps(facts)}), tmp_path / "old" / "index.parquet")
    with pytest.raises(FarfeelError, match="has version 0, expected 1; prepare it again"):
        Shards.open(tmp_path / "old")
    (tmp_path / "old" / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(FarfeelError, match="damaged or no index"):
        Shards.open(tmp_path / "old")
    with pytest.raises(FarfeelError, match=r"has no index\.parquet; expected a prepared corpus"):
        Shards.open(tmp_path)


def test_a_full_disk_leaves_nothing_half(
    clips: list[Clip], bank: Bank, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = tarfile.TarFile.addfile, []

    def addfile(self: tarfile.TarFile, member: tarfile.TarInfo, content: io.BytesIO) -> None:
        written.append(member.name)
        if len(written) == 15:
            raise OSError(28, os.strerror(28))
        real(self, member, content)

    monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
    with pytest.raises(FarfeelError, match="No space left on device"):
        prepare(clips, small(), bank, tmp_path / "full", per_shard=5)
    assert sorted(file.name for file in (tmp_path / "full").iterdir()) == ["parameters.json", "shard-00000.tar"]
    monkeypatch.undo()
    assert len(prepare(clips, small(), bank, tmp_path / "full", per_shard=5)) == len(clips)


def test_a_url_reads_as_the_folder(prepared: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(prepared), "/bucket/ours", recursive=True)
    near, far = Shards.open(prepared), Shards.open("memory://bucket/ours")
    assert far.rows == near.rows
    np.testing.assert_array_equal(far[11].audio, near[11].audio)
    assert far.verify() == []
    with pytest.raises(FarfeelError, match="nothere has no index"):
        Shards.open("memory://bucket/nothere")
    with pytest.raises(FarfeelError, match="nosuch://a"):
        Shards.open("nosuch://a")


@pytest.fixture
def refusing() -> Iterator[str]:
    """A bucket that answers 403 to everything."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_bucket(
    prepared: Path, refusing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A local server that speaks S3, and one that refuses."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        bucket = fsspec.filesystem("s3")
        bucket.mkdir("corpora")
        bucket.put(str(prepared), "corpora/ours", recursive=True)
        near, far = Shards.open(prepared), Shards.open("s3://corpora/ours")
        np.testing.assert_array_equal(far[3].audio, near[3].audio)
        assert main(["prepare", "--verify", "s3://corpora/ours"]) == 0
    finally:
        server.stop()
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    fsspec.filesystem("s3").clear_instance_cache()
    capsys.readouterr()
    assert main(["prepare", "--verify", "s3://corpora/ours"]) == 1
    said = capsys.readouterr().err
    assert "s3://corpora/ours may not be read" in said
    assert said.count("\n") == 1


def test_convolution_is_linear_and_ends_with_the_clip() -> None:
    rng = np.random.default_rng(3)
    dry, taps = rng.standard_normal(400).astype(np.float32), rng.standard_normal((2, 900)).astype(np.float32)
    expected = np.stack([np.convolve(dry, response)[:400] for response in taps])
    np.testing.assert_allclose(in_room(dry, taps), expected, atol=1e-3)


def test_training_from_shards_uses_the_audio_of_the_shards(prepared: Path, clips: list[Clip], small: Small) -> None:
    """Without augmentation an example is one of the clip's renderings, at the right emotion; each epoch draws anew."""
    still = [f"augment.{setting}=0" for setting in ("speed", "time_shift_s", "gain_db", "mic_dropout")]
    recipe = small("rooms.snr_db=null", "audio.seconds=4", "audio.trim_silence=false", *still)
    shards = Shards.open(prepared)
    training = PreparedTrainingSet(clips_of(shards), recipe, shards)
    assert len(training) == len(clips)
    renderings: dict[int, set[int]] = {}
    for epoch in range(4):
        training.set_epoch(epoch)
        for index in (0, 7, 21):
            batch = at_microphones(collate([training[index]]))
            clip = training.clips.clips[index]
            assert recipe.data.emotions[int(batch.target[0])] == clip.emotion
            audio = batch.audio[0].numpy()
            of_clip = [i for i, row in enumerate(shards.rows) if row["clip"] == clip.id]
            matching = [i for i in of_clip if _is_within(np.sort(shards[i].audio, axis=0), np.sort(audio, axis=0))]
            assert len(matching) == 1
            renderings.setdefault(index, set()).add(matching[0])
            again = at_microphones(collate([training[index]]))
            assert torch.equal(again.audio, batch.audio)
    assert max(map(len, renderings.values())) == 2


def test_prepared_clips_have_the_noise_that_needs_no_position(prepared: Path, small: Small) -> None:
    shards = Shards.open(prepared)
    every = PreparedTrainingSet(clips_of(shards), small("rooms.noise=[white, babble, fan]"), shards)
    assert every.noises == ["white"]
    with pytest.raises(FarfeelError, match=r"prepared clips have none.*rooms\.noise=\[white\]"):
        PreparedTrainingSet(clips_of(shards), small("rooms.noise=[babble, fan]"), shards)


def _is_within(whole: np.ndarray, window: np.ndarray) -> bool:
    """Sorted over microphones, so that their order does not matter: does one hold the other, at some shift?"""
    span = np.flatnonzero(np.abs(window).max(axis=0))
    part = window[:, span[0] : span[-1] + 1]
    spread = np.flatnonzero(np.abs(whole).max(axis=0))
    rest = whole[:, spread[0] : spread[-1] + 1]
    return part.shape == rest.shape and bool(np.allclose(part, rest, atol=1e-6))


def test_a_test_of_shards_equals_a_test_in_their_rooms(
    clips: list[Clip], bank: Bank, small: Small, tmp_path: Path
) -> None:
    """Each clip once in each room; but for 16 bits the recordings are those of the bank."""
    shards = prepare(clips[:4], small(), bank, tmp_path / "all", [0, 1, 2], renderings=len(bank))
    items = PreparedEvaluationSet(clips_of(shards), small(), shards)
    assert len({(item.clip.id, item.room) for item in items}) == len(items) == 4 * len(bank.rooms)
    places = {(bank[i].room, bank[i].position): i for i in range(len(bank))}
    for item in items:
        clip = next(clip for clip in clips if clip.id == item.clip.id)
        dry = torch.from_numpy(read_audio(clip.audio, 16000).mean(axis=0))
        taps = torch.from_numpy(remove_common_delay(bank.taps(places[item.room, item.position])))
        wet = convolve(dry[None], taps[None])[0].numpy()
        np.testing.assert_allclose(item.recording.audio, wet, atol=2e-4 * np.abs(wet).max())


def test_the_commands_train_and_test_from_shards(
    prepared: Path, voices: Path, bank: Bank, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [
        "train",
        "--recipe",
        "tiny",
        "--corpus",
        str(prepared),
        "--split",
        "folds-4:1",
        "--out",
        str(tmp_path / "run"),
    ]
    small = ["audio.seconds=1.28", "model.image_frames=64", "train.epochs=1", "train.batch_size=8"]
    assert main([*run, *small]) == 0
    best, tested = str(tmp_path / "run" / "best"), tmp_path / "test"
    test = ["evaluate", "--checkpoint", best, "--corpus", str(prepared), "--mics", "0,2", "--out", str(tested)]
    assert main(test) == 0
    capsys.readouterr()
    assert {row["room"] for row in Shards.open(prepared).rows} == set(json.loads(
        (tested / "metrics.json").read_text())["rooms"])  # fmt: skip
    for wrong, said in (
        (["--rirs", str(bank.path)], "already contains the rooms; remove --rirs"),
        (["--snr", "10"], "prepared clips are tested as they are"),
        (["--mics", "0,5"], "--mics asks for 5"),
        (["--corpus", "synthetic", "--root", str(voices)], "found 2 --corpus, one of them prepared, expected only one"),
    ):
        words = [word for word in test[:-1] if wrong[0] != "--mics" or word not in ("--mics", "0,2")]
        assert main([*words, str(tmp_path / "no"), *wrong]) == 1
        assert said in capsys.readouterr().err
    assert main([*run[:-1], str(tmp_path / "more"), "microphones.count=4", *small]) == 1
    assert "has 3 microphones, the recipe asks for 4" in capsys.readouterr().err


def test_prepared_videos_have_the_frames_of_the_files(
    clips: list[Clip], bank: Bank, small: Small, tmp_path: Path
) -> None:
    recipe, clips = small("modalities=both"), clips[:3]
    shards = prepare(clips, recipe, bank, tmp_path / "films", [0])
    for prepared in PreparedEvaluationSet(clips_of(shards), recipe, shards):
        clip = next(clip for clip in clips if clip.id == prepared.clip.id)
        from_file, stored = face_video_of(clip, recipe), prepared.recording.video
        assert (stored.begin_s, stored.end_s) == (from_file.begin_s, from_file.end_s)
        np.testing.assert_array_equal(stored.frames(0.2, 1.4), from_file.frames(0.2, 1.4))
    silent = prepare(clips, small(), bank, tmp_path / "silent", [0])
    assert all(item.recording.video is None for item in PreparedEvaluationSet(clips_of(silent), recipe, silent))
    with pytest.raises(FarfeelError, match="prepared without video"):
        PreparedTrainingSet(clips_of(silent), recipe, silent)


def test_the_paper_profile_prepares_three_parts_or_none(
    voices: Path, bank: Bank, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["prepare", "--profile", "paper", "--recipe", "tiny", "--corpus", "synthetic", "--root", str(voices)]
    asked += ["--rirs", str(bank.path), "--workers", "1", "--out", str(tmp_path / "paper")]
    measured = ["--test-rirs", str(bank.path)]
    assert main([*asked, *measured, "--split", "folds-4:1"]) == 0
    speakers = [
        {row["speaker"] for row in Shards.open(tmp_path / "paper" / part).rows} for part in ("train", "val", "test")
    ]
    assert [len(each) for each in speakers] == [2, 1, 1]
    assert len(set.union(*speakers)) == 4
    capsys.readouterr()
    assert main([*asked, "--split", "folds-4:1"]) == 1
    assert "--profile paper needs --rirs (training rooms) and --test-rirs" in capsys.readouterr().err
    asked[-1] = str(tmp_path / "no")
    assert main([*asked, *measured, "--split", "folds-9:9"]) == 1  # nobody in the test
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("json", b'"gain": ', b'"gain": -'),
        ("json", b'"gain": ', b'"gone": '),
        ("json", b'"clip": "', b'"clip": 1, "x": "'),
        ("flac", b"fLaC", b"fLaX"),
    ],
)
def test_a_part_with_right_checksums_and_other_values_is_one_line(
    prepared: Path, tmp_path: Path, part: str, old: bytes, new: bytes
) -> None:
    """Checksums find accidents. Somebody who made the file on purpose has made them fit."""
    members: dict[str, bytes] = {}
    with tarfile.open(prepared / "shard-00000.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            members[member.name] = file.read()
    changed = next(name for name in members if name.endswith(part))
    assert old in members[changed]
    members[changed] = members[changed].replace(old, new)
    with tarfile.open(tmp_path / "shard-00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

    def read_all() -> None:
        facts = {key: value for key, value in Shards.open(prepared).facts.items() if key not in ("shards", "version")}
        write_index(tmp_path, [tmp_path / "shard-00000.tar"], facts)
        shards = Shards.open(tmp_path)
        for number in range(len(shards)):
            shards[number]

    with pytest.raises(FarfeelError, match=r"shard.* is damaged"):
        read_all()


def test_a_shard_outside_the_folder_is_not_read(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "shards")
    index = tmp_path / "shards" / "index.parquet"
    table = pq.read_table(index)
    names = ["../shard-00000.tar"] * table.num_rows
    at = table.column_names.index("shard")
    pq.write_table(table.set_column(at, table.schema.field("shard"), pa.array(names)), index)
    with pytest.raises(FarfeelError, match=r"is damaged or no index \(a shard with the name"):
        Shards.open(tmp_path / "shards")
