"""Services are started and stopped for real: own clusters, a joined one, and half dead ones."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from conftest import ROOT

from serve_app import cluster, processes, ray_head
from serve_app.cluster import down, state, up
from serve_app.deploy import APP_NAME, APPLICATION
from serve_app.record import ClusterError, ProcessId, Record, read_record, write_record
from serve_app.settings import Settings

HERE = Path(__file__).parent
TINY, NOTHING = "tiny_app:build", "tiny_app:build_nothing"
DEADLINE_S = 300
PRIVATE = ("service.json", "settings.json", "operator.key", "ray.token")


@pytest.fixture(autouse=True)
def tiny_apps_can_be_imported(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))


def start(data: Path, **options):
    """`up` of the tiny application on a free port, with two CPUs."""
    options = {"port": 0, "num_cpus": 2, "application": TINY} | options
    return up(Settings(data=data), **options)


def ask(running) -> dict:
    """What the running service says of itself."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.get(running.base_url.replace("/v1", "/healthz")).json()


def record_of(data: Path) -> Record:
    record = read_record(data)
    assert record is not None
    return record


def left_of(record: Record) -> list[str]:
    return [" ".join(p.cmdline()) for p in processes.of_service(record.mark, record.processes)]


def test_two_services_side_by_side_are_stopped_one_at_a_time_and_started_again(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        first, second = start(one), start(two)
        assert (ask(first)["data"], ask(second)["data"]) == (str(one), str(two))
        assert first.base_url != second.base_url and first.api_key != second.api_key
        assert [(one / name).stat().st_mode & 0o777 for name in PRIVATE] == [0o600] * len(PRIVATE)
        before = record_of(one)
        assert any("gcs_server" in command for command in left_of(before))

        again = start(one)
        assert again.was_up and (again.base_url, again.api_key) == (first.base_url, first.api_key)
        assert record_of(one) == before

        assert down(one) and not down(one)
        assert (state(one)[0], state(two)[0]) == ("down", "up")
        assert left_of(before) == [] and not Path(str(before.ray_folder)).exists()
        assert ask(second)["data"] == str(two) and bystander.poll() is None

        port = int(first.base_url.split(":")[2].split("/")[0])
        back = start(one, port=port)
        assert not back.was_up
        assert (back.base_url, back.api_key) == (first.base_url, first.api_key)
    finally:
        bystander.kill()
        bystander.wait()
        down(one)
        down(two)


def test_up_and_down_cope_with_a_service_of_which_half_was_killed(tmp_path):
    try:
        first = start(tmp_path)
        replica = int(ask(first)["pid"])
        os.kill(replica, signal.SIGKILL)  # Ray replaces it: the service is still up
        assert start(tmp_path).was_up and int(ask(first)["pid"]) != replica

        before = record_of(tmp_path)
        half = [
            p for p in processes.of_service(before.mark) if p.name() in {"gcs_server", "raylet"}
        ]
        assert len(half) == 2
        for process in half:
            process.kill()
        psutil.wait_procs(half, timeout=DEADLINE_S)
        second = start(tmp_path)
        assert not second.was_up and second.api_key == first.api_key
        assert ask(second)["data"] == str(tmp_path)
        assert left_of(before) == []

        now = record_of(tmp_path)
        os.kill(now.head.pid, signal.SIGKILL)
        assert down(tmp_path)
        assert left_of(now) == [] and state(tmp_path)[0] == "down"
    finally:
        down(tmp_path)


def test_an_up_that_was_killed_in_the_middle_is_cleaned_by_down(tmp_path):
    code = (
        "import sys; from pathlib import Path; from serve_app.cluster import up\n"
        "from serve_app.settings import Settings\n"
        f"up(Settings(data=Path(sys.argv[1])), 0, num_cpus=1, application={TINY!r})"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + DEADLINE_S
    while not (record := read_record(tmp_path)) or record.head is None:
        assert time.monotonic() < deadline and starter.poll() is None
        time.sleep(0.05)
    starter.kill()
    starter.wait()
    assert left_of(record) != [] and state(tmp_path)[0] == "broken"
    assert down(tmp_path)
    assert left_of(record) == [] and not Path(str(record.ray_folder)).exists()


def test_a_watched_service_comes_back_and_ends_with_its_watcher(tmp_path):
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from serve_app.cluster import up; from serve_app.watch import watch\n"
        "from serve_app.settings import Settings\n"
        "data = Path(sys.argv[1])\n"
        f"start = partial(up, Settings(data=data), 0, num_cpus=1, application={TINY!r})\n"
        "start(); print('up', flush=True); watch(data, start)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            assert watcher.stdout.readline() == "up\n"
            before = record_of(tmp_path)
            os.kill(before.head.pid, signal.SIGKILL)
            deadline = time.monotonic() + DEADLINE_S
            while record_of(tmp_path).mark == before.mark or state(tmp_path)[0] != "up":
                assert time.monotonic() < deadline and watcher.poll() is None
                time.sleep(0.5)
            watcher.terminate()
            assert watcher.wait(timeout=DEADLINE_S) == 0
            assert state(tmp_path)[0] == "down"
        finally:
            watcher.kill()
            down(tmp_path)


def test_an_application_that_cannot_be_built_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(ClusterError, match="no application for ferrata"):
        start(tmp_path, application=NOTHING)
    assert state(tmp_path)[0] == "down" and left_of(record_of(tmp_path)) == []


def test_a_joined_cluster_stays_and_runs_one_service_only(tmp_path):
    host = Settings(data=tmp_path / "host")
    folder, log = ray_head.new_ray_folder(), tmp_path / "head.log"
    head = ray_head.launch(ray_head.environment(host, "a-host"), folder, log, 2)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": (host.data / "ray.token").read_text(),
    }
    one, two = tmp_path / "one", tmp_path / "two"
    try:
        ray_head.wait_until_ready(head, log)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            running = start(one, address=head.address)
            assert ask(running)["data"] == str(one)
            with pytest.raises(ClusterError, match="already runs another service"):
                start(two, address=head.address)
            assert state(two)[0] == "down" and ask(running)["data"] == str(one)
            assert down(one) and state(one)[0] == "down"
            assert processes.is_alive(head.process)
            with pytest.raises(httpx.ConnectError):
                ask(running)
            back = start(one, port=int(running.base_url.split(":")[2].split("/")[0]))
            assert record_of(one).joined and ask(back)["data"] == str(one)
            assert down(one)
    finally:
        processes.kill_all(lambda: processes.of_service("a-host", [head.process]), 30)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ClusterError, match=r"port \d+ on 127.0.0.1 cannot be used"):
            start(tmp_path, port=taken.getsockname()[1])
    assert read_record(tmp_path) is None


def test_a_process_with_a_recorded_number_but_another_start_is_never_touched(tmp_path):
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        started = psutil.Process(bystander.pid).create_time()
        other = ProcessId(pid=bystander.pid, started=started - 1)
        assert processes.is_alive(ProcessId(pid=bystander.pid, started=started))
        assert not processes.is_alive(other)
        record = Record(
            state="running", mark="gone", host="127.0.0.1", port=1, head=other, processes=[other]
        )
        write_record(tmp_path, record)
        assert down(tmp_path) and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_serve_file_describes_this_application():
    from ray.serve.schema import ServeDeploySchema

    raw = yaml.safe_load((ROOT / "examples" / "serve.yaml").read_text(encoding="utf-8"))
    (application,) = ServeDeploySchema.model_validate(raw).applications
    assert (application.name, application.import_path) == (APP_NAME, APPLICATION)
    assert Settings.model_validate(application.args).data == Path("/shared/ferrata")


def test_two_ups_at_once_on_one_folder_are_refused(tmp_path):
    with cluster._alone(tmp_path), pytest.raises(ClusterError, match="is at work"):
        down(tmp_path)


def test_relative_search_paths_reach_the_cluster_as_absolute_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "tests")
    monkeypatch.chdir(ROOT)
    env = ray_head.environment(Settings(data=tmp_path), "m")
    assert env["PYTHONPATH"] == str(ROOT / "tests")
    assert "RAY_AUTH_TOKEN" not in env
    assert json.dumps(env).count((tmp_path / "ray.token").read_text()) == 0
