"""The sandbox: honest programs, and limits by name."""

from collections.abc import Iterator

import pytest
from sandbox_run import LIMITS, run

from rollout.sandbox import (
    FunctionCall,
    NotStrictJSONError,
    SandboxPool,
    StdinCall,
    parse_strictly,
    same_json,
)


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(limits=LIMITS) as pool:
        yield pool


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
