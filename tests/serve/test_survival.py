"""A whole service is killed in every part while a job runs: the job succeeds, and nothing is lost.

One job per kind of store, real in all parts; a client watches it all the time.
"""

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from conftest import ROOT, free_port

from serve_app import processes
from serve_app.cluster import LOCAL, Running, down, up
from serve_app.record import Record, ray_token_file, read_record
from serve_app.secrets import SecretBox
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.tables import Project
from train.checkpoint import MANIFEST

QUICKSTART = ROOT / "examples" / "quickstart"
SECRET = "hf_value_that_must_stand_nowhere"  # noqa: S105 (made up)
STEPS = 60  # more than are done while the API comes back after a kill
DEADLINE_S = 600


@pytest.fixture(autouse=True)
def workers_find_this_code(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class Client:
    """Watches a job as a patient user does, and holds what it was told against what comes later."""

    def __init__(self, running: Running) -> None:
        headers = {"Authorization": f"Bearer {running.api_key}"}
        self.http = httpx.Client(
            base_url=running.base_url, headers=headers, timeout=30, trust_env=False
        )
        self.job_id = ""
        self.progress = 0.0
        self.told: list[tuple[str, int]] = []  # every event's id and time, oldest first
        self.failures: list[str] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def upload(self, name: str, rows: int) -> str:
        lines = (QUICKSTART / f"{name}.jsonl").read_text().splitlines(keepends=True)[:rows]
        file = (f"{name}.jsonl", "".join(lines))
        answer = self.http.post("/files", files={"file": file}, data={"purpose": "fine-tune"})
        return self._json(answer)["id"]

    def create(self) -> str:
        """A job of a few steps, which commits each of them."""
        body = {
            "model": "ferrata-tiny",
            "training_file": self.upload("train", 200),
            "validation_file": self.upload("valid", 8),
            "heldout_file": self.upload("heldout", 8),
            "method": {
                "type": "reinforcement",
                "reinforcement": {"grader": {"type": "answer", "pattern": r"=(\d{4})$"}},
            },
            "seed": 1,
            "srl": {"max_steps": STEPS, "groups_per_step": 8, "group_size": 8, "save_interval": 1},
            "rlvr": None,
            "prompt": {"system": None},
            "sampling": {"max_tokens": 24, "max_turns": 8},
            "evaluation": {"pass_k": 1},
            "resources": {"max_model_len": 256, "kv_cache_gib": 0.25, "num_verifiers": 1},
        }
        self.job_id = self._json(self.http.post("/fine_tuning/jobs", json=body))["id"]
        self._thread.start()
        return self.job_id

    def job(self) -> dict[str, Any]:
        return self._json(self.http.get(f"/fine_tuning/jobs/{self.job_id}"))

    def events(self) -> list[dict[str, Any]]:
        """Every event, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            params: dict[str, Any] = {"limit": 100}
            if found:
                params["after"] = found[-1]["id"]
            url = f"/fine_tuning/jobs/{self.job_id}/events"
            page = self._json(self.http.get(url, params=params))
            found += page["data"]
            if not page["has_more"]:
                return found[::-1]

    def stop(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        self.http.close()

    def _json(self, answer: httpx.Response) -> Any:
        answer.raise_for_status()
        return answer.json()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            try:
                job, events = self.job(), self.events()
            except httpx.HTTPError:
                continue  # the service is dead this moment; what it told before must stay true
            if job["progress"] < self.progress:
                self.failures.append(f"progress fell to {job['progress']} from {self.progress}")
            told = [(event["id"], event["created_at"]) for event in events]
            known = [event_id for event_id, _ in self.told]
            if [event_id for event_id, _ in told][: len(known)] != known:
                self.failures.append(f"events that were told are gone or moved: {events}")
            self.progress, self.told = job["progress"], told


class Machine:
    """The service's processes, and the means to end them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.port = settings, free_port()

    def up(self) -> Running:
        return up(self.settings, port=self.port, address=LOCAL, num_cpus=2)

    @property
    def record(self) -> Record:
        record = read_record(self.settings.data)
        assert record is not None
        return record

    def find(self, words: str) -> list[psutil.Process]:
        found = []
        for process in processes.of_service(self.record.mark, self.record.processes):
            try:
                if words in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self, words: str) -> None:
        """kill -9 to every process of this title; there must be one."""
        found = self.find(words)
        assert found, f"no process {words!r}"
        for process in found:
            os.kill(process.pid, signal.SIGKILL)


def wait_for(what: str, holds: Callable[[], Any]) -> Any:
    """Wait until it holds; an HTTP error means not yet."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            if found := holds():
                return found
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.3)


@pytest.fixture
def machine(store_url, tmp_path) -> Iterator[Machine]:
    data = tmp_path / "data"
    machine = Machine(Settings(data=data, store=store_url, max_chat_engines=0))
    yield machine
    down(data, grace_s=0)


def set_secret(settings: Settings) -> None:
    database = Database(settings.store_url)
    with database.read() as session:
        project = session.query(Project).filter_by(name="default").one()
    SecretBox(settings, database).set(project.id, "HF_TOKEN", SECRET)
    database.close()


def steps_of(client: Client) -> list[int]:
    return [e["data"]["step"] for e in client.events() if e["type"] == "metrics"]


@pytest.mark.slow
def test_a_job_outlives_every_part_of_the_service_and_nothing_that_was_told_is_lost(machine):
    client = Client(machine.up())
    set_secret(machine.settings)
    job_id = client.create()
    try:
        wait_for("the first step", lambda: steps_of(client))
        assert_the_secret_is_nowhere_else(machine, job_id)

        replica, manager = machine.find("ray::ServeReplica:ferrata:API"), manager_of(machine)
        machine.kill("ray::ServeReplica:ferrata:API")
        machine.kill("ray::ManagerActor")
        done = len(wait_for("the API", lambda: steps_of(client)))
        wait_for("a step after the kills", lambda: len(steps_of(client)) > done)
        assert {p.pid for p in manager_of(machine)}.isdisjoint(p.pid for p in manager)
        assert {p.pid for p in machine.find("ray::ServeReplica:ferrata:API")}.isdisjoint(
            p.pid for p in replica
        )

        machine.kill(f"-m train --spec {machine.settings.job_folder(job_id)}")
        done = len(steps_of(client))
        wait_for("a step of the second attempt", lambda: len(steps_of(client)) > done)

        down(machine.settings.data, grace_s=0)
        machine.up()
        job = wait_for("the end", lambda: (j := client.job())["finished_at"] and j)
        client.stop()
        assert client.failures == []
    finally:
        client.stop()
    assert (job["status"], job["error"], job["progress"]) == ("succeeded", None, 1.0)
    check_story(machine, job)


def manager_of(machine: Machine) -> list[psutil.Process]:
    return machine.find("ray::ManagerActor")


def assert_the_secret_is_nowhere_else(machine: Machine, job_id: str) -> None:
    """The dashboard, Ray's logs and the data folder show it nowhere but in the job's own file."""
    token = ray_token_file(machine.settings.data).read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{machine.record.dashboard}/api/jobs/"
    with httpx.Client(trust_env=False, timeout=30) as http:
        jobs = http.get(url, headers=headers).text
    assert job_id in jobs
    assert SECRET not in jobs
    folders = [str(machine.record.ray_folder), str(machine.settings.data)]
    found = subprocess.run(
        ["grep", "-rlI", SECRET, *folders], capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == [str(machine.settings.job_folder(job_id) / "secrets.json")]


def check_story(machine: Machine, job: dict[str, Any]) -> None:
    """What the store holds at the end."""
    client = Client(machine.up())
    client.job_id = job["id"]
    events = client.events()
    assert [e["data"]["step"] for e in events if e["type"] == "metrics"] == list(
        range(1, STEPS + 1)
    ), "each step once, in order"
    attempts = [e["message"] for e in events if e["message"].startswith("Attempt")]
    kinds = [m.split(" runs as")[0].split(" ended:")[0] for m in attempts]
    assert kinds == ["Attempt 1", "Attempt 1", "Attempt 2", "Attempt 2", "Attempt 3"]
    messages = [e["message"] for e in events]
    doubled = [m for m, n in itertools.groupby(sorted(messages)) if len(list(n)) > 1]
    assert [m for m in doubled if m.startswith(("Step", "Checkpoint", "Held-out", "Created"))] == []
    (file_id,) = job["result_files"]
    table = client.http.get(f"/files/{file_id}/content").text
    assert len(table.splitlines()) == STEPS + 1
    names = {model["id"] for model in client.http.get("/models").json()["data"]}
    assert job["fine_tuned_model"] in names
    folder = machine.settings.job_folder(job["id"])
    assert not (folder / "secrets.json").exists()
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["base", "srl"]
    checkpoints = client.http.get(f"/fine_tuning/jobs/{job['id']}/checkpoints").json()["data"]
    assert checkpoints[0]["step_number"] == STEPS
    whole = [path.parent.name for path in Path(folder / "out").rglob(MANIFEST)]
    assert {f"step-{c['step_number']:06d}" for c in checkpoints} == set(whole)
    client.stop()
