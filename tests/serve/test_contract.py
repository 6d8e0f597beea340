"""The description of the interface is a promise: schemathesis asks for what it promises, and for what it forbids."""

import subprocess
import sys
from pathlib import Path

from running import Served


def test_the_server_keeps_what_its_description_promises(server: Served, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"]
    # Bytes drawn by chance are no recording, which is what the excluded check would have accepted.
    command += ["--max-examples", "8", "--seed", "1", "--exclude-checks", "positive_data_acceptance", "--no-color"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout[-3000:]
    server.require_nothing_left()
