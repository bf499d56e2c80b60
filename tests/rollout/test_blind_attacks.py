"""Attacks written from the graders' documentation alone, run through the real graders.

Each module of `blind_attacks/` is one attack, most of them in several ways. Expected results are
secrets, so a program scores only when its attack has worked. Those that only read, or whose
processes the test can end, are shown to work where there is no sandbox.
"""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blind_host import (
    END_S,
    HONEST,
    HONEST_GRADER,
    HONEST_TESTS,
    PROGRAMS,
    ROOMY,
    Host,
    call,
    disturbances,
    judged,
    marked_processes,
    outside,
    reward,
    settled,
    text_of,
)

from rollout.verifiers.python_grader import PythonGrader, PythonGraderError

WAYS = {
    "lying_returns": (
        "object text whole real mapping endless very_long_integer nested raw_nested "
        "raw_nested_closed raw_long_integer raw_not_finite raw_not_text raw_nothing raw_lines "
        "surrogate key_surrogate itself huge wide bytes class awaitable"
    ),
    "poisoned_runtime": (
        "words functions serialiser codec built_ins tracer exits operating_system"
    ),
    "sibling_daemon": "twice_forked own_group sibling namespace hare from_memory",
    "starve_parent": (
        "limits priorities stop kill polite stop_everyone kill_everyone signal_at_next_message "
        "shared_descriptors overwrite_memory traced"
    ),
    "flood": ("zeros both sparse bomb held_open slow closed own_input not_text limits_lifted"),
    "crash": (
        "null deep bus corrupted stolen_references abort trap illegal no_standard_streams exec"
    ),
    "crowd": (
        "processes threads pipe_pages descriptors_in_flight watches pending_signals memory "
        "stampede folders"
    ),
    "relay": "once",
    "frame_doubler": "once",
    "memory_search": "answer-" + "a" * 32,
}
CASES = [(name, way) for name, ways in WAYS.items() for way in ways.split()]

# A judge as one writes it first: in the program's own interpreter.
NAIVE_JUDGE = """
import json, sys
program, way, expected = sys.argv[1:]
scope = {"__name__": "solution"}
exec(open(program).read(), scope)
passed = scope["solve"](way) == expected
print(json.dumps({"passed": passed}))
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    # A folder that every user of this machine may enter: only the sandbox is in the way.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        host = Host(Path(folder))
        os.environ[host.routes["variable"]] = host.secret
        yield host
        del os.environ[host.routes["variable"]]
        host.close()


@pytest.mark.parametrize(("name", "way"), CASES, ids=[f"{name}-{way:.24}" for name, way in CASES])
def test_no_attack_scores_stays_or_hurts_the_next_program(name: str, way: str):
    secret = f"answer-{secrets.token_hex(16)}"
    tests = [{"input": f"{way}\n", "output": secret}] if name == "flood" else [call(way, secret)]
    assert judged(text_of(name), tests).reward == 0.0
    assert judged(HONEST, HONEST_TESTS, ROOMY).reward == 1.0
    assert disturbances() == []


def test_a_message_sent_twice_and_altered_is_not_the_next_tests_answer():
    tests = [call("first", "mine"), call("second", "yours"), call("third", "mine")]
    assert judged(text_of("frame_doubler"), tests).reward == 0.0
    assert judged(HONEST, HONEST_TESTS, ROOMY).reward == 1.0


@pytest.mark.parametrize("way", ["processes", "pipe_pages", "memory", "stampede"])
def test_an_honest_program_scores_beside_one_that_takes_all_it_can(way: str):
    verdicts = []
    attack = threading.Thread(
        target=lambda: verdicts.append(judged(text_of("crowd"), [call(way, "answer-")]))
    )
    attack.start()
    while attack.is_alive():
        assert judged(HONEST, HONEST_TESTS, ROOMY).reward == 1.0
    assert [verdict.reward for verdict in verdicts] == [0.0]


def test_nothing_that_a_program_leaves_is_there_for_the_next_one():
    assert judged(text_of("leave_traces"), [call("", "answer-")], ROOMY).reward == 1.0
    assert judged(text_of("look_for_traces"), [call("", [])], ROOMY).reward == 1.0
    assert disturbances() == []


def test_nothing_that_a_program_leaves_is_there_for_its_own_next_test():
    both = text_of("leave_traces") + "\nleave = solve\n" + text_of("look_for_traces")
    tests = [{"function": "leave", "args": [""], "expected": "answer-"}, call("", [])]
    assert judged(both, tests, ROOMY).reward == 1.0


def test_traces_are_found_where_they_have_been_left():
    both = text_of("leave_traces", "look_for_traces")
    both += """
find = solve
def solve(names):
    in_interpreter()
    in_files()
    return [name in find("") for name in names]
"""
    names = ["builtins", "BLINDTRACE", "/tmp/blindtrace"]  # noqa: S108
    assert judged(both, [call(names, [True] * 3)], ROOMY).reward == 1.0


def test_the_hosts_secret_is_out_of_reach(host: Host):
    host.visits.clear()
    assert judged(text_of("reach_host"), [call(host.routes, host.secret)], ROOMY).reward == 0.0
    assert judged(text_of("reach_host"), [call(host.routes, "nothing")], ROOMY).reward == 1.0
    assert host.visits == []
    assert judged(HONEST, HONEST_TESTS, ROOMY).reward == 1.0


@pytest.mark.parametrize(
    "source", ["read_files", "read_environments", "read_sockets", "read_shared_memory"]
)
def test_without_a_sandbox_the_secret_is_found_by_each_route(
    host: Host, source: str, tmp_path: Path
):
    program = text_of("reach_host")
    program += f"\nfor text in {source}({host.routes!r}):\n"
    program += "    if text.startswith(b'answer-'):\n        print(text.decode()); break\n"
    assert outside(program, cwd=tmp_path).strip("\0\n") == host.secret


@pytest.mark.parametrize(
    ("name", "way"),
    [("lying_returns", "text"), ("poisoned_runtime", "serialiser"), ("memory_search", "")],
)
def test_a_judge_in_the_programs_own_interpreter_is_fooled(name: str, way: str, tmp_path: Path):
    arguments = (str(PROGRAMS / f"{name}.py"), way, f"answer-{secrets.token_hex(16)}")
    assert '"passed": true' in outside(NAIVE_JUDGE, *arguments, cwd=tmp_path)


@pytest.mark.parametrize("way", ["twice_forked", "own_group", "sibling"])
def test_without_a_sandbox_its_daemons_stay(way: str):
    program = text_of("sibling_daemon") + f"\nsolve({way!r})"
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
    try:
        end = time.monotonic() + END_S
        while not (left := marked_processes()) and time.monotonic() < end:
            time.sleep(0.02)
        assert left
    finally:
        for pid in marked_processes():
            os.kill(pid, 9)
            with contextlib.suppress(ChildProcessError):  # only the sibling is ours
                os.waitpid(pid, 0)
    assert settled() == []


PARSER_BOMBS = {
    "brackets": "(" * 60_000,
    "signs": "x = " + "-" * 60_000 + "1",
    "attributes": "x = a" + ".b" * 40_000,
    "constant": "x = ((1 << 10000) << 10000) ** 9999",
    "surrogate": "x = '\ud800'",
    "nul": "x = 1\0",
    "cookie": "# coding: rot13",
}


@pytest.mark.parametrize("bomb", PARSER_BOMBS)
def test_a_text_that_breaks_a_compiler_is_a_wrong_program(bomb: str):
    program = f"{PARSER_BOMBS[bomb]}\ndef solve(question):\n    return question\n"
    assert judged(program, [call("", "answer-")]).reward == 0.0
    assert judged(HONEST, HONEST_TESTS, ROOMY).reward == 1.0


@pytest.mark.parametrize("bomb", ["brackets", "signs", "attributes", "surrogate", "nul"])
def test_a_grader_that_breaks_a_compiler_is_refused(bomb: str):
    with pytest.raises(ValueError, match="is no Python program"):
        PythonGrader(source=f"{PARSER_BOMBS[bomb]}\ndef grade(sample, item):\n    return 1.0\n")


def test_a_grader_gets_nothing_out(host: Host):
    host.visits.clear()
    assert reward(text_of("grader_calls_home"), host.routes) == 0.0
    assert host.visits == []
    assert reward(HONEST_GRADER, 8) == 0.5


@pytest.mark.parametrize("source", ["keys()", "packets({port})", "the_service()"])
def test_without_a_sandbox_a_grader_gets_something_out(host: Host, source: str, tmp_path: Path):
    program = text_of("grader_calls_home")
    program += f"\nprint(len(list({source.format(**host.routes)})))"
    assert int(outside(program, cwd=tmp_path)) > 0


@pytest.mark.parametrize(
    "answer",
    ["bribe", "not_a_number", "infinite", "long", "text", "true", "complex", "nothing", "mapping"],
)
def test_a_grader_that_poisons_its_interpreter_has_no_verdict(answer: str):
    with pytest.raises(PythonGraderError):
        reward(text_of("grader_poisons_next"), {"answer": answer})
    assert reward(HONEST_GRADER, 8) == 0.5
    assert disturbances() == []


@pytest.mark.parametrize("answer", ["exit", "kill"])
def test_a_grader_that_ends_itself_does_not_answer_for_the_next_one(answer: str):
    with contextlib.suppress(PythonGraderError):  # its own report is its own to write
        reward(text_of("grader_poisons_next"), {"answer": answer})
    assert reward(HONEST_GRADER, 8) == 0.5
    assert disturbances() == []
