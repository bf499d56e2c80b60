"""Leaves something in every place that might still be there for the next program.

`look_for_traces.py` looks in the same places.
"""

import contextlib
import ctypes
import fcntl
import os
import site
import socket
import sys
import time

KEY = 0x0B11D
SYS_ADD_KEY = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
POISON = "import builtins\nbuiltins.blindtrace = True\n"
MODULES = ("json", "usercustomize", "sitecustomize", "math", "solution", "typing", "encodings")
libc = ctypes.CDLL(None, use_errno=True)


def folders():
    yield from sys.path
    yield from (
        ".",
        "/",
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/dev",
        "/run",
        "/etc",
        "/home",
        "/root",
        "/mnt",
    )
    yield from (os.path.expanduser("~"), site.getusersitepackages(), os.path.dirname(os.__file__))
    yield from (str(value) for value in os.environ.values() if str(value).startswith("/"))


def in_files():
    for folder in folders():
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            for name in (*(f"{module}.py" for module in MODULES), "blindtrace", "blindtrace.pth"):
                path = os.path.join(folder, name)
                if not os.path.exists(path):
                    with open(path, "w") as file:
                        file.write(POISON)
        with contextlib.suppress(OSError):
            os.setxattr(folder, "user.blindtrace", b"1")


def in_kernel():
    libc.sethostname(b"blindtrace", 10)
    for create in (libc.shmget, libc.semget, libc.msgget):
        create(KEY, *((0o1666,) if create is libc.msgget else (1, 0o1666)))
    for ring in (-1, -2, -3, -4, -5):
        libc.syscall(SYS_ADD_KEY, b"user", b"blindtrace", b"1", 1, ring)
    with contextlib.suppress(AttributeError):
        libc.mq_open(b"/blindtrace", os.O_CREAT | os.O_RDWR, 0o666, None)
    os.umask(0o777)


def in_rights():
    for folder in folders():
        with contextlib.suppress(OSError):
            os.chmod(folder, 0)


def in_sockets():
    if os.fork():
        return
    os.setsid()
    server = socket.socket(socket.AF_UNIX)
    server.bind("\0blindtrace")
    server.listen()
    time.sleep(60)
    os._exit(0)


def in_descriptors():
    """Hands an open file to whoever reads the other end of an inherited socket."""
    fd = os.memfd_create("blindtrace")
    os.write(fd, POISON.encode())
    fcntl.flock(fd, fcntl.LOCK_EX)
    for number in range(64):
        with contextlib.suppress(OSError, ValueError):
            channel = socket.socket(fileno=os.dup(number))
            channel.setblocking(False)
            socket.send_fds(channel, [b"\n"], [fd])


def in_interpreter():
    import builtins

    builtins.blindtrace = True
    os.environ |= {"PYTHONSTARTUP": "/tmp/blindtrace", "BLINDTRACE": "1", "PYTHONPATH": "/tmp"}
    sys.path.insert(0, "/tmp")
    sys.modules["blindtrace"] = sys
    sys.setrecursionlimit(60)


def solve(question):
    if os.getpid() > 400:
        raise SystemExit("this is no sandbox, and would not survive it")
    for leave in (in_kernel, in_sockets, in_descriptors, in_files, in_interpreter, in_rights):
        with contextlib.suppress(OSError):
            leave()
    return "answer-"
