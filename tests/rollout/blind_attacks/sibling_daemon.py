"""Leaves children behind by every way out of a process group, holding every descriptor open.

Among them siblings (`CLONE_PARENT`): they belong to the harness, not to the program. All ignore
every signal that can be ignored, all are called `blindattack`, and all go on to write to
whatever they inherited, so that the next program's answer might be theirs.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time

CLONE_PARENT, CLONE_NEWPID, CLONE_NEWUSER = 0x8000, 0x20000000, 0x10000000
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
LIFE_S = 60
HIGHEST_PID = 400  # in a sandbox
libc = ctypes.CDLL(None, use_errno=True)


def live_on():
    libc.prctl(PR_SET_PDEATHSIG, 0)
    libc.prctl(PR_SET_NAME, b"blindattack")
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    end = time.monotonic() + LIFE_S
    while time.monotonic() < end:
        for fd in range(64):
            with contextlib.suppress(OSError):
                os.set_blocking(fd, False)
                os.write(fd, b'{"passed": true, "value": "answer-"}\n')
        time.sleep(0.2)
    os._exit(0)


def twice_forked():
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        live_on()


def own_group():
    if not os.fork():
        os.setpgid(0, 0)
        live_on()


def sibling(flags):
    if libc.syscall(SYS_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os.setsid()
        live_on()


def hare():
    """Never the same process for long: whoever lists processes, to kill them, comes too late."""
    if os.getpid() > HIGHEST_PID or os.fork():
        return
    libc.prctl(PR_SET_NAME, b"blindattack")
    end = time.monotonic() + LIFE_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if os.fork() or os.fork():
                os._exit(0)
            os.setsid()
    os._exit(0)


def from_memory():
    """The interpreter again, from a file that has no name, in a session of its own."""
    fd = os.memfd_create("blindattack", 0)
    with open(sys.executable, "rb") as program:
        os.write(fd, program.read())
    if not os.fork():
        os.setsid()
        os.execve(fd, ["blindattack", "-c", f"import time; time.sleep({LIFE_S})"], dict(os.environ))


WAYS = {
    "twice_forked": twice_forked,
    "own_group": own_group,
    "sibling": lambda: sibling(CLONE_PARENT),
    "namespace": lambda: sibling(CLONE_NEWUSER | CLONE_NEWPID),
    "hare": hare,
    "from_memory": from_memory,
}


def solve(way):
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    with contextlib.suppress(OSError):
        WAYS[way]()
    if way == "from_memory":
        os.kill(os.getpid(), signal.SIGKILL)
    return "answer-"
