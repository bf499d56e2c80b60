"""Dies by every fault, with as large a core file as it may write, and asks the kernel for more."""

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import sys

PR_SET_DUMPABLE = 4
libc = ctypes.CDLL(None)


def ask_for_core():
    libc.prctl(PR_SET_DUMPABLE, 1)
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    with contextlib.suppress(OSError):
        os.chdir("/tmp")


def deep(value=None):
    class Deep:
        def __repr__(self):
            return repr([self])

        def __eq__(self, other):
            return self == other

    sys.setrecursionlimit(2**31 - 1)
    return repr(Deep())


def bus():
    with open("/tmp/blindattack", "w+b") as file:
        file.write(bytes(8192))
        file.flush()
        view = mmap.mmap(file.fileno(), 8192)
        file.truncate(0)
        return view[5000]


def corrupted():
    """Overwrites the small integers and the list type, for whatever runs next in here."""
    for number in range(-5, 257):
        ctypes.memset(id(number) + 24, 7, 4)
    ctypes.memset(id(list) + 24, 255, 64)
    return [len([1, 2]) + 1]


def stolen_references():
    while True:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(None))
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(sys._getframe(1).f_globals))


WAYS = {
    "null": lambda: ctypes.string_at(0),
    "deep": deep,
    "bus": bus,
    "corrupted": corrupted,
    "stolen_references": stolen_references,
    "abort": os.abort,
    "trap": lambda: os.kill(os.getpid(), signal.SIGTRAP),
    "illegal": lambda: os.kill(os.getpid(), signal.SIGILL),
    "no_standard_streams": lambda: [os.close(fd) for fd in range(256) if fd != 255],
    "exec": lambda: os.execv("/proc/self/exe", ["python", "-c", "print('answer-')"]),
}


def solve(way):
    ask_for_core()
    WAYS[way]()
    return "answer-"
