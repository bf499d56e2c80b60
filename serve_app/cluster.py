"""The life of a service on this machine: `up` starts it, `down` stops exactly what `up` started.

`up` starts a Ray cluster of its own, or joins one, and deploys the application with Ray Serve.
Whatever it does is written to `data/service.json` first, so that `down` can end a service of which
half has died or which never came up. Jobs, files and keys stay in the data folder: `up` again on
the same folder goes on with them.
"""

import fcntl
import logging
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serve_app import processes, ray_head
from serve_app.deploy import APPLICATION
from serve_app.operator_key import operator_key
from serve_app.ray_head import tail
from serve_app.reach import ask_health, listens, run_driver
from serve_app.record import (
    ClusterError,
    Record,
    read_record,
    read_settings,
    write_record,
    write_settings,
)
from serve_app.settings import Settings

DEPLOY_DEADLINE_S = 600
HEALTH_DEADLINE_S = 120
WITHDRAW_DEADLINE_S = 90
KILL_DEADLINE_S = 30
LOCAL = "local"  # as in `ray.init(address="local")`
START_ATTEMPTS = 3  # another program may take a port between its choice and its use
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    base_url: str  # ends in /v1
    port: int
    api_key: str  # of the project "default"; the command line's own
    data: Path
    dashboard: str | None  # URL of Ray's dashboard
    was_up: bool  # it already ran; nothing was started


def up(
    settings: Settings,
    port: int,
    address: str | None = None,
    host: str = "127.0.0.1",
    num_cpus: float | None = None,
    application: str = APPLICATION,
) -> Running:
    """Start the service, or find it running, and return once it answers.

    `address`: an existing Ray cluster, of which this machine is a node, or "local" for one of its
    own with `num_cpus` logical CPUs (None: as many as the machine has). None: the cluster that
    this folder's service joined before, else an own one. `port` 0 takes a free one. Raises
    ClusterError; what was started until then is stopped.
    """
    data = settings.data.resolve()
    settings = settings.model_copy(update={"data": data})
    with _alone(data):
        record = read_record(data)
        if address is None and record is not None and record.joined:
            address = record.address
        if address == LOCAL:
            address = None
        if record is not None and _still_serves(record):
            return _running(record, settings, was_up=True)
        if record is not None and record.state != "stopped" and not _can_redeploy(record, address):
            record = _stop(record, data, grace_s=0.0)
        write_settings(settings)
        if record is None or record.state == "stopped":
            num_cpus = num_cpus or (record.num_cpus if record else None)
            record = _new_record(data, port, host, address, num_cpus)
        try:
            operator_key(settings)  # the store and its schema, before anything reads it
            record = _bring_up(record, settings, application)
        except BaseException:
            # An interrupt too: what cannot be used must not go on running.
            _stop(read_record(data) or record, data, grace_s=0.0)
            raise
        return _running(record, settings, was_up=False)


def down(data: Path, grace_s: float | None = None) -> bool:
    """Stop what `up` started on this data folder; False when nothing was running.

    Training jobs of the own cluster are asked to commit a checkpoint first and get `grace_s`
    seconds for it (None: the settings' `stop_grace_s`); jobs on a joined cluster go on. Raises
    ClusterError when a process cannot be ended.
    """
    data = data.resolve()
    if not data.exists():  # and is not made
        return False
    with _alone(data):
        record = read_record(data)
        if record is None or record.state == "stopped":
            return False
        settings = read_settings(data)
        _stop(record, data, settings.stop_grace_s if grace_s is None else grace_s)
        return True


def state(data: Path) -> tuple[Literal["up", "broken", "down"], Record | None]:
    """Whether the service of this folder answers, was started but does not answer, or is down."""
    record = read_record(data)
    if record is None or record.state == "stopped":
        return "down", record
    return ("up" if _still_serves(record, patience_s=5) else "broken"), record


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Only one `up` or `down` works on a data folder. Raises ClusterError for the second."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data / "service.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"another `ferrata up` or `ferrata down` is at work on {data}: wait for it"
            ) from None
        yield


def _new_record(
    data: Path, port: int, host: str, address: str | None, num_cpus: float | None
) -> Record:
    """Claim the port and write down that a service is being started."""
    port = port or ray_head.free_ports(1)[0]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if address is None:
                raise ClusterError(
                    f"port {port} on {host} cannot be used ({error.strerror}): choose another "
                    "with --port, or 0 for a free one"
                ) from error
    record = Record(
        state="starting",
        mark=secrets.token_hex(16),
        host=host,
        port=port,
        address=address,
        joined=address is not None,
        num_cpus=num_cpus,
    )
    return write_record(data, record)


def _bring_up(record: Record, settings: Settings, application: str) -> Record:
    """Start the cluster where there is none, deploy, wait for health; return the final record."""
    data = settings.data
    if record.address is None:
        record = _start_head(record, settings)
    run_driver("start", record, settings, application, DEPLOY_DEADLINE_S)
    _wait_for_health(record, data)
    record = read_record(data) or record
    news: dict[str, Any] = {"state": "running"}
    if record.head is not None:
        news["core"] = [record.head, *processes.children(record.head)]
        news["processes"] = processes.identify_all(processes.of_service(record.mark))
    return write_record(data, record.model_copy(update=news))


def _start_head(record: Record, settings: Settings) -> Record:
    """Start an own cluster, on other ports when another program took one of them first."""
    log = settings.data / "logs" / "ray-head.log"
    for attempt in range(1, START_ATTEMPTS + 1):
        folder = ray_head.new_ray_folder()
        record = write_record(settings.data, record.model_copy(update={"ray_folder": str(folder)}))
        env = ray_head.environment(settings, record.mark)
        head = ray_head.launch(env, folder, log, record.num_cpus)
        news = {"head": head.process, "address": head.address, "dashboard": head.dashboard}
        record = write_record(settings.data, record.model_copy(update=news))
        try:
            ray_head.wait_until_ready(head, log)
        except ClusterError as error:
            if attempt == START_ATTEMPTS:
                raise
            _LOG.warning("Starting Ray's head node again: %s", error)
            _end_processes(record)
            continue
        return record
    raise AssertionError("the last attempt returns or raises")


def _wait_for_health(record: Record, data: Path) -> None:
    deadline = time.monotonic() + HEALTH_DEADLINE_S
    answer = ask_health(record)
    while answer != "200":
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{record.root_url}/healthz did not answer 200 within {HEALTH_DEADLINE_S} s, last "
                f"answer: {answer}\n{tail(data / 'logs' / 'start.log')}"
            )
        time.sleep(0.5)
        answer = ask_health(record)


def _still_serves(record: Record, patience_s: float = 20) -> bool:
    """True when the recorded service answers; a part that Ray is replacing gets a while."""
    if record.state != "running" or not (record.joined or _lives(record)):
        return False
    deadline = time.monotonic() + patience_s
    while (answer := ask_health(record)) != "200" and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer == "200"


def _lives(record: Record) -> bool:
    """True when nothing of the own cluster's core has died: it then ends as a whole."""
    return bool(record.core) and all(processes.is_alive(process) for process in record.core)


def _can_redeploy(record: Record, address: str | None) -> bool:
    """True when the recorded cluster lives, so that only the application has to be set up anew."""
    if record.state != "running":
        return False
    if record.joined:
        return address == record.address and listens(address)
    return address is None and _lives(record)


def _running(record: Record, settings: Settings, *, was_up: bool) -> Running:
    key = operator_key(settings)
    return Running(record.base_url, record.port, key, settings.data, record.dashboard, was_up)


def _stop(record: Record, data: Path, grace_s: float) -> Record:
    """End what the record names, as far as it still lives; return the record that says so."""
    settings = read_settings(data)
    if not record.joined:
        _end_jobs(record, settings, grace_s)
        _end_processes(record)
    elif record.deployed and listens(record.address):
        run_driver("withdraw", record, settings, APPLICATION, WITHDRAW_DEADLINE_S)
    stopped = Record(
        state="stopped",
        mark=record.mark,
        host=record.host,
        port=record.port,
        address=record.address if record.joined else None,
        joined=record.joined,
        num_cpus=record.num_cpus,
    )
    return write_record(data, stopped)


def _end_jobs(record: Record, settings: Settings, grace_s: float) -> None:
    """Let training jobs finish their step and commit a checkpoint, within `grace_s` seconds."""
    drivers = processes.training_drivers(processes.of_service(record.mark, record.processes))
    if not drivers or grace_s <= 0 or not _lives(record):
        return
    try:  # without its manager nobody starts them again
        run_driver("withdraw", record, settings, APPLICATION, WITHDRAW_DEADLINE_S)
    except ClusterError as error:
        # The cluster is ended in any case: its jobs lose the steps since their last checkpoint.
        _LOG.warning("Ending a cluster that no longer answers: %s", error)
        return
    if left := processes.terminate(drivers, grace_s):
        _LOG.warning("%d jobs committed nothing within %g s", len(left), grace_s)


def _end_processes(record: Record) -> None:
    """Kill the own cluster and remove its folder. Raises ClusterError when a process is left."""
    known = [*record.processes, *([record.head] if record.head else [])]
    left = processes.kill_all(lambda: processes.of_service(record.mark, known), KILL_DEADLINE_S)
    if left:
        raise ClusterError(f"processes {left} could not be ended: end them by hand")
    if record.ray_folder is not None:
        shutil.rmtree(record.ray_folder, ignore_errors=True)
