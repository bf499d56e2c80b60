"""Reaching a service's cluster and its HTTP door from outside, always with a deadline."""

import socket
import subprocess
import sys

import httpx

from serve_app import ray_head
from serve_app.deploy import Request
from serve_app.ray_head import tail
from serve_app.record import ClusterError, Record
from serve_app.settings import Settings


def run_driver(
    what: str, record: Record, settings: Settings, application: str, deadline_s: float
) -> None:
    """Run `serve_app.deploy` against the record's cluster. Raises ClusterError with its output."""
    assert record.address is not None
    request = Request(
        settings=settings,
        application=application,
        address=record.address,
        host=record.host,
        port=record.port,
    )
    log = settings.data / "logs" / f"{what}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "serve_app.deploy", what]
    env = ray_head.environment(settings, None if record.joined else record.mark)
    with log.open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                command, input=request.model_dump_json(), env=env, stdout=out, stderr=out,
                text=True, timeout=deadline_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"the cluster at {record.address} took longer than {deadline_s:g} s "
                f"({what}):\n{tail(log)}"
            ) from None
    if done.returncode != 0:
        raise ClusterError(f"the cluster at {record.address} refused ({what}):\n{tail(log)}")


def ask_health(record: Record) -> str:
    """The status code of the service's own health, or why there is none."""
    try:
        # No proxy: the environment's would be asked for a loopback address.
        with httpx.Client(timeout=10, trust_env=False) as client:
            answer = client.get(f"{record.root_url}/healthz")
    except httpx.HTTPError as error:
        return f"no answer ({error})"
    return str(answer.status_code) if answer.status_code == 200 else answer.text[:500]


def listens(address: str | None) -> bool:
    """True when something takes connections at host:port: a cluster that is gone does not."""
    host, _, port = (address or "").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError):
        return False
    return True
