"""What a process inside the sandbox gives up: root, capabilities, system calls, files.

Runs inside the sandbox only, on the standard library and ctypes; `harness.py` calls it. Namespaces
and mounts are bubblewrap's part (`launch.py`). seccomp and Landlock are installed by plain system
calls through ctypes; the numbers below are the kernel's stable ones for the two architectures.
"""

import ctypes
import errno
import os
import resource
import struct

MAX_DESCRIPTORS = 256
NOBODY = 65534  # the only user id that exists inside the sandbox
LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FIRST_UNKNOWN = 451  # newer system calls than this file knows answer "not implemented"

# name: (x86_64, aarch64); None where the architecture has no such call
_DENIED: dict[str, tuple[int, int | None]] = {
    # other processes' memory, descriptors and scheduling
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # sockets; socketpair stays, asyncio needs it
    "socket": (41, 198), "bind": (49, 200), "connect": (42, 203), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    # memory that no process's limits count, and objects that outlive a process
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # parts of the kernel that no program here needs, and that exploits like
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "inotify_init1": (294, 26),
    "inotify_init": (253, None), "personality": (135, 92), "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    # the machine
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "syslog": (103, 116), "vhangup": (153, 58),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
_CLONE, _PRLIMIT64, _MMAP, _IOCTL, _CLONE3 = (56, 220), (302, 261), (9, 222), (16, 29), (435, 435)
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x7E020000
_MAP_SHARED_ANONYMOUS = 0x21  # pages that stay allocated though no process has them resident
_TIOCSTI = 0x5412
_RET_ALLOW, _RET_KILL, _RET_ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER, _CLONE_NEWUSER = 38, 2, 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
# Landlock's rights: execute 0, write 1, read 2, list 3, remove 4-5, make 6-12 (character and block
# devices 6 and 11), refer 13, truncate 14. Nothing written can be executed.
_READ = 1 << 0 | 1 << 2 | 1 << 3
_WRITE_DEVICE = 1 << 1 | 1 << 2 | 1 << 14
_WRITE_TREE = sum(1 << right for right in (1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14))

_libc = ctypes.CDLL(None, use_errno=True)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _check(result: int, what: str) -> int:
    """Return `result`, or raise OSError when the call named `what` failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(what: str, option: int, *args: int) -> None:
    _check(_libc.prctl(option, *(ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4])), what)


def leave_root(uid: int) -> None:
    """Become the unprivileged `uid`, in a user namespace that knows only NOBODY.

    Root is exempt from the limit on processes, and a file of root's is a file of ours.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # /proc/self belongs to root unless the process is dumpable
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 1)
    _check(_libc.unshare(_CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {uid} 1"),
        ("gid_map", f"{NOBODY} {uid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def drop_privileges() -> None:
    """Give up every capability, for this process and all it starts; hide it from its children."""
    for capability in range(64):
        # fails where the capability does not exist, or without CAP_SETPCAP (bwrap dropped it)
        _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 0)
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, 9)


def limit_descriptors() -> None:
    """No descriptor of this process or its children will be MAX_DESCRIPTORS or above."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))


def bind_to_cpus(num_cpus: int) -> None:
    """Run on `num_cpus` CPUs only, neighbours drawn at random, for good."""
    cpus = sorted(os.sched_getaffinity(0))
    first = int.from_bytes(os.urandom(4), "big") % len(cpus)
    os.sched_setaffinity(0, (cpus[first:] + cpus[:first])[:num_cpus])


def set_rlimits(
    *, memory_bytes: int, cpu_s: float, processes: int, file_bytes: int, descriptors: int
) -> None:
    """Set this process's resource limits, for good."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: int(cpu_s) + 1,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: descriptors,
        resource.RLIMIT_STACK: min(64 << 20, memory_bytes // 4),
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    for which, limit in limits.items():
        hard = resource.getrlimit(which)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (bound, bound))


def seccomp_filter(machine: str) -> bytes:
    """The filter program for `machine`: the calls above fail with EPERM, the rest passes."""
    column = list(_AUDIT_ARCH).index(machine)
    lines: list[tuple[int, int, int, int]] = []

    def emit(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        lines.append((code, if_true, if_false, value))

    def load(offset: int) -> None:
        emit(0x20, offset)

    def answer(value: int) -> None:
        emit(0x06, value)

    denied = _RET_ERRNO | errno.EPERM
    load(4)
    emit(0x15, _AUDIT_ARCH[machine], if_true=1)
    answer(_RET_KILL)
    load(0)
    emit(0x35, _FIRST_UNKNOWN, if_false=1)  # the x32 calls lie above, too
    answer(_RET_ERRNO | errno.ENOSYS)
    emit(0x15, _CLONE3[column], if_false=1)  # its flags lie in memory; libc falls back to clone
    answer(_RET_ERRNO | errno.ENOSYS)
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            emit(0x15, number, if_false=1)
            answer(denied)
    emit(0x15, _CLONE[column], if_false=4)
    load(16)
    emit(0x45, _NEW_NAMESPACES, if_false=1)
    answer(denied)
    answer(_RET_ALLOW)
    emit(0x15, _PRLIMIT64[column], if_false=4)
    load(16)
    emit(0x15, 0, if_true=1)  # only one's own limits
    answer(denied)
    answer(_RET_ALLOW)
    emit(0x15, _MMAP[column], if_false=5)
    load(16 + 3 * 8)
    emit(0x54, _MAP_SHARED_ANONYMOUS)
    emit(0x15, _MAP_SHARED_ANONYMOUS, if_false=1)
    answer(denied)
    answer(_RET_ALLOW)
    emit(0x15, _IOCTL[column], if_false=4)
    load(16 + 8)
    emit(0x15, _TIOCSTI, if_false=1)
    answer(denied)
    answer(_RET_ALLOW)
    answer(_RET_ALLOW)
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def install_seccomp(program: bytes) -> None:
    """Bind this process, and all it starts, to `program`. Needs `drop_privileges` before."""
    buffer = ctypes.create_string_buffer(program)
    fprog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    result = _libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(fprog), 0, 0
    )
    _check(result, "PR_SET_SECCOMP")


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where it has none."""
    return max(0, _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def landlock_ruleset(abi: int, readable: list[str], writable: str) -> int:
    """A ruleset's descriptor: `readable` to read and run, `writable` to write, nothing else.

    From version 6 on, signals and abstract sockets to processes outside are denied as well.
    """
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", handled, 0b11, 0b11)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(
        _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0), "landlock ruleset"
    )
    rules = {**dict.fromkeys(readable, _READ), writable: _WRITE_TREE}
    rules |= {"/dev/null": _WRITE_DEVICE, "/dev/urandom": 1 << 2}
    for path, rights in rules.items():
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights & handled, parent)
        _check(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), f"landlock {path}")
        os.close(parent)
    return ruleset


def enter_landlock(ruleset: int) -> None:
    """Bind this process, and all it starts, to `ruleset`."""
    _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
