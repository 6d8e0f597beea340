"""Laws of downloads: every file in the folder is complete and checked, after any kill and any fault of the host."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import struct
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import soundfile

from farfeel import cli
from farfeel.cli import download
from farfeel.download import archives, fetch, record, web
from farfeel.download.record import LFS_POINTER, RECORD, git_hash
from farfeel.types import FarfeelError

ZENODO = "/api/records/1188976"
AUDIO = f"{ZENODO}/files/Audio_Speech_Actors_01-24.zip/content"
VIDEOS = f"{ZENODO}/files/Video_Speech_Actor_{{:02d}}.zip/content"
UNPACKED = "Audio_Speech_Actors_01-24"
COMMIT, TREE = "c" * 40, "a" * 40
OK = "--accept-licence"


@dataclass
class Host:
    """One local server in place of all hosts. `files` are served by path. Faults are set by path and counted down."""

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    cut: Counter[str] = field(default_factory=Counter)  # number of responses that end in the middle
    wrong: Counter[str] = field(default_factory=Counter)  # number of responses with a wrong byte
    refuse: dict[str, list[tuple[int, dict[str, str]]]] = field(
        default_factory=dict
    )  # statuses and headers of the next responses
    drip_s: float = 0.0  # pause between two pieces
    stall: Counter[str] = field(default_factory=Counter)  # number of responses that stop without an end
    knows_ranges: bool = True
    knows_etags: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)  # path and Range
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)  # bytes of bodies
    address: str = ""

    def json(self, path: str, content: object) -> None:
        self.files[path] = json.dumps(content).encode()

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host: Host

    def log_message(self, *args: object) -> None:
        """Log nothing."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client may close the connection at any time
            super().handle()

    def do_GET(self) -> None:
        host, path = self.host, self.path
        host.requests.append((path, self.headers.get("Range", "")))
        host.headers.append(dict(self.headers))
        if host.refuse.get(path):
            status, headers = host.refuse[path].pop(0)
            self._head(status, {**headers, "Content-Length": "0"})
            return
        if path not in host.files:
            self._head(404, {"Content-Length": "0"})
            return
        body = host.files[path]
        headers = {}
        if host.knows_etags:
            headers["ETag"] = host.etags.get(path, f'"{hashlib.md5(body).hexdigest()}"')
        if host.wrong[path] > 0:
            host.wrong[path] -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        begin = self._begin(headers.get("ETag"), len(body)) if host.knows_ranges else 0
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        part = body[begin:]
        self._head(206 if begin else 200, {**headers, "Content-Length": str(len(part))})
        is_cut = host.cut[path] > 0
        host.cut[path] -= is_cut
        if is_cut:
            part = part[: len(part) // 2]
        piece = 4096 if host.drip_s else len(part) or 1
        for at in range(0, len(part), piece):
            host.sent[path] += len(part[at : at + piece])
            self.wfile.write(part[at : at + piece])
            time.sleep(host.drip_s)
        if is_cut:
            if host.stall[path] > 0:
                host.stall[path] -= 1
                time.sleep(0.6)
            self.close_connection = True

    def _begin(self, etag: str | None, length: int) -> int:
        requested = self.headers.get("Range", "")
        same = self.headers.get("If-Range") in (None, etag)
        begin = int(requested.removeprefix("bytes=").rstrip("-")) if requested and same else 0
        return begin if begin < length else 0

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": host}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    host.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield host
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FIRST_WAIT_S", 0.01)
    if not any(command.name == "download" for command in cli.COMMANDS):
        monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, *download.COMMANDS))


Run = Callable[..., str]


@pytest.fixture
def run(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `farfeel download NAME --root ROOT --mirror HOST …`, which must succeed → what it prints."""

    def run(name: str, *words: object) -> str:
        code = cli.main(words_of(name, tmp_path / "data", host.address, *words))
        output = capsys.readouterr()
        assert code == 0, output.err
        return output.out

    return run


@pytest.fixture
def complain(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the same command, which must fail → its one-line error."""

    def run(name: str, *words: object) -> str:
        assert cli.main(words_of(name, tmp_path / "data", host.address, *words)) == 1
        output = capsys.readouterr().err
        errors = [line for line in output.splitlines() if line.startswith("farfeel: error: ")]
        assert len(errors) == 1, output
        assert output.splitlines()[-1] == errors[0]
        assert "Traceback" not in output
        return errors[0].removeprefix("farfeel: error: ")

    return run


def words_of(name: str, root: Path, mirror: str, *words: object) -> list[str]:
    return ["download", name, "--root", str(root), "--mirror", mirror, *map(str, words)]


def random_bytes(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def under(root: Path) -> dict[str, bytes]:
    """Path → content of all files that are not hidden."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}


def zenodo(host: Host, files: dict[str, bytes], record: str = ZENODO, licence: str = "cc-by-nc-sa-4.0") -> None:
    """Serve a record as Zenodo does. Its links lead to zenodo.org, as they do there."""
    for name, content in files.items():
        host.files[f"{record}/files/{name}/content"] = content
    entries = [
        {
            "key": name,
            "size": len(content),
            "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
            "links": {"self": f"https://zenodo.org{record}/files/{name}/content"},
        }
        for name, content in files.items()
    ]
    host.json(record, {"id": 1, "metadata": {"license": {"id": licence}}, "files": entries})


@pytest.fixture
def ravdess(host: Host) -> dict[str, bytes]:
    """Serve a small RAVDESS → the audio files that must be downloaded."""
    audio = {f"Actor_{actor:02d}/03-01-06-01-02-01-{actor:02d}.wav": random_bytes(60_000, actor) for actor in (1, 2)}
    videos = {
        f"Video_Speech_Actor_{actor:02d}.zip": zipped({f"Actor_{actor:02d}/01-01-{actor:02d}.mp4": b"film %d" % actor})
        for actor in range(1, 25)
    }
    zenodo(host, {f"{UNPACKED}.zip": zipped(audio), "Audio_Song_Actors_01-24.zip": b"song", **videos})
    return {f"{UNPACKED}/{name}": content for name, content in audio.items()}


def git(host: Host, repository: str, files: dict[str, bytes]) -> None:
    """Serve a repository as GitHub's API and raw files do."""
    host.json(f"/repos/{repository}/commits/HEAD", {"sha": COMMIT, "commit": {"tree": {"sha": TREE}}})
    folders: dict[str, list[dict[str, object]]] = {"": []}
    for path, content in files.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            inside, folder = "/".join(parts[: depth - 1]), "/".join(parts[:depth])
            if folder not in folders:
                folders[folder] = []
                entry = {"path": parts[depth - 1], "type": "tree", "sha": tree_name(folder)}
                folders[inside].append(entry)
        entry = {"path": parts[-1], "type": "blob", "sha": git_hash(content), "size": len(content)}
        folders["/".join(parts[:-1])].append(entry)
        host.files[f"/{repository}/{COMMIT}/{path}"] = content
    for folder, entries in folders.items():
        host.json(f"/repos/{repository}/git/trees/{tree_name(folder)}", {"tree": entries, "truncated": False})


def tree_name(folder: str) -> str:
    return hashlib.sha1(folder.encode()).hexdigest() if folder else TREE


@pytest.fixture
def crema_d(host: Host) -> dict[str, bytes]:
    """Serve a small CREMA-D: tables as files, media as pointers of Git LFS."""
    repository = "CheyneyComputerScience/CREMA-D"
    tables = {"SentenceFilenames.csv": b"a,b\n", "processedResults/tabulatedVotes.csv": b"c\n", "LICENSE.txt": b"ODbL"}
    media = {f"AudioWAV/100{k}_DFA_ANG_XX.wav": random_bytes(5000, k) for k in range(5)}
    videos = {"VideoFlash/1001_DFA_ANG_XX.flv": random_bytes(9000, 9)}
    pointers = {path: pointer(content) for path, content in (media | videos).items()}
    git(host, repository, {**tables, "README.md": b"read", **pointers})
    for path, content in (media | videos).items():
        host.files[f"/media/{repository}/{COMMIT}/{path}"] = content
    return tables | media


def pointer(content: bytes) -> bytes:
    return LFS_POINTER.format(hashlib.sha256(content).hexdigest(), len(content)).encode()


# What is downloaded.


def test_ravdess_is_downloaded_as_published_and_a_rerun_requests_and_writes_nothing(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    output = run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    assert "licence: CC BY-NC-SA 4.0 (the host says: cc-by-nc-sa-4.0)" in output
    assert output.splitlines()[-1].strip() == f"farfeel scan ravdess --root {tmp_path / 'data'}"
    before, requested = times(tmp_path / "data"), len(host.requests)
    assert "farfeel scan ravdess" in run("ravdess")  # No licence to accept: nothing is downloaded.
    assert "farfeel scan ravdess" in run("ravdess", "--verify")
    assert times(tmp_path / "data") == before
    assert len(host.requests) == requested


def test_videos_are_downloaded_actor_by_actor_and_only_the_missing_ones(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    run("ravdess", OK)
    host.requests.clear()
    run("ravdess", "--films", "--actors", "1-2,7", OK)
    assert sorted(host.paths()) == [ZENODO, *(VIDEOS.format(actor) for actor in (1, 2, 7))]
    assert len(under(tmp_path / "data")) == len(ravdess) + 3
    host.requests.clear()
    run("ravdess", "--films", "--actors", "2,1,7", OK)  # the same
    run("ravdess", OK)
    assert host.requests == []


def test_crema_d_is_downloaded_by_its_pointers_and_unrecorded_files_are_recognised_by_checksum(
    host: Host, run: Run, crema_d: dict[str, bytes], tmp_path: Path
) -> None:
    run("crema-d", OK)
    assert under(tmp_path / "data") == crema_d
    (tmp_path / "data" / RECORD).unlink()
    host.requests.clear()
    run("crema-d")
    assert not any(path.startswith("/media") for path in host.paths())
    host.requests.clear()
    run("crema-d", "--films", OK)  # The pointers of the audio files are known.
    assert [path for path in host.paths() if path.startswith("/media")] == [
        f"/media/CheyneyComputerScience/CREMA-D/{COMMIT}/VideoFlash/1001_DFA_ANG_XX.flv"
    ]
    assert sum("AudioWAV" in path for path in host.paths()) == 0


def write_clone(clone: Path, files: dict[str, bytes]) -> None:
    """Write a clone with all its media, and the index that Git would write (version 2)."""
    entries = b""
    for path, content in sorted(files.items()):
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(content)
        name = bytes.fromhex(git_hash(pointer(content) if path.endswith((".wav", ".flv")) else content))
        entry = bytes(40) + name + struct.pack(">H", len(path)) + path.encode()
        entries += entry + bytes(8 - len(entry) % 8)
    (clone / ".git").mkdir(exist_ok=True)
    (clone / ".git" / "index").write_bytes(b"DIRC" + struct.pack(">II", 2, len(files)) + entries + bytes(20))


def test_a_folder_made_by_another_thread_at_the_same_time_is_no_error(
    host: Host, run: Run, crema_d: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makedirs = os.makedirs

    def makedirs_as_second(name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        makedirs(name, mode, exist_ok=True)
        makedirs(name, mode, exist_ok)

    monkeypatch.setattr(os, "makedirs", makedirs_as_second)
    run("crema-d", OK)
    assert under(tmp_path / "data") == crema_d


def test_crema_d_is_copied_from_a_clone_and_checked_against_its_index(
    host: Host, run: Run, complain: Run, crema_d: dict[str, bytes], tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    write_clone(clone, {**crema_d, "README.md": b"read"})
    run("crema-d", "--from", clone, OK)
    assert under(tmp_path / "data") == crema_d
    assert host.requests == []
    shutil.rmtree(tmp_path / "data")
    for content in (b"other audio", pointer(crema_d["AudioWAV/1001_DFA_ANG_XX.wav"])):
        (clone / "AudioWAV" / "1001_DFA_ANG_XX.wav").unlink()
        (clone / "AudioWAV" / "1001_DFA_ANG_XX.wav").write_bytes(content)
        assert "run git lfs pull in the clone" in complain("crema-d", "--from", clone, OK)
        assert "AudioWAV/1001_DFA_ANG_XX.wav" not in under(tmp_path / "data")
    assert "expected a clone" in complain("crema-d", "--from", tmp_path, OK)


def test_tess_is_downloaded_file_by_file_from_its_dataverse(host: Host, run: Run, tmp_path: Path) -> None:
    content = {"OAF_back_angry.wav": b"back", "YAF_back_sad.wav": b"sad back"}
    files = [
        {
            "directoryLabel": name[:3],
            "dataFile": {
                "id": at, "filename": name, "filesize": len(audio), "md5": hashlib.md5(audio).hexdigest(),
            },
        }
        for at, (name, audio) in enumerate(content.items())
    ]  # fmt: skip
    table = {"id": 7, "filename": "words.tab", "filesize": 9, "md5": hashlib.md5(b"a,b").hexdigest()}
    table |= {"originalFileName": "words.csv", "originalFileSize": 3}
    dataset = {"license": {"name": "CC BY-NC-ND 4.0"}, "files": [*files, {"dataFile": table}]}
    url = "/api/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"
    host.json(url, {"data": {"latestVersion": dataset}})
    host.files |= {f"/api/access/datafile/{at}": audio for at, audio in enumerate(content.values())}
    host.files["/api/access/datafile/7?format=original"] = b"a,b"
    run("tess", OK)
    assert under(tmp_path / "data") == {
        "OAF/OAF_back_angry.wav": b"back", "YAF/YAF_back_sad.wav": b"sad back", "words.csv": b"a,b",
    }  # fmt: skip


def test_room_responses_are_downloaded_from_github_and_zenodo(
    host: Host, run: Run, complain: Run, tmp_path: Path
) -> None:
    path = "RIRs/FRL_array/RLRVarAcLab_Absorptive_000_SBG1_R1_FRL10cm.wav"
    git(host, "facebookresearch/R3VIVAL", {path: b"response", "README.md": b"read"})
    run("r3vival", OK)
    assert under(tmp_path / "data") == {path: b"response"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        archive.addfile(entry("./", type=tarfile.DIRTYPE))
        info = tarfile.TarInfo("./Mobile/Office_1/1/Mobile_502_1_RIR.wav")
        info.size = 8
        archive.addfile(info, io.BytesIO(b"response"))
    files = {"ACE_Corpus_RIRN_Mobile.tbz2": buffer.getvalue(), "ACE_Corpus_RIRN_EM32.tbz2": b"large"}
    zenodo(host, files, "/api/records/6257551", "cc-by-nd-4.0")
    assert "contains a download of r3vival" in complain("ace", "--only", "*_Mobile*", OK)
    shutil.rmtree(tmp_path / "data")
    run("ace", "--only", "*_Mobile*", OK)
    assert list(under(tmp_path / "data")) == ["ACE_Corpus_RIRN_Mobile/Mobile/Office_1/1/Mobile_502_1_RIR.wav"]
    assert "has no file that matches Moblie, found ACE_Corpus_RIRN_" in complain("ace", "--only", "Moblie", OK)


def test_without_a_published_checksum_the_first_download_sets_the_expected_one(
    host: Host, run: Run, complain: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = zipped({"wav/15a05Wa.wav": b"Wut"})
    host.files["/download/download.zip"] = archive
    assert cli.main(words_of("emodb", tmp_path / "data", host.address, OK)) == 0
    assert f"the host gives no checksum; recorded sha256:{hashlib.sha256(archive).hexdigest()}" in (
        capsys.readouterr().err
    )
    assert under(tmp_path / "data") == {"emodb/wav/15a05Wa.wav": b"Wut"}
    shutil.rmtree(tmp_path / "data" / "emodb")
    run("emodb", OK)
    shutil.rmtree(tmp_path / "data" / "emodb")
    host.files["/download/download.zip"] = zipped({"wav/15a05Wa.wav": b"Zorn"})
    assert "expected sha256:" in complain("emodb", OK)
    assert under(tmp_path / "data") == {}


def test_iemocap_is_checked_and_not_downloaded(run: Run, complain: Run, tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert "request it at https://sail.usc.edu/iemocap" in complain("iemocap", OK)
    assert not root.exists()
    wav = root / "Session1" / "sentences" / "wav" / "Ses01F_impro01" / "Ses01F_impro01_M000.wav"
    labels = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    for file in (wav, labels):
        file.parent.mkdir(parents=True)
    soundfile.write(wav, np.random.default_rng(1).normal(size=16000) / 10, 16000)
    labels.write_text("[6.2901 - 8.2357]\tSes01F_impro01_M000\tneu\t[2.5, 2.5, 2.5]\n")
    output = run("iemocap")
    assert "1 clips of 1 speakers" in output
    assert "absent speakers: Ses01F, Ses02F" in output


def test_archives_are_kept_on_request_and_archives_of_the_user_are_used(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    root, archive = tmp_path / "data", host.files[AUDIO]
    run("ravdess", OK, "--keep-archives")
    assert under(root) == {**ravdess, f"{UNPACKED}.zip": archive}
    shutil.rmtree(root)
    root.mkdir()
    (root / f"{UNPACKED}.zip").write_bytes(archive)
    host.requests.clear()
    run("ravdess", OK)
    assert host.paths() == [ZENODO]
    assert under(root) == {**ravdess, f"{UNPACKED}.zip": archive}  # The archive of the user is not deleted.


# What the host does.


def test_a_cut_connection_is_resumed_where_it_ended(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    host.cut[AUDIO] = 3
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    assert host.sent[AUDIO] == len(host.files[AUDIO])  # each byte once
    assert len([requested for requested in host.requests if requested[0] == AUDIO]) == 4


def test_a_stalled_connection_is_replaced_and_resumed(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", (5.0, 0.2))
    host.cut[AUDIO] = host.stall[AUDIO] = 1
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    assert host.sent[AUDIO] == len(host.files[AUDIO])


def test_a_very_slow_connection_is_replaced_and_resumed(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "SLOW_S", 0.05)
    monkeypatch.setattr(web, "MIN_BYTES_PER_S", 10_000_000)
    monkeypatch.setattr(web, "TRIES", 100)
    host.drip_s = 0.01
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    assert len([requested for requested in host.requests if requested[0] == AUDIO]) > 1


@pytest.mark.parametrize(("knows_ranges", "knows_etags"), [(False, True), (False, False), (True, False)])
def test_a_host_without_ranges_or_etags_gives_the_same_bytes(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path, knows_ranges: bool, knows_etags: bool
) -> None:
    host.knows_ranges, host.knows_etags = knows_ranges, knows_etags
    host.cut[AUDIO] = 2
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess


def test_a_file_that_changes_during_the_transfer_is_started_again(
    host: Host, complain: Run, run: Run, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TRIES", 1)
    host.cut[AUDIO] = 1
    assert "was cut off" in complain("ravdess", OK)
    changed = {"Actor_01/03-01-06-01-02-01-01.wav": random_bytes(60_000, 99)}
    zenodo(host, {f"{UNPACKED}.zip": zipped(changed)})
    host.requests.clear()
    run("ravdess", OK)
    assert under(tmp_path / "data") == {f"{UNPACKED}/{name}": content for name, content in changed.items()}
    assert [requested for path, requested in host.requests if path == AUDIO] != [""]  # The rest was requested.


def test_a_wrong_checksum_is_tried_once_more(
    host: Host, run: Run, complain: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    host.wrong[AUDIO] = 2
    output = complain("ravdess", OK)
    assert "expected md5:" in output
    assert " but got " in output
    assert not (tmp_path / "data").exists()  # nothing is left
    host.wrong[AUDIO] = 1
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess


def test_retry_statuses_are_repeated_and_others_are_final(
    host: Host, run: Run, complain: Run, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(web.HttpClient, "_pause", lambda self, seconds: waits.append(seconds))
    host.refuse[AUDIO] = [(429, {"Retry-After": "7"}), (503, {}), (503, {}), (503, {"Retry-After": "99999"})]
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    assert (waits[0], waits[3]) == (7, web.LONGEST_WAIT_S)
    assert 0 < waits[1] < 4 * web.FIRST_WAIT_S
    shutil.rmtree(tmp_path / "data")
    host.refuse[AUDIO] = [(503, {})] * 99
    assert f"answered 503, {web.TRIES} times in a row" in complain("ravdess", OK)
    for status in (403, 404, 410):
        host.refuse[AUDIO], host.requests = [(status, {})] * 9, []
        assert f"answered {status} (" in complain("ravdess", OK)
        assert len(host.requests) == 2  # the record and one request for the file
    host.refuse = {ZENODO: [(404, {})]}
    assert "answered 404" in complain("ravdess", OK)


def test_redirects_lead_to_https_or_the_same_host(
    host: Host, run: Run, complain: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    host.files["/elsewhere"] = host.files[AUDIO]
    for location in ("http://example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "//example.org/x", "http://[x"):
        host.refuse[AUDIO] = [(302, {"Location": location})]
        line = complain("ravdess", OK)
        assert "expected https or the same host" in line or "is not a valid address" in line
    host.refuse[AUDIO] = [(302, {"Location": "/elsewhere"})]
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    host.refuse[ZENODO] = [(302, {"Location": ZENODO})] * 99
    assert "redirects more than 10 times" in complain("ravdess", "--films", OK)


def test_no_credentials_are_sent(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    host.refuse[ZENODO] = [(503, {"Set-Cookie": "who=me"})]
    run("ravdess", OK)
    assert not any({"authorization", "cookie"} & {name.lower() for name in headers} for headers in host.headers)


@pytest.mark.parametrize(
    "answer",
    ["", "<html>", "[]", "{}", '{"files": 1}', '{"files": [{"key": "../x"}]}', '{"files": [null], "metadata": {}}'],
)
def test_a_response_that_is_not_a_list_is_one_line(host: Host, complain: Run, answer: str) -> None:
    host.files[ZENODO] = answer.encode()
    assert ZENODO in complain("ravdess", OK)


def test_a_list_that_leads_out_of_the_folder_is_refused(
    host: Host, complain: Run, tmp_path: Path, ravdess: dict[str, bytes]
) -> None:
    zenodo(host, {"../evil": b"evil"}, "/api/records/6257551")
    assert "'../evil', expected a path inside" in complain("ace", OK)
    answer = json.loads(host.files[ZENODO])
    host.json(ZENODO, {**answer, "files": answer["files"] * 2})
    assert "more than once" in complain("ravdess", OK)
    answer["files"][0]["links"]["self"] = "file:///etc/passwd"
    host.json(ZENODO, answer)
    assert "file:///etc/passwd is not a valid address" in complain("ravdess", OK)
    assert not (tmp_path / "data").exists()


def test_a_file_with_another_size_than_listed_is_not_downloaded(
    host: Host, complain: Run, tmp_path: Path, ravdess: dict[str, bytes]
) -> None:
    host.files[AUDIO] += b"more"
    assert f"expected {len(host.files[AUDIO]) - 4} as in its host's list" in complain("ravdess", OK)
    assert not (tmp_path / "data").exists()


# Kills and concurrent downloads.


def download_and_exit(words: list[str]) -> None:
    """The body of a process that is killed."""
    web.FIRST_WAIT_S = 0.01
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.COMMANDS = (*cli.COMMANDS, *download.COMMANDS)
        code = cli.main(words)
    os._exit(code)


def in_process(words: list[str]) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["farfeel.cli.download", "farfeel.download.fetch", "pytest", "soundfile"])
    process = context.Process(target=download_and_exit, args=(words,))
    process.start()
    return process


def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    videos = {f"Video_Speech_Actor_{k:02d}/Actor_{k:02d}/01-01-{k:02d}.mp4": b"film %d" % k for k in (1, 2)}
    complete = ravdess | videos
    words = words_of("ravdess", root, host.address, "--films", "--actors", "1,2", OK)
    host.drip_s = 0.02
    generator = random.Random(1)
    for _ in range(5):
        requested = len(host.requests)
        process = in_process(words)
        deadline_s = time.monotonic() + 30
        while len(host.requests) == requested and time.monotonic() < deadline_s:
            time.sleep(0.005)
        time.sleep(generator.uniform(0.0, 0.4))
        process.kill()
        process.join()
        seen = under(root) if root.exists() else {}
        assert all(complete[name] == content for name, content in seen.items())  # No file is incomplete.
        if process.exitcode == 0:
            break
    host.drip_s = 0.0
    run("ravdess", "--films", "--actors", "1,2", OK)
    assert under(root) == complete
    assert [entry.name for entry in root.iterdir() if entry.name.startswith(".")] == [RECORD]


@pytest.mark.parametrize("moment", [20_000, 100_000, "hashing"])
def test_bytes_received_before_a_kill_are_not_requested_again(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path, moment: int | str
) -> None:
    received = 0

    def count_bytes(self: object, item: object, count: int) -> None:
        nonlocal received
        received += count
        if received >= (moment if isinstance(moment, int) else 10**9):
            os.kill(os.getpid(), signal.SIGKILL)

    def hashed(name: str, alg: str) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    host.drip_s = 0.002
    if (child := os.fork()) == 0:
        fetch._Download._count = count_bytes  # type: ignore[method-assign]
        if moment == "hashing":
            pooch.hashes.file_hash = hashed
        cli.main(words_of("ravdess", tmp_path / "data", host.address, OK))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    host.requests.clear()
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    begins = [
        int(requested.removeprefix("bytes=").rstrip("-") or 0) for path, requested in host.requests if path == AUDIO
    ]
    assert begins == [] if moment == "hashing" else begins[0] > moment - 20_000  # Bytes in the buffer are lost.


def test_a_kill_during_unpacking_leaves_nothing_that_looks_complete(
    host: Host, run: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "data"

    def move(old: Path, new: Path) -> None:
        if Path(new).name == UNPACKED:
            os._exit(9)
        real(old, new)

    real = os.replace
    if (child := os.fork()) == 0:
        os.replace = move  # type: ignore[assignment]
        cli.main(words_of("ravdess", root, host.address, OK))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9 << 8
    assert under(root) == {}
    run("ravdess", OK)
    assert under(root) == ravdess
    assert [entry.name for entry in root.iterdir() if entry.name.startswith(".")] == [RECORD]


def test_of_two_concurrent_downloads_the_second_is_refused(
    host: Host, complain: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    with fetch._locked(tmp_path / "data"):
        assert "another farfeel download is writing into" in complain("ravdess", OK)
    assert host.paths() == [ZENODO]


# Files and options of the user.


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_nothing_is_downloaded_before_the_licence_is_accepted(
    host: Host, ravdess: dict[str, bytes], tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(words_of("ravdess", tmp_path / "data", host.address, *words))
    output = capsys.readouterr()
    assert code == (0 if words else 1)
    assert f"{UNPACKED}.zip  {len(host.files[AUDIO])} bytes" in output.out or "MB" in output.out
    assert "Livingstone" in output.out
    assert words or "add --accept-licence" in output.err
    assert host.paths() == [ZENODO]
    assert not (tmp_path / "data").exists()


def test_a_person_is_asked_for_the_licence(
    host: Host, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for answer, code in (("", 1), ("n", 1), ("yes", 0)):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        assert cli.main(words_of("ravdess", tmp_path / "data", host.address)) == code
    assert under(tmp_path / "data") == ravdess


def test_files_of_the_user_are_not_overwritten(
    host: Host, run: Run, complain: Run, ravdess: dict[str, bytes], crema_d: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    (root / UNPACKED).mkdir(parents=True)
    (root / UNPACKED / "mine.txt").write_text("mine")
    assert "was not unpacked by this command" in complain("ravdess", OK)
    (root / UNPACKED).rename(root / "mine")
    (root / f"{UNPACKED}.zip").write_bytes(b"mine")
    assert "is not the published file" in complain("ravdess", OK)
    (root / f"{UNPACKED}.zip").unlink()
    (root / "LICENSE.txt").write_bytes(b"mine")
    assert "nothing is overwritten" in complain("crema-d", OK)
    assert host.paths().count(AUDIO) == 0
    run("ravdess", OK)
    assert under(root) == {**ravdess, "mine/mine.txt": b"mine", "LICENSE.txt": b"mine"}
    (root / next(iter(ravdess))).unlink()
    assert "is changed or lacks files" in complain("ravdess", OK)


def test_verify_reads_every_byte(
    run: Run, complain: Run, ravdess: dict[str, bytes], crema_d: dict[str, bytes], tmp_path: Path
) -> None:
    for name, files in (("ravdess", ravdess), ("crema-d", crema_d)):
        run(name, OK)
        file = tmp_path / "data" / max(files)
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        run(name)  # The sizes are right.
        assert f"1 files are missing or changed since the download ({max(files)})" in complain(name, "--verify")
        shutil.rmtree(tmp_path / "data")


def test_a_disk_that_is_too_small_is_reported_first(
    host: Host, run: Run, complain: Run, ravdess: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "GB free, expected at least" in complain("ravdess", OK)
    assert host.paths() == [ZENODO]
    assert not (tmp_path / "data").exists()


def test_a_disk_that_fills_up_is_one_line_and_received_bytes_are_kept(
    host: Host, run: Run, complain: Run, ravdess: dict[str, bytes], tmp_path: Path
) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        output = complain("ravdess", OK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "cannot be written (File too large); free some space and run the same command again: it resumes" in output
    run("ravdess", OK)
    assert under(tmp_path / "data") == ravdess
    assert host.requests[-1][1] != ""


def test_bad_options_are_one_line(complain: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean ravdess?" in complain("ravdes", OK)
    assert "--actors 1-99 is not a list of actors" in complain("ravdess", "--films", "--actors", "1-99")
    assert "--actors x is not a list of actors" in complain("ravdess", "--films", "--actors", "x")
    assert "add --films" in complain("ravdess", "--actors", "1")
    assert "TESS has no videos" in complain("tess", "--films")
    assert "--from is given for tess, but it works only for crema-d" in complain("tess", "--from", tmp_path)
    assert "--jobs is 0" in complain("tess", "--jobs", 0)
    for mirror in ("ftp://x", "x", "http://me:secret@x", "http://x/path", "http://x:port", "http://"):
        assert mirror in complain("tess", "--mirror", mirror)
    (tmp_path / "data").write_text("a file")
    assert "is a file, expected a folder for the download" in complain("tess", OK)
    assert cli.main(["download", "tess"]) == 1
    assert "add --root FOLDER" in capsys.readouterr().err


def test_a_damaged_record_is_one_line(complain: Run, ravdess: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for content in ("", "[]", "{}", '{"source": "ravdess", "version": 1, "held": [1]}'):
        (tmp_path / "data" / RECORD).write_text(content)
        assert "expected a record of farfeel download; delete it" in complain("ravdess", OK)


def test_the_list_shows_all_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["download"]) == 0
    output = capsys.readouterr().out
    assert cli.main(["download", "--list"]) == 0
    assert capsys.readouterr().out == output
    for word in (
        "ravdess",
        "crema-d",
        "tess",
        "emodb",
        "iemocap",
        "ace",
        "r3vival",
        "ODbL 1.0",
        "Livingstone",
        "on request",
    ):
        assert word in output


# Archives.


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def entry(name: str, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(*entries: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        for info in entries:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def encrypted() -> bytes:
    content = bytearray(zip_of(("a.wav", b"secret")))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + at] |= 1
    return bytes(content)


def damaged() -> bytes:
    content = bytearray(zipped({"a.wav": random_bytes(2000, 1)}, zipfile.ZIP_STORED))
    content[500] ^= 1
    return bytes(content)


def long_name() -> bytes:
    """A compressed tar whose first entry states a name of 50 MB: tarfile reads a name at once."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 50_000_000
    return tar_of(name)


GOOD = ("good.wav", b"good")
HOSTILE = {
    "up.zip": (lambda: zip_of(GOOD, ("../evil", b"evil")), "lies outside"),
    "deep.zip": (lambda: zip_of(GOOD, ("a/../../evil", b"evil")), "lies outside"),
    "absolute.zip": (lambda: zip_of(GOOD, ("/tmp/farfeel-evil", b"evil")), "lies outside"),
    "drive.zip": (lambda: zip_of(GOOD, ("C:evil", b"evil")), "lies outside"),
    "backslash.zip": (lambda: zip_of(GOOD, ("..\\evil", b"evil")), "lies outside"),
    "link.zip": (lambda: zip_of(GOOD, (link("evil"), b"/etc/passwd")), "a link or device"),
    "twice.zip": (lambda: zip_of(GOOD, ("folder/x", b"1"), ("folder", b"2")), "twice"),
    "bomb.zip": (lambda: zip_of(GOOD, ("bomb", bytes(12_000_000))), "unpacks to more than"),
    "many.zip": (lambda: zip_of(*((str(k), b"") for k in range(60))), "more than 50 entries"),
    "locked.zip": (encrypted, "encrypted"),
    "damaged.zip": (damaged, "is damaged (Bad CRC-32"),
    "short.zip": (lambda: zip_of(GOOD)[:-30], "is damaged"),
    "empty.zip": (zip_of, "is empty"),
    "none.zip": (lambda: b"<html>", "is damaged"),
    "up.tbz2": (lambda: tar_of(entry("../evil", size=4)), "lies outside"),
    "link.tbz2": (lambda: tar_of(entry("evil", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "a link or device"),
    "hard.tbz2": (lambda: tar_of(entry("evil", type=tarfile.LNKTYPE, linkname="x")), "a link or device"),
    "device.tbz2": (lambda: tar_of(entry("evil", type=tarfile.CHRTYPE)), "a link or device"),
    "bomb.tbz2": (lambda: tar_of(entry("bomb", size=12_000_000)), "unpacks to more than"),
    "name.tbz2": (long_name, "the description of an entry has 50000384 bytes"),
    "short.tbz2": (lambda: tar_of(entry("sound", size=40_000))[:-20], "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_with_one_line_and_nothing_left(
    host: Host, complain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 50)
    make, reason = HOSTILE[name]
    zenodo(host, {name: make()}, "/api/records/6257551")
    output = complain("ace", OK)
    assert output.startswith(name)
    assert reason in output
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("held", {"x": {"checksum": "md5:" + "0" * 32, "etag": "", "files": {"../../etc/passwd": [1, None]}}}),
        ("held", {"x": {"checksum": "md5:" + "0" * 32, "etag": "", "files": {"a": ["1", None]}}}),
        ("held", {"x": None}),
        ("held", []),
        ("version", None),
        ("complete", {"all": 3}),
        ("pointers", {"a": 1}),
        ("source", ["ravdess"]),
    ],
)
def test_a_record_with_other_values_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    whole = {"version": 1, "source": "ravdess", "complete": {}, "pointers": {}, "held": {}}
    (tmp_path / record.RECORD).write_text(json.dumps(whole))
    assert record.Record.read(tmp_path, "ravdess").held == {}
    (tmp_path / record.RECORD).write_text(json.dumps(whole | {key: value}))
    with pytest.raises(FarfeelError, match=r"cannot be read .* delete it, and the next run checks all files again"):
        record.Record.read(tmp_path, "ravdess")
    (tmp_path / record.RECORD).write_text("[" * 100_000)
    with pytest.raises(FarfeelError, match="cannot be read"):
        record.Record.read(tmp_path, "ravdess")


def test_the_record_describes_the_download(run: Run, host: Host, ravdess: dict[str, bytes], tmp_path: Path) -> None:
    run("ravdess", OK)
    held = record.Record.read(tmp_path / "data", "ravdess").held[f"{UNPACKED}.zip"]
    assert held.checksum == f"md5:{hashlib.md5(host.files[AUDIO]).hexdigest()}"
    assert held.etag == f'"{hashlib.md5(host.files[AUDIO]).hexdigest()}"'
    assert {name: size for name, (size, _) in held.files.items()} == dict.fromkeys(ravdess, 60000)
