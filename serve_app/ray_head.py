"""An own Ray cluster of one machine: the command, the environment, the wait until it answers."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from serve_app.processes import MARK, identify, is_alive
from serve_app.record import ClusterError, ProcessId, ray_token_file
from serve_app.settings import Settings

# Ray puts sockets below its folder, and Linux allows a socket's path 107 bytes.
LONGEST_RAY_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")
READY_DEADLINE_S = 120
_PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--ray-client-server-port",
)


@dataclass(frozen=True)
class Head:
    """A started `ray start --head --block`."""

    process: ProcessId
    address: str  # host:port of the cluster
    dashboard: str  # URL


def environment(settings: Settings, mark: str | None) -> dict[str, str]:
    """What the processes of a cluster inherit; `mark` None: of a cluster that was there before.

    The token's file is named, so that the token itself stands in no environment.
    """
    env = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", MARK}}
    if search := env.get("PYTHONPATH"):  # the cluster's processes work in other folders
        absolute = [str(Path(entry).resolve()) for entry in search.split(os.pathsep) if entry]
        env["PYTHONPATH"] = os.pathsep.join(absolute)
    if mark is None:
        return env
    env.pop("RAY_AUTH_TOKEN", None)
    # `ray` and the interpreter's other commands come before those of the system.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    return env | {
        MARK: mark,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(ray_token_file(settings.data)),
        "RAY_JOB_STOP_WAIT_TIME_S": str(int(settings.stop_grace_s)),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Training takes every core; Serve would kill a door that does not open within 5 s.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    }


def new_ray_folder() -> Path:
    """A temporary folder with a path that is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="fr"))
    if len(os.fsencode(folder)) <= LONGEST_RAY_FOLDER:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def launch(env: dict[str, str], folder: Path, log: Path, num_cpus: float | None) -> Head:
    """Start a head node in its own session and return at once; `wait_until_ready` waits for it."""
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--log-style=record"]
    command += [f"--temp-dir={folder}", *(f"{name}={port}" for name, port in ports.items())]
    if num_cpus is not None:
        command.append(f"--num-cpus={num_cpus:g}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
    head = identify(process.pid)
    assert head is not None  # even ended it stays known until this process has waited for it
    return Head(
        process=head,
        address=f"127.0.0.1:{ports['--port']}",
        dashboard=f"http://127.0.0.1:{ports['--dashboard-port']}",
    )


def wait_until_ready(head: Head, log: Path) -> None:
    """Return when the cluster takes connections. Raises ClusterError with the log's end."""
    deadline = time.monotonic() + READY_DEADLINE_S
    while "Ray runtime started" not in log.read_text(encoding="utf-8", errors="replace"):
        if not is_alive(head.process):
            raise ClusterError(f"Ray's head node ended while starting:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"Ray's head node was not ready after {READY_DEADLINE_S} s:\n{tail(log)}"
            )
        time.sleep(0.2)


def tail(log: Path, num_lines: int = 20) -> str:
    """The end of a log, with the name of its file."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]
    return "\n".join([*(f"  {line}" for line in lines), f"  ({log})"])
