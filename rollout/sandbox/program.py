"""The process of one call: confines itself, then runs the untrusted program.

It is forked from `harness.py` inside the sandbox and never returns into it. What it writes to its
report pipe is the program's word: a program may forge it, and gains no more than by returning the
forged value. Standard library only.
"""

import _signal as signal  # pyright: ignore[reportMissingImports]  (signal loads enum)
import _sitebuiltins
import atexit
import builtins
import os
import sys

import confine

LIMIT_OF_ERRNO = {
    28: "disk",
    27: "disk",
    122: "disk",
    12: "memory",
}  # ENOSPC, EFBIG, EDQUOT, ENOMEM
RLIMITS = ("memory_bytes", "cpu_s", "processes", "file_bytes", "descriptors")
SECCOMP = confine.seccomp_filter(os.uname().machine)


def add_site_builtins() -> None:
    """Give programs `exit` and `quit`, which the interpreter lacks without its site module."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))


def child(
    program: str, call: dict, limits: dict, ruleset: int, descriptors: list[int], tmp: str
) -> None:
    """In the call's own process: confine it, run the program, never return."""
    code = 70
    try:
        os.setsid()
        if ruleset >= 0:
            confine.enter_landlock(ruleset)
        for target, descriptor in enumerate(descriptors):  # all lie above 4
            os.dup2(descriptor, target)
        os.closerange(5, confine.MAX_DESCRIPTORS)
        folder = f"{tmp}/work"
        os.mkdir(folder)
        os.chdir(folder)
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        if limits["num_cpus"] is not None:
            confine.bind_to_cpus(limits["num_cpus"])
        confine.set_rlimits(**{name: limits[name] for name in RLIMITS})
        confine.install_seccomp(SECCOMP)
        os.write(4, b"+")
        os.close(4)
        code = run_program(program, call)
    except BaseException as error:  # nothing may return into the harness
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def run_program(program: str, call: dict) -> int:
    """Execute the program and, for a function call, report what it returned; the exit code."""
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = open(descriptor, mode, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    is_function = call["kind"] == "function"
    module = type(sys)("solution" if is_function else "__main__")
    sys.modules[module.__name__] = module
    sys.argv = ["solution.py"]
    code, process = 0, os.getpid()  # children of the program come back here, too
    try:
        exec(compile(program, "solution.py", "exec"), module.__dict__)  # noqa: S102
        if is_function:
            function = getattr(module, call["function"])
            import json  # loaded by the harness already

            value = json.dumps(function(*call["args"], **call["kwargs"]), allow_nan=False)
            if os.getpid() == process:
                report(f'{{"value": {value}}}')
    except SystemExit as error:
        code = exit_code(error)
    except BaseException as error:  # whatever an untrusted program raises is its result
        if (limit := limit_of(error)) and os.getpid() == process:
            report(f'{{"limit": "{limit}"}}')
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def report(text: str) -> None:
    """Write to the report pipe."""
    rest = memoryview(text.encode("utf-8", "surrogatepass"))
    while rest:
        rest = rest[os.write(3, rest) :]


def exit_code(error: SystemExit) -> int:
    """What the interpreter would exit with."""
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def limit_of(error: BaseException) -> str | None:
    """The limit behind an exception that ended the program."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, BlockingIOError):
        return "processes"  # fork answers EAGAIN
    return LIMIT_OF_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None
