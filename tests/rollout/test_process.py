"""A pool of processes returns values, kills what overruns, and is whole afterwards."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from rollout.verifiers.process import (
    MEMORY_LIMIT_BYTES,
    CallOverrunError,
    ProcessError,
    ProcessPool,
)

HERE = str(Path(__file__).parent)
TARGET = "process_targets:work"


@pytest.fixture
def pool(monkeypatch):
    """A pool of one process and its spare."""
    monkeypatch.syspath_prepend(HERE)
    pool = ProcessPool(TARGET, size=1)
    pool.call("warm up", 30)
    yield pool
    pids = pool.pids()
    pool.close()
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    """True while a process with this id exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_value_comes_back_from_the_same_process_each_time(pool):
    first, second = pool.call([1, {"a": None}], 5), pool.call("x", 5)
    assert (first["echo"], second["echo"]) == ([1, {"a": None}], "x")
    assert first["pid"] in pool.pids()


@pytest.mark.parametrize(("what", "stage"), [("hang", "hanging"), ("hold", "holding")])
def test_a_call_that_overruns_is_killed_in_time_and_the_pool_is_whole_after(pool, what, stage):
    for _ in range(4):
        started_s = time.monotonic()
        with pytest.raises(CallOverrunError) as caught:
            pool.call(what, 2)
        assert time.monotonic() - started_s < 2 * 1.2
        assert caught.value.stage == stage
    assert len(pool.pids()) == 2
    assert pool.call("still here", 2)["echo"] == "still here"


def test_a_call_that_sleeps_overruns_too_and_has_marked_no_stage(pool):
    with pytest.raises(CallOverrunError) as caught:
        pool.call("sleep", 0.5)
    assert caught.value.stage is None


def test_too_much_memory_is_an_overrun(pool):
    with pytest.raises(CallOverrunError, match=f"{MEMORY_LIMIT_BYTES} bytes"):
        pool.call("memory", 5)


def test_a_process_that_dies_is_replaced_and_the_call_repeated_once(pool, tmp_path):
    assert pool.call({"exit_unless": str(tmp_path / "seen")}, 5) == "second time"
    with pytest.raises(ProcessError, match="died twice: code 3"):
        pool.call("exit", 5)
    assert pool.call("x", 5)["echo"] == "x"


def test_a_function_that_raises_is_an_error_that_says_what(pool):
    with pytest.raises(ProcessError, match="KeyError: 'x'"):
        pool.call("raise", 5)


def test_an_idle_process_that_was_killed_is_noticed_before_it_gets_work(pool):
    for worker in list(pool._idle):
        worker._process.kill()
        worker._process.wait()
    assert pool.call("x", 30)["echo"] == "x"


def test_the_child_sees_no_keys_and_its_prints_do_no_harm(pool, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    with pytest.raises(CallOverrunError):
        pool.call("sleep", 0.1)  # the next children start with the key set
    with pytest.raises(CallOverrunError):
        pool.call("sleep", 0.1)
    assert "SOME_API_KEY" not in pool.call("environment", 30)
    assert pool.call("print", 5)["echo"] == "print"


def test_several_threads_share_a_pool_without_mixing_their_answers(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    pool = ProcessPool(TARGET, size=2)
    wrong = []

    def ask(name):
        wrong.extend(n for n in range(20) if pool.call([name, n], 30)["echo"] != [name, n])

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(pool.pids()) <= 3
    pool.close()


def test_a_target_that_cannot_be_imported_is_an_error_and_no_wait():
    pool = ProcessPool("no_such_module:f", size=1)
    with pytest.raises(ProcessError, match="before it was ready"):
        pool.call("x", 5)
    pool.close()


def test_a_parent_with_hard_limits_of_its_own_has_a_pool_that_works():
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from rollout.verifiers.process import ProcessPool\n"
        f"pool = ProcessPool({TARGET!r}, size=1)\n"
        "print(pool.call('limits', 200))\n"
        "pool.close()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{HERE!r}, {str(ROOT)!r}]\n{code}"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    # Both of them just below the hard limits, since 100 s and 1 GiB are less than the pool's own.
    assert json.loads(found.stdout) == [[99, 100], [2**30 - 1, 2**30]]


@pytest.mark.parametrize("what", ["idle", "hang", "hold"])
def test_no_child_outlives_a_parent_that_was_killed(what):
    code = (
        "import threading, time\n"
        "from rollout.verifiers.process import ProcessPool\n"
        f"pool = ProcessPool({TARGET!r}, size=1)\n"
        "print(pool.call('x', 30)['pid'], *pool.pids(), flush=True)\n"
        f"threading.Thread(target=pool.call, args=({what!r}, 3)).start()\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{HERE!r}, {str(ROOT)!r}]\n{code}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) >= 2
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60  # the kernel counts processor time, not the clock
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, pids))
