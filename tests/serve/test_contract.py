"""The server keeps its OpenAPI description: schemathesis sends requests that fit it, and requests that do not."""

import subprocess
import sys
from pathlib import Path

from running import Served


def test_the_server_keeps_its_openapi_description(server: Served, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"]
    # Random bytes are not a recording, so the server refuses them. The excluded check would expect success.
    command += ["--max-examples", "8", "--seed", "1", "--exclude-checks", "positive_data_acceptance", "--no-color"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout[-3000:]
    server.require_nothing_left()
