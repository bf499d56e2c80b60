"""What the tests of `blind_attacks/` share: the judging, the host that is attacked, its state."""

import contextlib
import ctypes
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rollout.types import Problem, Rollout, Turn
from rollout.verifiers.code_tests import CodeTestsVerifier
from rollout.verifiers.python_grader import PythonGrader

PROGRAMS = Path(__file__).parent / "blind_attacks"
STRICT = CodeTestsVerifier(cpu_s=1.0, wall_s=2.0, memory_mb=256)
ROOMY = CodeTestsVerifier()
# The name that the attacks give their processes and files; as long as a process's name may be.
MARKER = f"blind{secrets.token_hex(5)}"
END_S = 20
IPC_CREAT_WRITABLE, IPC_RMID = 0o1666, 0

HONEST = """
import json, os, sys, threading, time

def total(numbers):
    started, found = time.monotonic(), []
    assert isinstance(numbers, list) and len(numbers) == 2
    workers = [threading.Thread(target=found.append, args=(number,)) for number in numbers]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    source, sink = os.pipe()
    os.write(sink, bytes(60_000))
    assert len(os.read(source, 60_000)) == 60_000
    with open("/tmp/own", "w") as file:
        file.write(json.dumps(sum(found)))
    assert time.monotonic() > started and bytearray(50 << 20)[-1] == 0
    return json.load(open("/tmp/own"))

if __name__ == "__main__" and (line := sys.stdin.readline()):
    print(total([int(word) for word in line.split()]))
"""
HONEST_TESTS = [
    {"function": "total", "args": [[2, 3]], "expected": 5},
    {"input": "2 3\n", "output": "5"},
]
HONEST_GRADER = "def grade(sample, item):\n    return len(sample['output_text']) / float(item)"


def text_of(*names: str) -> str:
    text = "\n".join((PROGRAMS / f"{name}.py").read_text() for name in names)
    return text.replace("blindattack", MARKER)


def rollout_of(text: str) -> Rollout:
    return Rollout("train:1", (Turn((), (), (), text, "end", ()),))


def judged(program: str, tests: list[dict[str, Any]], verifier: CodeTestsVerifier = STRICT):
    """The verdict on a program, as the training loop gets it."""
    problem = Problem("train:1", "", item={"unit_tests": tests})
    return verifier.verify(problem, rollout_of(f"```python\n{program}\n```"))


def reward(source: str, item: Any) -> float:
    """What a `python` grader gives to the sample "four"."""
    grader = PythonGrader(source=source)
    return grader.verify(Problem("train:1", "", item=item), rollout_of("four")).reward


def call(argument: Any, expected: Any) -> dict[str, Any]:
    return {"function": "solve", "args": [argument], "expected": expected}


def marked_processes() -> list[int]:
    """Processes of this machine, in whatever namespace, that carry the attacks' name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            names = {(process / "comm").read_text().strip()}
            names.add((process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace"))
            found += [int(process.name)] if MARKER in names else []
    return found


def settled() -> list[int]:
    """The marked processes that are still there when the host has had time to bury them."""
    end = time.monotonic() + END_S
    while (left := marked_processes()) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def disturbances() -> list[str]:
    """What no attack may have changed on the host."""
    folders = {Path.cwd(), Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"), Path.home()}  # noqa: S108
    names = (f"*{MARKER}*", "*blindtrace*", "core", "core.[0-9]*")
    found = [str(path) for folder in folders for name in names for path in folder.glob(name)]
    found += ["host name"] if "blind" in socket.gethostname() else []
    return found + [f"process {pid}" for pid in settled()]


class Host:
    """Offers `secret` by every route that an attack tries, and remembers who came."""

    def __init__(self, folder: Path) -> None:
        self.secret = f"answer-{secrets.token_hex(16)}"
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.shmat.restype = ctypes.c_void_p
        self.visits: list[str] = []
        self.servers: list[socket.socket] = []
        (folder / "secret").write_text(self.secret)
        key = secrets.randbelow(1 << 30) + 1
        self.shared_memory = self.libc.shmget(key, 4096, IPC_CREAT_WRITABLE)
        address = self.libc.shmat(self.shared_memory, None, 0)
        ctypes.memmove(address, self.secret.encode(), len(self.secret))
        self.libc.shmdt(ctypes.c_void_p(address))
        abstract = secrets.token_hex(8)
        self._listen(socket.AF_UNIX, f"\0{abstract}")
        self._listen(socket.AF_UNIX, str(folder / "s"))
        self.routes = {
            "path": str(folder / "secret"),
            "variable": "FERRATA_GRADER_BLIND",
            "port": self._listen(socket.AF_INET, ("127.0.0.1", 0))[1],
            "abstract": abstract,
            "socket_path": str(folder / "s"),
            "shared_memory_key": key,
        }

    def _listen(self, family: int, address: Any) -> Any:
        server = socket.socket(family)
        server.bind(address)
        server.listen()
        self.servers.append(server)

        def serve() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    connection, _ = server.accept()
                    self.visits.append(str(address))
                    with contextlib.suppress(OSError), connection:
                        connection.sendall(self.secret.encode())

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()

    def close(self) -> None:
        self.libc.shmctl(self.shared_memory, IPC_RMID, None)
        for server in self.servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # else its thread goes on waiting
            server.close()


def outside(program: str, *arguments: str, cwd: Path) -> str:
    """What a program prints where there is no sandbox."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout
