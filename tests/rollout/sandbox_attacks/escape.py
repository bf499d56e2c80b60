"""Attacks that try to see, reach or change something outside the sandbox."""

from . import Attack

# One of our processes would answer on each of these with the secret.
_CONNECT = """
import socket
s = socket.socket(socket.{family}, socket.{type})
s.settimeout(1)
s.connect({address})
s.send(b"?")
print(s.recv(100).decode())
"""
_PARENT = "parent = os.getppid()\n"

ATTACKS = {
    "a-file-of-ours": Attack("print(open('@FILE@').read())", works_outside=True),
    "a-file-of-ours-through-proc": Attack(
        """
for pid in ("self", "1", str(os.getppid())):
    for path in (f"/proc/{pid}/root@FILE@", f"/proc/{pid}/cwd/../../../..@FILE@"):
        try: print(open(path).read())
        except OSError: pass
"""
    ),
    "a-file-of-ours-through-a-symlink": Attack(
        "os.symlink('@FILE@', 'link')\nprint(open('link').read())", works_outside=True
    ),
    "a-file-of-ours-through-a-hard-link": Attack(
        "os.link('@FILE@', '@FILE@.link')\nprint(open('@FILE@.link').read())\n"
        "os.unlink('@FILE@.link')",
        works_outside=True,
    ),
    "files-by-walking": Attack(
        """
for folder, _, files in os.walk("/"):
    for name in files:
        try:
            if "@FILENAME@" in name: print(open(os.path.join(folder, name)).read())
        except OSError: pass
"""
    ),
    "files-by-handle": Attack(
        """
handle = ctypes.create_string_buffer(200)
ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint))[0] = 128
mount = ctypes.c_int()
if kernel(303, 264, -100, b"/", handle, ctypes.byref(mount), 0) == 0: print("@SECRET@")
"""
    ),
    "passwords": Attack(
        "if 'root' in open('/etc/passwd').read(): print('@SECRET@')", works_outside=True
    ),
    "the-harness-source": Attack(
        """
for path in ("/harness/harness.py", "/harness/confine.py"):
    if open(path).read(): print("@SECRET@")
"""
    ),
    "our-environment": Attack("print(os.environ['FERRATA_TEST_SECRET'])", works_outside=True),
    "environments-in-proc": Attack(
        """
for pid in os.listdir("/proc"):
    try:
        for part in open(f"/proc/{pid}/environ", "rb").read().split(b"\\0"):
            if part.startswith(b"FERRATA_TEST_SECRET="):
                print(part.partition(b"=")[2].decode()); sys.exit()
    except OSError: pass
""",
        works_outside=True,
    ),
    "command-lines-in-proc": Attack(
        """
for pid in os.listdir("/proc"):
    try:
        command = open(f"/proc/{pid}/cmdline", "rb").read()
        if b"@VICTIM@" in command: print("@SECRET@"); break
    except OSError: pass
""",
        works_outside=True,
    ),
    "memory-of-process-1": Attack("open('/proc/1/mem', 'rb').read(1)\nprint('@SECRET@')"),
    "tcp": Attack(
        _CONNECT.format(family="AF_INET", type="SOCK_STREAM", address='("127.0.0.1", @TCP@)'),
        works_outside=True,
    ),
    "udp": Attack(
        _CONNECT.format(family="AF_INET", type="SOCK_DGRAM", address='("127.0.0.1", @UDP@)'),
        works_outside=True,
    ),
    "unix-socket": Attack(
        _CONNECT.format(family="AF_UNIX", type="SOCK_STREAM", address='"@UNIX@"'),
        works_outside=True,
    ),
    "abstract-socket": Attack(
        _CONNECT.format(family="AF_UNIX", type="SOCK_STREAM", address='"\\x00@ABSTRACT@"'),
        works_outside=True,
    ),
    "raw-socket": Attack(
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nprint('@SECRET@')"
    ),
    "packet-socket": Attack(
        "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint('@SECRET@')"
    ),
    "netlink": Attack(
        "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nprint('@SECRET@')",
        works_outside=True,
    ),
    "vsock": Attack(
        "import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\nprint('@SECRET@')"
    ),
    "dns": Attack(
        "import socket\nif socket.getaddrinfo('localhost', 80): print('@SECRET@')",
        works_outside=True,
    ),
    "a-listening-socket": Attack(
        "import socket\nsocket.create_server(('', 0))\nprint('@SECRET@')", works_outside=True
    ),
    "writes-outside": Attack(
        """
for folder in ("/", "/etc", "/python", "/python/lib", "/harness", "/dev", "/proc", "@FOLDER@",
               "/lib", "/usr", "/root", "/var/tmp", "/dev/shm", "/sys", *filter(None, sys.path)):
    try:
        with open(os.path.join(folder, "@MARKER@"), "w") as file: file.write("x")
        print("@SECRET@")
    except OSError: pass
"""
    ),
    "writes-to-kernel-settings": Attack(
        """
for path in ("/proc/sys/kernel/hostname", "/proc/self/oom_score_adj", "/proc/sysrq-trigger",
             "/sys/kernel/mm/ksm/run", "/proc/1/oom_score_adj"):
    try: open(path, "w").write("0"); print("@SECRET@")
    except OSError: pass
"""
    ),
    "becoming-root": Attack("os.setuid(0)\nprint('@SECRET@')"),
    "becoming-another-group": Attack("os.setgroups([0])\nprint('@SECRET@')"),
    "new-user-namespace": Attack("if kernel(272, 97, 0x10000000) == 0: print('@SECRET@')"),
    "new-namespace-by-clone": Attack(
        """
pid = kernel(56, 220, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
if pid > 0: print("@SECRET@")
"""
    ),
    "new-namespace-by-clone3": Attack(
        """
args = (ctypes.c_ulonglong * 11)(0x10000000)
pid = kernel(435, 435, args, 88)
if pid == 0: os._exit(0)
if pid > 0: print("@SECRET@")
"""
    ),
    "another-process-namespace": Attack(
        "fd = os.open('/proc/1/ns/mnt', os.O_RDONLY)\n"
        "if kernel(308, 268, fd, 0) == 0: print('@SECRET@')"
    ),
    "mount": Attack(
        "if kernel(165, 40, b'none', b'/tmp', b'tmpfs', 0, None) == 0: print('@SECRET@')"
    ),
    "remount-writable": Attack(
        "if kernel(165, 40, None, b'/python', None, 0x1020, None) == 0: print('@SECRET@')"
    ),
    "unmount": Attack("if kernel(166, 39, b'/tmp', 2) == 0: print('@SECRET@')"),
    "chroot": Attack("os.mkdir('r')\nos.chroot('r')\nprint('@SECRET@')"),
    "device-node": Attack(
        "import stat\nos.mknod('mem', stat.S_IFCHR | 0o600, os.makedev(1, 1))\nprint('@SECRET@')"
    ),
    "set-user-id-file": Attack(
        """
import shutil, stat
shutil.copy(sys.executable or "/python/bin/python3", "x")
os.chmod("x", 0o4755)
os.execv("./x", ["x", "-S", "-c", "import os; os.geteuid() != os.getuid() and print('@SECRET@')"])
"""
    ),
    "program-in-a-memory-file": Attack(
        """
fd = kernel(319, 279, b"x", 0)
if fd >= 0: print("@SECRET@")
"""
    ),
    "ptrace-of-the-harness": Attack(
        _PARENT + "if kernel(101, 117, 16, parent, 0, 0) == 0: print('@SECRET@')"
    ),
    "memory-of-the-harness": Attack(
        _PARENT
        + """
import struct
target = ctypes.create_string_buffer(16)
local = struct.pack("QQ", ctypes.addressof(target), 16)
remote = struct.pack("QQ", id(os), 16)
if kernel(310, 270, parent, local, 1, remote, 1, 0) > 0: print("@SECRET@")
"""
    ),
    "descriptors-of-the-harness": Attack(
        _PARENT
        + """
pidfd = os.pidfd_open(parent)
for fd in range(256):
    if kernel(438, 438, pidfd, fd, 0) >= 0: print("@SECRET@"); break
"""
    ),
    "limits-of-the-harness": Attack(
        _PARENT + "import resource\nresource.prlimit(parent, resource.RLIMIT_CPU, (0, 0))\n"
        "print('@SECRET@')"
    ),
    "priority-of-the-harness": Attack(
        _PARENT + "os.setpriority(os.PRIO_PROCESS, parent, 19)\nprint('@SECRET@')"
    ),
    "signals-to-the-harness": Attack(
        _PARENT
        + """
import time
for number in range(1, 65):
    try: os.kill(parent, number)
    except OSError: pass
time.sleep(0.2)
while True: pass
""",
        limit="cpu",
    ),
    "kill-everything": Attack(
        "try: os.kill(-1, 9)\nexcept OSError: pass\nwhile True: pass", limit="cpu"
    ),
    "kill-a-process-of-ours": Attack(
        "import signal\nos.kill(@VICTIM_PID@, signal.SIGTERM)\nprint('@SECRET@')"
    ),
    "terminal-input": Attack(
        """
import fcntl
for fd in range(4):
    try: fcntl.ioctl(fd, 0x5412, b"x"); print("@SECRET@")
    except OSError: pass
"""
    ),
    "clock": Attack("import time\ntime.clock_settime(0, time.time())\nprint('@SECRET@')"),
    "host-name": Attack("import socket\nsocket.sethostname('x')\nprint('@SECRET@')"),
    "bpf": Attack("if kernel(321, 280, 0, bytes(128), 128) >= 0: print('@SECRET@')"),
    "io-uring": Attack(
        "if kernel(425, 425, 4, ctypes.create_string_buffer(120)) >= 0: print('@SECRET@')"
    ),
    "userfaultfd": Attack("if kernel(323, 282, 1) >= 0: print('@SECRET@')"),
    "kernel-log": Attack(
        "if kernel(103, 116, 3, ctypes.create_string_buffer(99), 99) >= 0: print('@SECRET@')"
    ),
    "system-calls-of-another-architecture": Attack(
        """
import mmap
assert os.uname().machine == "x86_64"
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
                 | mmap.PROT_EXEC)
page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 20; int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0: print("@SECRET@")
""",
    ),
    "system-calls-of-the-x32-table": Attack(
        "if _libc.syscall(0x40000000 + 39) > 0: print('@SECRET@')"
    ),
}
