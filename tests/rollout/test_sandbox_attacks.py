"""Attack programs against the sandbox: none scores, none outlives its run, honest work goes on.

The programs are in `sandbox_attacks/`. Each test's expected result is a secret that a program can
only print or return when its attack has worked.
"""

import contextlib
import dataclasses
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_attacks import PROLOGUE, Attack, escape, resources, verdicts

from rollout.sandbox import Limits, SandboxPool, Session
from rollout.verifiers.code_tests import FunctionTest, StdinTest

MEGABYTE = 1 << 20
LIMITS = Limits(
    cpu_s=1.0, wall_s=2.0, memory_bytes=256 * MEGABYTE, group_memory_bytes=300 * MEGABYTE
)
ATTACKS = {**resources.ATTACKS, **escape.ATTACKS, **verdicts.ATTACKS}
REAL = {name: attack for name, attack in ATTACKS.items() if attack.works_outside}
HONEST = "a, b = map(int, input().split())\nprint(a + b)\n"


class Targets:
    """What attacks are aimed at: files, sockets, an environment and a process with `secret`."""

    def __init__(self, folder: Path) -> None:
        self.secret = f"TOP-{secrets.token_hex(16)}"
        self.file = folder / f"canary-{secrets.token_hex(4)}"
        self.file.write_text(self.secret)
        victim = secrets.token_hex(8)
        environment = {"FERRATA_TEST_SECRET": self.secret}
        sleep = [sys.executable, "-c", "import time; time.sleep(600)", victim]
        self.victim = subprocess.Popen(sleep, env=environment)
        abstract = secrets.token_hex(8)
        self.words = {
            "FILE": str(self.file),
            "FILENAME": self.file.name,
            "FOLDER": str(folder),
            "VICTIM": victim,
            "VICTIM_PID": str(self.victim.pid),
            "UNIX": str(folder / "s"),
            "ABSTRACT": abstract,
            "TCP": self._listen(socket.AF_INET, ("127.0.0.1", 0))[1],
            "UDP": self._answer(("127.0.0.1", 0))[1],
        }
        self._listen(socket.AF_UNIX, self.words["UNIX"])
        self._listen(socket.AF_UNIX, f"\0{abstract}")

    def _listen(self, family: int, address: object) -> object:
        server = socket.socket(family, socket.SOCK_STREAM)
        server.bind(address)
        server.listen()

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                connection.recv(100)
                connection.sendall(self.secret.encode())
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()

    def _answer(self, address: object) -> object:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(address)

        def serve() -> None:
            while True:
                _, peer = server.recvfrom(100)
                server.sendto(self.secret.encode(), peer)

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()

    def program(self, text: str, marker: str) -> str:
        """A program with its words filled in; its processes carry `marker` as their name."""
        words = {**self.words, "SECRET": self.secret, "MARKER": marker, "GUESS": "TOP-0"}
        text = PROLOGUE + text
        for name, value in words.items():
            text = text.replace(f"@{name}@", str(value))
        return text


@pytest.fixture(scope="module")
def targets() -> Iterator[Targets]:
    # A folder that every user of this machine may enter: only the sandbox is in the way.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        targets = Targets(Path(folder))
        os.environ["FERRATA_TEST_SECRET"] = targets.secret
        yield targets
        del os.environ["FERRATA_TEST_SECRET"]
        targets.victim.kill()
        targets.victim.wait()


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(limits=LIMITS) as pool:
        yield pool


def processes_left(marker: str, pid_namespaces: list[int | None]) -> list[str]:
    """Threads of this machine that carry the marker, or live in a namespace of the run."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            names = [path.read_text().strip() for path in process.glob("task/*/comm")]
            namespace = (process / "ns/pid").stat().st_ino
            if marker in names or namespace in pid_namespaces:
                left.append(f"{process.name} {names}")
    return left


def attempt(session: Session, attack: Attack, secret: str):
    """Run the attack; (whether it scored, its result)."""
    if attack.function:
        test = FunctionTest(function="f", expected=secret)
    else:
        test = StdinTest(input="1 2\n", output=secret)
    result = session.run(test.call())
    return test.passes(result), result


def honest_program_scores(pool: SandboxPool) -> bool:
    test = StdinTest(input="2 3\n", output="5")
    with pool.open(HONEST, Limits()) as session:
        return test.passes(session.run(test.call()))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_neither_scores_nor_outlives_its_run(name, pool, targets):
    if name == "the-harness-source" and "no Landlock" in pool.protections:
        pytest.skip("readable where the kernel has no Landlock; it holds no secret")
    attack, marker = ATTACKS[name], f"fr{secrets.token_hex(6)}"
    # on a loaded machine a program gets little CPU: then its other limits come late
    limits = LIMITS
    if attack.limit not in (None, "wall"):
        limits = dataclasses.replace(LIMITS, wall_s=60.0)
    with pool.open(targets.program(attack.program, marker), limits) as session:
        scored, result = attempt(session, attack, targets.secret)
    assert not scored, result
    assert targets.secret not in result.stdout, result
    assert processes_left(marker, session.pid_namespaces) == []
    if attack.limit is not None:
        assert result.limit == attack.limit, result
    if attack.then is not None:
        follower = Attack(attack.then)
        with pool.open(targets.program(attack.then, marker)) as session:
            scored, result = attempt(session, follower, targets.secret)
        assert not scored, result
        assert processes_left(marker, session.pid_namespaces) == []
    assert honest_program_scores(pool)
    assert targets.victim.poll() is None
    assert not list(targets.file.parent.glob(f"{marker}*"))


@pytest.mark.parametrize("name", REAL)
def test_without_a_sandbox_the_attack_works(name, targets, tmp_path):
    program = targets.program(REAL[name].program, "control")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == targets.secret, done.stderr


def test_honest_programs_score_while_attacks_run(pool, targets):
    bombs = ("fork-bomb-that-goes-on-after-failures", "memory-in-many-processes", "disk")

    def attack(name: str) -> None:
        with pool.open(targets.program(ATTACKS[name].program, "frbomb")) as session:
            attempt(session, ATTACKS[name], targets.secret)

    threads = [threading.Thread(target=attack, args=(name,)) for name in bombs]
    for thread in threads:
        thread.start()
    scores = []
    deadline_s = time.monotonic() + 60
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline_s:
        scores.append(honest_program_scores(pool))
    for thread in threads:
        thread.join()
    assert len(scores) > 1
    assert all(scores)


def test_there_are_at_least_forty_attacks():
    assert len(ATTACKS) >= 40
    assert len(REAL) >= 10
