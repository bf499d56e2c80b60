"""Answers on standard output with more, or with less, than anyone can read. The way is on stdin."""

import contextlib
import os
import resource
import sys
import threading
import time
import zlib

MIB = 1 << 20


def zeros():
    while True:
        os.write(1, bytes(MIB))


def both():
    threading.Thread(target=lambda: [os.write(2, b"\x1b[2J" * MIB) for _ in range(1_000)]).start()
    while True:
        os.write(1, "𐀀".encode()[:3] * MIB)


def sparse():
    fd = (
        os.memfd_create("blindattack")
        if not os.access(".", os.W_OK)
        else os.open("big", os.O_RDWR | os.O_CREAT)
    )
    for size in (1 << 40, 1 << 32, 1 << 28, 1 << 24):
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
            break
    while os.sendfile(1, fd, 0, 64 * MIB):
        pass


def bomb():
    layer = zlib.compress(bytes(256 * MIB), 9)
    held = []
    while True:
        held.append(zlib.decompress(layer))


def held_open():
    """Ends at once, while a child of another session keeps both ends of every pipe."""
    if not os.fork():
        os.setsid()
        time.sleep(60)
    os.write(1, b"answer-")
    os._exit(0)


def slow():
    """A byte before each time-out that counts from the last one."""
    while True:
        os.write(1, b".")
        time.sleep(0.1)


def closed():
    for fd in range(3):
        os.close(fd)
    for _ in range(3):
        os.open("/dev/null", os.O_RDWR)
    time.sleep(60)


def own_input():
    """Standard input once more: from its start, by its other names, and from its other end."""
    found = []
    for path in ("/dev/stdin", "/proc/self/fd/0", "/proc/1/fd/0", f"/proc/{os.getppid()}/fd/0"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            os.lseek(fd, 0, os.SEEK_SET)
            found.append(os.read(fd, MIB))
    with contextlib.suppress(OSError):
        os.write(0, b"answer-\n")
    os.write(1, b"".join(found))


def not_text():
    os.write(1, b"answer-\xff\xfe\x00\xed\xa0\x80\xf4\x90\x80\x80\r\n\x1a\x04")


def limits_lifted():
    for name in filter(lambda name: name.startswith("RLIMIT_"), dir(resource)):
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(getattr(resource, name))[1]
            resource.setrlimit(getattr(resource, name), (hard, hard))
    zeros()


WAYS = {
    way.__name__: way
    for way in (
        zeros,
        both,
        sparse,
        bomb,
        held_open,
        slow,
        closed,
        own_input,
        not_text,
        limits_lifted,
    )
}
WAYS[sys.stdin.readline().strip()]()
