"""The stock OpenAI clients: where their environments are, and how a script runs in one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "clients"
VERSIONS = {"openai-1": "1.109.1", "openai-3": "3.57.0"}


def run_client(client: str, script: str, deadline_s: float = 240, **environment: str) -> Any:
    """Run a script in a client's environment and return the JSON that it printed last."""
    python = Path(sys.prefix) / "clients" / client / "bin" / "python"
    assert python.exists(), f"there is no {python}: run `make setup`"
    clean = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [python, SCRIPTS / script],
        env=clean | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
