"""Checkpoints on the Hugging Face hub: `hf://owner/name`, and `hf://owner/name@revision`.

Checkpoints on the hub belong to strangers. Only FILES are fetched, all of one commit; none of them can hold code. They
stay in the hub's own cache, and are taken from there where the hub cannot be reached. HF_ENDPOINT, HF_TOKEN, HF_HOME
and HF_HUB_OFFLINE have the meaning that huggingface_hub gives them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from farfeel.support.console import note
from farfeel.support.files import replacing_folder, require_replaceable
from farfeel.support.reading import damage
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

WEIGHTS, RECIPE, ONNX, CARD, README = "model.safetensors", "recipe.yaml", "model.onnx", "card.md", "README.md"
FILES = (WEIGHTS, RECIPE, ONNX, CARD, README)  # README.md is card.md with the header that the hub reads
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
LICENCES = (  # as cards name them; the hub has the same names in lower case with hyphens
    "Apache-2.0",
    "CC0 1.0",
    "CC BY 4.0",
    "CC BY-SA 4.0",
    "CC BY-ND 4.0",
    "CC BY-NC 4.0",
    "CC BY-NC-SA 4.0",
    "CC BY-NC-ND 4.0",
    "ODbL",
)
TIMEOUT_S = 10.0  # for the hub's first answer
_ADDRESS = re.compile(r"hf://?([\w.-]+/[\w.-]+)(?:@(\w[\w./-]*))?", re.ASCII)  # a Path has lost a slash
_REMEDIES = {
    401: "check owner and name, and log in: hf auth login, or HF_TOKEN",
    403: "use the token of somebody who may, or ask the owner",
    404: "check owner, name and revision; where it is private, log in: hf auth login, or HF_TOKEN",
    412: "somebody else has just changed it: look at the change, and push again",
}


def is_address(checkpoint: str | Path) -> bool:
    return str(checkpoint).startswith("hf:")


def local(checkpoint: str | Path) -> Path:
    """The path of a checkpoint on this machine. One on the hub is fetched. Raises FarfeelError."""
    return fetch(str(checkpoint)) if is_address(checkpoint) else Path(checkpoint)


def fetch(address: str) -> Path:
    """The checkpoint at an address, as a folder of the hub's cache.

    Where the hub cannot be reached, the checkpoint that was fetched last is used, and a note says so. Raises
    FarfeelError.
    """
    repo, revision = _parsed(address)
    api = _api()
    with _in_one_line(address):
        commit, why = _current_commit(api, address, repo, revision)
        try:
            snapshot = api.snapshot_download(
                repo, revision=revision, allow_patterns=list(FILES), local_files_only=commit is None
            )
        except FileNotFoundError:
            if commit:
                raise
            raise FarfeelError(
                f"{address} was not fetched before, and the hub cannot be reached ({why}); check the network, "
                "HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from None
    folder = Path(snapshot)
    if folder.name != commit:
        note(
            f"{address}: the hub cannot be reached ({why}); commit {folder.name[:12]} is used, which was fetched before"
        )
    _require_whole(address, folder / WEIGHTS)
    return folder


def push(folder: Path, address: str, modalities: str, message: str, private: bool = False) -> str:
    """Upload a checkpoint folder in one commit, and return its address with that commit.

    A repository that does not exist is created, and so is its branch; `private` makes it private. Files of an earlier
    push are removed. Raises FarfeelError; then the repository is as it was.
    """
    repo, revision = _parsed(address)
    api = _api()
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files = layout(folder, modalities)
    with _in_one_line(address):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision)
        if private and not info.private:
            raise FarfeelError(
                f"{address} is public, expected a private one because of --private; nothing is uploaded; make it "
                "private in its settings, or choose another name"
            )
        remote = {file.rfilename for file in info.siblings or ()}
        done = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, content) for name, content in files.items()),
                *(CommitOperationDelete(name) for name in FILES if name in remote and name not in files),
            ],
            commit_message=message,
            revision=revision,
            parent_commit=info.sha,
        )
    return f"hf://{repo}@{done.oid}"


def write(folder: Path, out: Path, modalities: str) -> None:
    """Write the files that `push` uploads into a folder, all of them or none. Raises FarfeelError."""
    require_replaceable(out, FILES, "a checkpoint")
    files = layout(folder, modalities)
    with replacing_folder(out) as partial:
        for name, content in files.items():
            (partial / name).write_bytes(content)


def layout(folder: Path, modalities: str) -> dict[str, bytes]:
    """File name → content. An existing README.md is kept, so that it can be edited before it is pushed."""
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    if README not in files:
        card = files.get(CARD, b"").decode("utf-8", errors="replace")
        files[README] = f"---\n{front_matter(card, modalities)}---\n\n{card}".encode()
    return files


def front_matter(card: str, modalities: str) -> str:
    """The header of a card that the hub reads, as YAML.

    It has a licence only where the card names exactly one that the hub knows, without a limit to research. With
    several licences, or a limit, one name would not be true of the weights.
    """
    named = [name for name in LICENCES if re.search(rf"\b{re.escape(name)}\b", card)]
    beside = [line for line in card.splitlines() if "research" in line and any(name in line for name in named)]
    known = len(named) == 1 and not beside
    header = {
        **({"license": named[0].lower().replace(" ", "-")} if known else {}),
        "library_name": "farfeel",
        "pipeline_tag": "video-classification" if modalities == "video" else "audio-classification",
        "tags": ["emotion-recognition", "far-field", "microphone-array", "reverberation", "safetensors"],
    }
    return yaml.safe_dump(header, sort_keys=False)


def _parsed(address: str) -> tuple[str, str | None]:
    """Owner/name, and the revision where there is one."""
    match = _ADDRESS.fullmatch(address)
    if match is None or ".." in address:
        raise FarfeelError(
            f"{address} is not an address, expected hf://owner/name or hf://owner/name@revision; correct it"
        )
    return match[1], match[2]


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi, constants
    except ImportError:
        raise FarfeelError(
            "huggingface_hub is not installed, expected it for hf:// addresses; pip install 'farfeel[hub]'"
        ) from None
    constants.HF_HUB_DISABLE_TELEMETRY = True  # It reports what else is installed, and who runs it.
    return HfApi(library_name="farfeel")


def _current_commit(api: HfApi, address: str, repo: str, revision: str | None) -> tuple[str | None, str]:
    """The commit of an address now; None and the reason where the hub cannot be reached."""
    from huggingface_hub.errors import HTTPError

    try:
        info = api.model_info(repo, revision=revision, timeout=TIMEOUT_S)
    except (HTTPError, ConnectionError) as error:  # OfflineModeIsEnabled is one
        refusal = _refusal(error)
        if refusal and refusal.response.status_code < 500 and refusal.response.status_code != 429:
            raise
        return None, _reason(error)
    names = [file.rfilename for file in info.siblings or ()]
    missing = [name for name in (WEIGHTS, RECIPE) if name not in names]
    if missing:
        pickles = [name for name in names if name.endswith(PICKLES)]
        beside = f", but {pickles[0]}, a pickle, which could run code and is never opened" if pickles else ""
        raise FarfeelError(
            f"{address} has no {' and no '.join(missing)}{beside}; expected what farfeel push uploads; name another"
        )
    return info.sha, "it does not answer any more"


def _require_whole(address: str, weights: Path) -> None:
    from safetensors import safe_open

    remedy = f"delete {weights.parents[2]} to have it fetched again, or inform its owner"
    message = f"{address}: {WEIGHTS} is damaged or cut off"
    with damage(lambda reason: f"{message} ({reason}); {remedy}"), safe_open(weights, framework="numpy"):
        pass


@contextmanager
def _in_one_line(address: str) -> Iterator[None]:
    """Errors of the hub become FarfeelError."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:  # the last two: not an answer of the hub
        raise FarfeelError(f"{address}: {_complaint(error)}") from None


def _complaint(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename} cannot be written ({os.strerror(error.errno)}); free some space or set HF_HOME"
    if refusal := _refusal(error):
        status = refusal.response.status_code
        remedy = "try again later" if status >= 500 or status == 429 else "look at it with a browser"
        return f"the hub answered {_reason(error)}; {_REMEDIES.get(status, remedy)}"
    return f"no answer from the hub ({_reason(error)}); check the address, the network and HF_ENDPOINT"


def _reason(error: Exception) -> str:
    """The hub's message where it has answered, else the message of the error, in one line."""
    if refusal := _refusal(error):
        answer = refusal.response
        return f"{answer.status_code}: {one_line(refusal.server_message or answer.reason_phrase, 200)}"
    return one_line(error, 200) or type(error).__name__


def _refusal(error: BaseException | None) -> HfHubHTTPError | None:
    """The answer of the hub that is the error, or the cause of it."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error
