"""Laws of the container, checked without one: the Dockerfile, the files sent to the builder, the health check."""

import argparse
import json
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from farfeel.cli import serve
from farfeel.serve.run import require_access
from farfeel.types import FarfeelError

PROJECT = Path(__file__).parents[1]
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = ("cpu", "cuda")


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile. `stage` is the name of its stage, empty before the first stage."""

    stage: str
    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the text, without flags."""
        return [word for word in self.text.split() if not word.startswith("--")]


def read(dockerfile: str) -> list[Step]:
    whole = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", dockerfile))
    steps, stage = [], ""
    for line in filter(None, map(str.strip, whole.splitlines())):
        word, text = line.split(None, 1)
        if word == "FROM":
            stage = text.rpartition(" AS ")[2]
        steps.append(Step(stage, word, text))
    return steps


def chain(steps: list[Step], stage: str) -> list[Step]:
    """All steps of an image, beginning with those of the stages that it is based on."""
    own = [step for step in steps if step.stage == stage]
    return (chain(steps, own[0].words[0]) if own else []) + own


def of(steps: list[Step], *words: str) -> list[Step]:
    """The steps with these instructions."""
    return [step for step in steps if step.word in words]


def final(steps: list[Step]) -> list[str]:
    """The stages that no other stage is based on or copies from."""
    names = {step.stage for step in of(steps, "FROM")}
    used = {step.words[0] for step in of(steps, "FROM")}
    used |= {match[1] for step in of(steps, "COPY") if (match := re.search(r"--from=(\S+)", step.text))}
    return sorted(names - used)


Law = Callable[[list[Step]], Iterator[object]]
BREACHES: dict[Law, list[str]] = {}


def breached_by(*dockerfiles: str) -> Callable[[Law], Law]:
    """Register a law, which yields the steps that break it, with Dockerfiles that break it."""

    def register(law: Law) -> Law:
        BREACHES[law] = list(dockerfiles)
        return law

    return register


@breached_by("FROM python:latest AS a", "FROM python AS a", "FROM python@sha AS a")
def base_images_have_a_version(steps: list[Step]) -> Iterator[object]:
    stages = {step.stage for step in steps}
    for step in of(steps, "FROM"):
        image = step.words[0]
        if image not in stages and not re.search(r":(?!latest)\S+$|@sha256:\w+$", image):
            yield step


@breached_by("RUN apt-get update && apt-get install -y git && rm -rf /var/lib/apt/lists/*",
             "RUN apt-get install -y --no-install-recommends git", "RUN apt install git")  # fmt: skip
def system_packages_leave_no_lists_and_install_no_recommendations(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "RUN"):
        if re.search(r"\bapt(-get)? .*install", step.text) and not (
            "--no-install-recommends" in step.text and "rm -rf /var/lib/apt/lists" in step.text
        ):
            yield step


@breached_by("ADD src src")
def files_are_copied_not_added(steps: list[Step]) -> Iterator[object]:
    yield from of(steps, "ADD")


@breached_by("FROM a:1 AS b\nCOPY src src", "FROM a:1 AS b\nCOPY --from=c /x /y")
def copies_state_their_owner(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "COPY"):
        if "--chown=" not in step.text:
            yield step


@breached_by("FROM a:1 AS b\nUSER root", "FROM a:1 AS b\nUSER 0:0", "FROM a:1 AS b", "FROM a:1 AS b\nUSER 7\nUSER root")
def nobody_runs_as_root(steps: list[Step]) -> Iterator[object]:
    for stage in final(steps):
        users = of(chain(steps, stage), "USER")
        if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1].text):
            yield stage


@breached_by(
    "FROM a:1 AS b\nCMD farfeel serve", "FROM a:1 AS b\nENTRYPOINT farfeel", "FROM a:1 AS b\nHEALTHCHECK CMD x"
)
def commands_need_no_shell(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "CMD", "ENTRYPOINT", "HEALTHCHECK"):
        try:
            json.loads(step.text[step.text.index("[") :])
        except ValueError:
            yield step


@breached_by("FROM a:1 AS b\nCMD []", "FROM a:1 AS b\nHEALTHCHECK NONE")
def every_image_has_a_health_check(steps: list[Step]) -> Iterator[object]:
    for stage in final(steps):
        if not any("CMD" in step.text for step in of(chain(steps, stage), "HEALTHCHECK")):
            yield stage


@breached_by("RUN pip install numpy", "RUN pip install --upgrade pip")
def pip_leaves_no_cache_in_a_layer(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "RUN"):
        if "pip install" in step.text and not re.search(r"--no-cache-dir|--mount=type=cache,target=\S+/pip", step.text):
            yield step


@breached_by("WORKDIR app")
def working_folders_are_absolute(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "WORKDIR"):
        if not step.text.startswith("/"):
            yield step


@breached_by("RUN cd /x && pip list | sudo tee y")
def no_step_needs_sudo_or_hides_a_failure_in_a_pipe(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "RUN"):
        if re.search(r"\bsudo\b| \| ", step.text):
            yield step


@breached_by(
    "RUN pip install --index-url https://pypi.example/simple x", "ENV PIP_INDEX_URL=https://pypi.example/simple"
)
def no_step_names_a_package_index(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "RUN", "ENV", "ARG"):
        if re.search(r"https?://", step.text):
            yield step


@breached_by("ENV FARFEEL_API_KEY=x", "ARG HF_TOKEN")
def there_are_no_secrets(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "ENV", "ARG"):
        if re.search(r"(?i)key|token|password|secret", step.text):
            yield step


@breached_by("FROM a:1 AS b\nCOPY --chown=0 src src\nRUN pip install --requirement cpu.txt")
def dependencies_are_installed_before_the_source_is_copied(steps: list[Step]) -> Iterator[object]:
    for stage in {step.stage for step in steps}:
        together = chain(steps, stage)
        sources = [at for at, step in enumerate(together) if step.word == "COPY" and "src" in step.words]
        for step in together[sources[0] :] if sources else []:
            if "pip install" in step.text and "--no-deps" not in step.text:
                yield step


@breached_by("RUN pip install --requirement cpu.txt")
def versions_come_from_the_constraints(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "RUN"):
        if "--requirement" in step.text and "--constraint constraints.txt" not in step.text:
            yield step


@breached_by('RUN pip install ".[nonsense]"', "ARG EXTRAS=serve,nonsense")
def extras_exist_in_pyproject(steps: list[Step]) -> Iterator[object]:
    given = [match[1] for step in of(steps, "RUN") if (match := re.search(r"\.\[([\w,-]+)\]", step.text))]
    given += [step.text.partition("=")[2] for step in of(steps, "ARG") if step.text.startswith("EXTRAS=")]
    yield from set(",".join(given).split(",")) - {""} - ABOUT["optional-dependencies"].keys()


@breached_by("COPY --chown=0 nonsense .", "COPY --chown=0 tests tests", "COPY --chown=0 .git .git")
def copied_files_exist_and_reach_the_builder(steps: list[Step]) -> Iterator[object]:
    for step in of(steps, "COPY"):
        for source in step.words[:-1] if "--from=" not in step.text else []:
            if not (PROJECT / source).exists() or is_ignored(source):
                yield source


@pytest.mark.parametrize("law", BREACHES, ids=lambda law: law.__name__)
def test_the_dockerfile_keeps_the_law_that(law: Law) -> None:
    assert list(law(read(DOCKERFILE))) == []


@pytest.mark.parametrize(
    ("law", "dockerfile"), [(law, breach) for law in BREACHES for breach in BREACHES[law]], ids=lambda each: ""
)
def test_a_broken_law_is_detected(law: Law, dockerfile: str) -> None:
    assert list(law(read(dockerfile)))


def is_ignored(path: str) -> bool:
    """Whether .dockerignore excludes a path. The last pattern that matches it, or a folder above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    is_excluded = False
    for pattern in IGNORED:
        bare = pattern.removeprefix("!")
        candidates = parts if bare.startswith("**/") else above
        if any(fnmatch(each, bare.removeprefix("**/")) for each in candidates):
            is_excluded = not pattern.startswith("!")
    return is_excluded


def test_only_the_files_of_the_build_reach_the_builder() -> None:
    for path in (".env", ".git/config", ".venv/bin/python", "runs/mine/best/model.safetensors", "demo/clip.wav",
                 "tests/test_hub.py", "src/farfeel/__pycache__/a.pyc", "src/farfeel.egg-info/PKG-INFO"):  # fmt: skip
        assert is_ignored(path), path
    for path in ("src/farfeel/serve/app.py", "src/farfeel/default/model.onnx", "pyproject.toml", "constraints.txt"):
        assert not is_ignored(path), path


def test_the_cpu_image_omits_pytorch_and_omits_only_real_requirements() -> None:
    (omitted,) = re.findall(r"grep -vE '\^\(([\w|-]+)\)>'", DOCKERFILE)
    named = {re.split(r"[^\w-]", requirement)[0] for requirement in ABOUT["dependencies"]}
    assert {"torch", "torchvision", "timm"} <= set(omitted.split("|")) <= named
    assert not [each for each in ABOUT["dependencies"] if each.startswith("torch") and not re.match(r"[\w-]+>", each)]


@pytest.mark.parametrize("target", TARGETS)
def test_the_port_and_the_health_check_of_a_target_are_those_of_its_command(target: str) -> None:
    steps = chain(read(DOCKERFILE), target)
    words = json.loads(of(steps, "CMD")[-1].text)
    assert words[:2] == ["farfeel", "serve"]
    parser = argparse.ArgumentParser()
    serve.COMMANDS[0].arguments(parser)
    args = parser.parse_args(words[2:])
    assert (args.host, args.engine) == ("0.0.0.0", "onnx" if target == "cpu" else "torch")
    assert of(steps, "EXPOSE")[-1].text == str(args.port)
    assert f"http://127.0.0.1:{args.port}/v1/health" in of(steps, "HEALTHCHECK")[-1].text
    assert '@app.get("/v1/health"' in (PROJECT / "src/farfeel/serve/app.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", TARGETS)
def test_a_container_serves_nobody_without_a_key_unless_its_user_adds_open(target: str) -> None:
    words = json.loads(of(chain(read(DOCKERFILE), target), "CMD")[-1].text)
    parser = argparse.ArgumentParser()
    serve.COMMANDS[0].arguments(parser)
    for added, key, is_served in (([], None, False), ([], "secret", True), (["--open"], None, True)):
        args = parser.parse_args([*words[2:], *added])
        with nullcontext() if is_served else pytest.raises(FarfeelError, match="there is no key"):
            require_access(args.host, key, args.open)


def test_only_targets_are_final_and_they_write_only_to_tmp_and_send_no_telemetry() -> None:
    steps = read(DOCKERFILE)
    assert final(steps) == sorted(TARGETS)
    for target in TARGETS:
        environment = " ".join(step.text for step in of(chain(steps, target), "ENV"))
        assert "HOME=/tmp" in environment
        assert "ORT_DISABLE_TELEMETRY=1" in environment
        assert of(chain(steps, target), "WORKDIR")[-1].text == "/tmp"
        assert all("--chown=root:root" in step.text for step in of(chain(steps, target), "COPY"))


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_detects_whether_the_server_responds(status: int | None, code: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/health" and status else 404)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    port = server.server_address[1]
    if status is None:
        server.shutdown()
        server.server_close()
    words = of(read(DOCKERFILE), "HEALTHCHECK")[-1].text
    command = json.loads(words[words.index("[") :].replace(":7860/", f":{port}/"))
    behind_a_proxy = os.environ | {"http_proxy": "http://127.0.0.1:9"}
    assert subprocess.run(command, env=behind_a_proxy, capture_output=True, check=False).returncode == code
    if status is not None:
        server.shutdown()
        server.server_close()
