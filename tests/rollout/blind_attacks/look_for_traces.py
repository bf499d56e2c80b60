"""Not an attack: names what `leave_traces.py`, or any other program here, has left."""

import builtins
import contextlib
import ctypes
import os
import socket
import sys

KEY = 0x0B11D
SYS_REQUEST_KEY = {"x86_64": 249, "aarch64": 218}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)


def solve(question):
    found = []
    for root in (
        ".",
        "/tmp",
        "/var",
        "/dev",
        "/run",
        "/etc",
        "/home",
        "/root",
        "/mnt",
        os.path.dirname(os.__file__),
    ):
        for folder, _, names in os.walk(root):
            found += [
                os.path.join(folder, name)
                for name in names
                if "blind" in name or name == "usercustomize.py"
            ]
            with contextlib.suppress(OSError):
                found += [folder] if "user.blindtrace" in os.listxattr(folder) else []
    found += ["host name"] if "blind" in socket.gethostname() else []
    found += [get.__name__ for get in (libc.shmget, libc.semget) if get(KEY, 0, 0) >= 0]
    found += ["msgget"] if libc.msgget(KEY, 0) >= 0 else []
    found += ["key"] if libc.syscall(SYS_REQUEST_KEY, b"user", b"blindtrace", None, 0) >= 0 else []
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect("\0blindtrace")
        found.append("abstract socket")
    found += ["builtins"] if hasattr(builtins, "blindtrace") else []
    found += [name for name in (*sys.modules, *os.environ) if "blindtrace" in name.lower()]
    for name in range(1, 400):
        with contextlib.suppress(OSError), open(f"/proc/{name}/comm") as file:
            found += ["process"] if "blindattack" in file.read() else []
    umask = os.umask(0o22)
    found += ["umask"] if umask == 0o777 else []
    return sorted(found)
