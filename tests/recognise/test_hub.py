"""Laws of the hub: what comes back is what was pushed, in one commit or not at all, and nothing else is fetched."""

import base64
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from huggingface_hub import constants

import farfeel
from farfeel import cli
from farfeel.recognise import hub
from farfeel.recognise.recognizer import DEFAULT, Recognizer
from farfeel.types import FarfeelError

REPO, TOKEN = "ada/rooms", "hf_secret"
ADDRESS = f"hf://{REPO}"
Files = dict[str, bytes]


@dataclass
class Hub:
    """The hub on this machine: commits of files, branches that name them, and faults by a part of the path."""

    address: str = ""
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)  # repository → branch → commit
    private: set[str] = field(default_factory=set)
    objects: Files = field(default_factory=dict)  # large files, by SHA-256
    faults: dict[str, int] = field(default_factory=dict)  # "METHOD part of a path" → status
    requests: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)

    def put(self, files: Files, repo: str = REPO, branch: str = "main") -> str:
        """A commit that leaves `files` and nothing else."""
        commit = hashlib.sha1(f"{repo}{len(self.commits)}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches.setdefault(repo, {})[branch] = commit
        return commit

    def files(self, repo: str = REPO, revision: str = "main") -> Files:
        return self.commits[self.branches[repo].get(revision, revision)]

    def fetched(self) -> set[str]:
        """Names of the files that somebody has requested."""
        return {path.split("/resolve/")[1].partition("/")[2] for path in self.requests if "/resolve/" in path}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Nothing to say."""

    def _go(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append(f"{self.command} {path}")
        hub.agents.add(self.headers.get("User-Agent", ""))
        for fault, status in hub.faults.items():
            method, part = fault.split()
            if method == self.command and part in path:
                return self._answer(status, {"error": f"fault {status}"})
        if self.command == "PUT":
            hub.objects[path.rpartition("/")[2]] = body
            return self._answer(200)
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, said="Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self._answer(200, {})
        if path.endswith(".git/info/lfs/objects/batch"):
            upload = lambda oid: {"upload": {"href": f"{hub.address}/lfs/{oid}"}}  # noqa: E731
            objects = [each | {"actions": upload(each["oid"])} for each in json.loads(body)["objects"]]
            return self._answer(200, {"objects": objects})
        if path.startswith("/api/models/"):
            owner, name, *rest = path.removeprefix("/api/models/").split("/", 3)
            verb, _, revision = "/".join(rest).partition("/")
        else:
            owner, name, verb, revision = path[1:].split("/", 3)
        repo, revision = f"{owner}/{name}", revision or "main"
        if repo not in hub.branches:
            return self._answer(404, said="Repository not found", code="RepoNotFound")
        return self._in_repository(repo, verb, revision, body)

    do_GET = do_HEAD = do_POST = do_PUT = _go  # noqa: N815

    def _create(self, wanted: dict[str, str]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.hub.branches:
            return self._answer(409, {"url": f"{self.hub.address}/{repo}"}, said="You already created this")
        self.hub.put({".gitattributes": b""}, repo)
        self.hub.private |= {repo} if wanted.get("visibility") == "private" else set()
        return self._answer(200, {"url": f"{self.hub.address}/{repo}"})

    def _in_repository(self, repo: str, verb: str, revision: str, body: bytes) -> None:
        hub, branches = self.hub, self.hub.branches[repo]
        if verb == "branch":
            branches[revision] = branches["main"]
            return self._answer(200)
        revision, _, file = revision.partition("/") if verb == "resolve" else (revision, "", "")
        commit = branches.get(revision, revision)
        if commit not in hub.commits:
            return self._answer(404, said=f"Invalid rev id: {revision}", code="RevisionNotFound")
        files = hub.commits[commit]
        if verb == "resolve":
            content = files[file]
            about = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
            return self._answer(200, content, headers=about)
        if verb == "tree":
            oids = {path: hashlib.sha1(content).hexdigest() for path, content in files.items()}
            return self._answer(
                200, [{"type": "file", "path": p, "size": len(c), "oid": oids[p]} for p, c in files.items()]
            )
        if verb == "preupload":
            large = (".safetensors", ".onnx")
            modes = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(large) else "regular"}
                for each in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": [mode | {"shouldIgnore": False} for mode in modes]})
        if verb == "commit":
            return self._commit(repo, revision, [json.loads(line) for line in body.splitlines()])
        siblings = [{"rfilename": name} for name in files]
        return self._answer(200, {"id": repo, "sha": commit, "private": repo in self.hub.private, "siblings": siblings})

    def _commit(self, repo: str, branch: str, lines: list[dict[str, dict[str, str]]]) -> None:
        files = dict(self.hub.files(repo, branch))
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value["parentCommit"] != self.hub.branches[repo][branch]:
                    return self._answer(412, said="A commit has happened since")
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        commit = self.hub.put(files, repo, branch)
        return self._answer(200, {"commitUrl": f"{self.hub.address}/{repo}/commit/{commit}", "commitOid": commit})

    def _answer(
        self,
        status: int,
        content: object = b"",
        headers: dict[str, str] | None = None,
        said: str = "",
        code: str = "",
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        error_headers = {"X-Error-Message": said, "X-Error-Code": code, "Content-Length": str(len(body))}
        for name, value in ((headers or {}) | error_headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The only hub that huggingface_hub knows, an empty cache, and a token."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    point_at(hub.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # has a protocol of its own
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    server.shutdown()
    server.server_close()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does in a new process."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


Complain = Callable[..., str]


@pytest.fixture
def complain(capsys: pytest.CaptureFixture[str]) -> Complain:
    """Run a command that must fail; its one line."""

    def run(*words: object) -> str:
        assert cli.main([str(word) for word in words]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("farfeel: error: ")]
        return line.removeprefix("farfeel: error: ")

    return run


def push(checkpoint: Path, *words: str) -> None:
    assert cli.main(["push", str(checkpoint), ADDRESS, *words]) == 0


def contents(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_comes_back_is_what_was_pushed(there: Hub, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(checkpoint, "--message", "the first")
    pinned = capsys.readouterr().out.strip()
    assert pinned == f"{ADDRESS}@{there.branches[REPO]['main']}"
    assert there.messages == ["the first"]
    audio = np.random.default_rng(1).normal(0, 0.1, (2, 20480)).astype(np.float32)
    expected = Recognizer.load(checkpoint).predict_audio(audio)
    for address in (ADDRESS, pinned, Path(ADDRESS)):
        assert farfeel.load(address).predict_audio(audio) == expected
    folder = hub.fetch(ADDRESS)
    assert folder.name == pinned.partition("@")[2]
    for name in ("model.safetensors", "recipe.yaml", "card.md"):
        assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()
    assert "fetched before" not in capsys.readouterr().err


def test_a_push_is_one_commit_and_leaves_nothing_of_the_last(there: Hub, checkpoint: Path, tmp_path: Path) -> None:
    there.put({"model.onnx": b"of another model", "README.md": b"old", "notes.txt": b"somebody's"})
    push(checkpoint)
    assert len(there.commits) == 2
    assert set(there.files()) == {"model.safetensors", "recipe.yaml", "card.md", "README.md", "notes.txt"}
    with_onnx = tmp_path / "with-onnx"
    shutil.copytree(checkpoint, with_onnx)
    (with_onnx / "model.onnx").write_bytes(b"its own")
    hub.push(with_onnx, ADDRESS, "audio", "with ONNX")
    assert there.files()["model.onnx"] == b"its own"


@pytest.mark.parametrize("fault", ["PUT lfs", "POST preupload", "POST /commit/", "POST validate-yaml"])
def test_a_push_that_fails_changes_nothing(there: Hub, checkpoint: Path, complain: Complain, fault: str) -> None:
    before = {"README.md": b"as it was"}
    there.put(before)
    there.faults[fault] = 403
    assert "403: fault 403; use the token of somebody who may" in complain("push", checkpoint, ADDRESS)
    assert there.files() == before


def test_a_branch_is_made_and_main_stays(there: Hub, checkpoint: Path) -> None:
    main = there.put({"README.md": b"as it was"})
    push(checkpoint, "--revision", "trial")
    assert there.branches[REPO]["main"] == main
    assert "model.safetensors" in there.files(revision="trial")
    assert hub.fetch(f"{ADDRESS}@trial").name == there.branches[REPO]["trial"]


def test_what_is_meant_to_be_private_is_never_public(there: Hub, checkpoint: Path, complain: Complain) -> None:
    push(checkpoint, "--private")
    assert there.private == {REPO}
    push(checkpoint, "--private")
    there.private.clear()
    before = there.files()
    assert "is public, expected a private one because of --private" in complain(
        "push", checkpoint, ADDRESS, "--private"
    )
    assert there.files() == before


def test_only_files_that_farfeel_knows_are_fetched(there: Hub, checkpoint: Path) -> None:
    strangers = {"pytorch_model.bin": pickle.dumps([]), "farfeel.py": b"raise", "more/model.safetensors": b"?"}
    there.put(contents(checkpoint) | strangers)
    folder = hub.fetch(ADDRESS)
    assert there.fetched() == {"model.safetensors", "recipe.yaml", "card.md"}
    assert {path.name for path in folder.iterdir()} == there.fetched()


def test_a_commit_stays_what_it_is(there: Hub, checkpoint: Path) -> None:
    first = there.put(contents(checkpoint) | {"card.md": b"the first"})
    there.put(contents(checkpoint) | {"card.md": b"the second"})
    assert (hub.fetch(f"{ADDRESS}@{first}") / "card.md").read_bytes() == b"the first"
    assert (hub.fetch(ADDRESS) / "card.md").read_bytes() == b"the second"


def test_the_hub_does_not_learn_what_else_is_installed(there: Hub, checkpoint: Path) -> None:
    push(checkpoint)
    hub.fetch(ADDRESS)
    assert not [agent for agent in there.agents if "torch" in agent or "agent/" in agent]
    assert not [path for path in there.requests if "harnesses" in path]


def test_the_environment_chooses_the_hub_and_a_second_load_needs_none(
    there: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    there.put(contents(checkpoint))

    def fetch(**more: str) -> subprocess.CompletedProcess[str]:
        environment = {"HF_ENDPOINT": there.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        script = f"from farfeel.recognise.hub import fetch; print(fetch({ADDRESS!r}))"
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=os.environ | environment | more, capture_output=True, text=True, check=True)

    first = fetch()
    assert contents(Path(first.stdout.strip())) == contents(checkpoint)
    assert "fetched before" not in first.stderr
    requests = len(there.requests)
    again = fetch(HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout
    assert re.search(r"the hub cannot be reached \(.*offline mode.*which was fetched before", again.stderr)
    assert len(there.requests) == requests


def test_a_hub_that_fails_is_replaced_by_the_cache_and_one_that_refuses_is_not(
    there: Hub, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there.put(contents(checkpoint))
    folder = hub.fetch(ADDRESS)
    for status in (401, 403, 404):
        there.faults = {"GET /api/models": status}
        with pytest.raises(FarfeelError, match=f"{status}: fault {status}"):
            hub.fetch(ADDRESS)
    for status in (429, 503):
        there.faults = {"GET /api/models": status}
        assert hub.fetch(ADDRESS) == folder
        assert f"({status}: fault {status})" in capsys.readouterr().err
    point_at("http://127.0.0.1:9", monkeypatch)
    assert hub.fetch(ADDRESS) == folder
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "said"), [(401, "log in"), (403, "ask the owner"), (404, "check owner, name"), (503, "later")]
)
def test_a_refusal_is_one_line(there: Hub, checkpoint: Path, complain: Complain, status: int, said: str) -> None:
    there.faults["POST /api/repos/create"] = status
    line = complain("push", checkpoint, ADDRESS)
    assert line.startswith(f"{ADDRESS}: the hub answered {status}: fault {status}; ")
    assert said in line


def test_a_missing_login_is_one_line(
    there: Hub, checkpoint: Path, complain: Complain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login, or HF_TOKEN" in complain("push", checkpoint, ADDRESS)
    assert there.branches == {}


def test_a_missing_repository_is_one_line(there: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FarfeelError, match="404: Repository not found; check owner"):
        hub.fetch("hf://ada/none")
    there.put(contents(checkpoint))
    with pytest.raises(FarfeelError, match="404: Invalid rev id: later; check owner"):
        hub.fetch(f"{ADDRESS}@later")
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(FarfeelError, match=r"was not fetched before, and the hub cannot be reached \(.*refused"):
        hub.fetch(ADDRESS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FarfeelError, match=r"was not fetched before.*offline mode"):
        hub.fetch(ADDRESS)


@pytest.mark.parametrize(
    "address", ["hf://", "hf://rooms", "hf://a/b/c", "hf://a/b@", "hf://a/b@../../x", "hf://a b/c", "hf://a/b@c@d"]
)
def test_a_malformed_address_is_refused_before_any_request(
    there: Hub, checkpoint: Path, complain: Complain, address: str
) -> None:
    assert "expected hf://owner/name" in complain("push", checkpoint, address)
    with pytest.raises(FarfeelError, match="expected hf://owner/name"):
        farfeel.load(address)
    assert there.requests == []


def test_a_name_that_the_hub_forbids_is_one_line(there: Hub, checkpoint: Path, complain: Complain) -> None:
    assert "check the address" in complain("push", checkpoint, "hf://ada/ro--oms")


def test_an_endpoint_that_is_not_a_hub_is_one_line(there: Hub, complain: Complain, checkpoint: Path) -> None:
    there.faults["POST /api/repos/create"] = 200
    assert "no answer from the hub" in complain("push", checkpoint, ADDRESS)


def test_a_repository_without_a_checkpoint_is_one_line(there: Hub) -> None:
    there.put({"README.md": b"# nothing"})
    with pytest.raises(FarfeelError, match=r"has no model\.safetensors and no recipe\.yaml; expected what farfeel"):
        hub.fetch(ADDRESS)
    there.put({"recipe.yaml": b"", "pytorch_model.bin": pickle.dumps([])})
    with pytest.raises(FarfeelError, match=r"no model\.safetensors, but pytorch_model\.bin, a pickle, .* never opened"):
        hub.fetch(ADDRESS)
    assert there.fetched() == set()


def test_damaged_files_are_one_line(there: Hub, checkpoint: Path) -> None:
    whole = contents(checkpoint)
    for weights in (whole["model.safetensors"][:-100], pickle.dumps([]), b""):
        there.put(whole | {"model.safetensors": weights})
        with pytest.raises(FarfeelError, match=rf"^{ADDRESS}: model\.safetensors is damaged or cut off"):
            farfeel.load(ADDRESS)
    there.put(whole | {"recipe.yaml": b"!!python/object/apply:os.system [exit]"})
    with pytest.raises(FarfeelError, match=r"recipe\.yaml cannot be read"):
        farfeel.load(ADDRESS)


def test_a_folder_gets_what_the_hub_would_get(there: Hub, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "look"
    assert cli.main(["push", str(checkpoint), str(out)]) == 0
    push(checkpoint)
    there.files().pop(".gitattributes")
    assert contents(out) == there.files()
    audio = np.random.default_rng(1).normal(0, 0.1, (1, 20480)).astype(np.float32)
    assert farfeel.load(out).predict_audio(audio) == farfeel.load(checkpoint).predict_audio(audio)


def test_a_card_that_was_edited_in_the_folder_is_the_one_that_is_pushed(
    there: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "look"
    hub.write(checkpoint, out, "audio")
    (out / "README.md").write_text("---\nlicense: mit\n---\n\n# edited\n")
    push(out)
    assert there.files()["README.md"] == b"---\nlicense: mit\n---\n\n# edited\n"


def test_a_folder_is_written_whole_or_not_at_all(
    checkpoint: Path, tmp_path: Path, complain: Complain, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "look"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "holds thesis.txt" in complain("push", checkpoint, out)
    assert "remove them" in complain("push", checkpoint, out, "--private")
    (out / "thesis.txt").unlink()
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    assert "cannot be written (No space left on device)" in complain("push", checkpoint, out)
    assert list(tmp_path.iterdir()) == [out]
    assert list(out.iterdir()) == []


def test_what_would_not_load_is_not_pushed(there: Hub, checkpoint: Path, tmp_path: Path, complain: Complain) -> None:
    assert "does not exist" in complain("push", tmp_path / "none", ADDRESS)
    wrong = tmp_path / "wrong"
    shutil.copytree(checkpoint, wrong)
    shutil.copy(DEFAULT / "model.onnx", wrong)
    assert "is of another model" in complain("push", wrong, ADDRESS)
    shutil.copy(DEFAULT / "model.safetensors", wrong)
    assert "does not fit its own recipe.yaml" in complain("push", wrong, ADDRESS)
    assert there.requests == []


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("Licence of the data, which the weights inherit: RAVDESS: CC BY-NC-SA 4.0.", "cc-by-nc-sa-4.0"),
        ("CREMA-D: ODbL 1.0.", "odbl"),
        ("RAVDESS: CC BY-NC-SA 4.0; TESS: CC BY-NC-ND 4.0.", None),
        ("RAVDESS: CC BY-NC-SA 4.0; URDU: research use only.", None),
        ("CC BY-XY 4.0", None),
        ("", None),
    ],
)
def test_a_licence_is_written_where_the_hub_knows_it_and_there_is_one(card: str, licence: str | None) -> None:
    about = yaml.safe_load(hub.front_matter(card, "audio"))
    assert about.get("license") == licence
    assert (about["library_name"], about["pipeline_tag"]) == ("farfeel", "audio-classification")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FarfeelError, match=r"pip install 'farfeel\[hub\]'"):
        hub.fetch(ADDRESS)
