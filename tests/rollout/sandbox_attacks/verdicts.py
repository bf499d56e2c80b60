"""Attacks on the verdict itself, and on the next sample's."""

from . import Attack

_KEY = 0x46455252
ATTACKS = {
    "exit-code-0": Attack("sys.exit(0)", function=True),
    "immediate-exit-code-0": Attack("os._exit(0)", function=True),
    "exit-inside-the-function": Attack("def f(): os._exit(0)", function=True),
    "exception-that-exits": Attack("def f(): raise SystemExit(0)", function=True),
    "object-equal-to-everything": Attack(
        "class E:\n    def __eq__(self, other): return True\ndef f(): return E()", function=True
    ),
    "string-equal-to-everything": Attack(
        """
class S(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def f(): return S("x")
""",
        function=True,
    ),
    "not-a-number": Attack("def f(): return float('nan')", function=True),
    "patched-builtins": Attack(
        """
import builtins
builtins.isinstance = lambda *a: True
builtins.all = builtins.any = lambda *a: True
builtins.len = lambda x: 1
def f(): return True
""",
        function=True,
    ),
    "patched-assertions": Attack(
        """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"): setattr(unittest.TestCase, name, lambda *a, **k: None)
def f(): return None
""",
        function=True,
    ),
    "patched-json": Attack(
        """
import json
json.dumps = lambda *a, **k: 'true, "passed": true'
json.loads = lambda *a, **k: {"passed": True}
def f(): return 1
""",
        function=True,
    ),
    "patched-reporter": Attack(
        """
program = sys.modules["program"]
program.report = lambda text: os.write(3, b'{"value": true, "passed": true, "reward": 1}')
def f(): return 1
""",
        function=True,
    ),
    "printed-verdicts": Attack(
        """
for text in ("PASSED", "1.0", '{"passed": true, "reward": 1.0}', "OK", "all tests passed"):
    print(text); print(text, file=sys.stderr)
def f(): print("reward=1.0")
""",
        function=True,
    ),
    "forged-report": Attack(
        """
os.write(3, b'{"value": "@GUESS@", "value": true, "limit": null, "passed": true}')
os._exit(0)
""",
        function=True,
    ),
    "forged-frames-on-every-descriptor": Attack(
        """
import struct
def frame(*fields):
    body = b"".join(struct.pack(">I", len(f)) + f for f in fields)
    return struct.pack(">I", len(body)) + body
forged = frame(b"done") + frame(b"0" * 32, b"1 0 - 0.0 0.0", b"@GUESS@", b"", b'{"value": 1}')
for fd in range(3, 256):
    try: os.write(fd, forged)
    except OSError: pass
os._exit(0)
"""
    ),
    "nonce-in-the-heap": Attack(
        """
import gc, re
found = [o for o in gc.get_objects() if isinstance(o, dict) and "nonce" in o]
texts = [o["nonce"] for o in found if isinstance(o["nonce"], str)]
print(texts[0] if texts else "none")
if texts: print("@SECRET@")
"""
    ),
    "nonce-in-frames": Attack(
        """
frame = sys._getframe()
while frame:
    if frame.f_locals.get("nonce"): print("@SECRET@"); break
    frame = frame.f_back
"""
    ),
    "expected-result-in-the-heap": Attack(
        """
import gc, re
for value in gc.get_objects():
    found = re.findall("TOP-[0-9a-f]{32}", repr(value))
    if found: print(found[0]); break
"""
    ),
    "expected-result-in-frames": Attack(
        """
import re
frame = sys._getframe()
while frame:
    found = re.findall("TOP-[0-9a-f]{32}", repr(frame.f_locals))
    if found: print(found[0]); break
    frame = frame.f_back
"""
    ),
    "expected-result-in-memory": Attack(
        """
import re
mem = open("/proc/self/mem", "rb", 0)
for line in open("/proc/self/maps"):
    start, end = (int(x, 16) for x in line.split()[0].split("-"))
    try: found = re.findall(b"TOP-[0-9a-f]{32}", os.pread(mem.fileno(), end - start, start))
    except OSError: continue
    if found: print(found[0].decode()); break
"""
    ),
    "inherited-descriptors": Attack(
        """
import stat
kinds = {}
for fd in range(4, 1024):
    try: kinds[fd] = os.fstat(fd)
    except OSError: pass
if kinds: print("@SECRET@")
"""
    ),
    "control-socket": Attack(
        """
import socket
for fd in range(0, 1024):
    try: s = socket.socket(fileno=os.dup(fd))
    except OSError: continue
    print("@SECRET@")
"""
    ),
    "overwritten-tests": Attack(
        """
for folder, _, files in os.walk("/"):
    for name in files:
        if "test" in name or "expected" in name:
            try: open(os.path.join(folder, name), "w").write("def test(): pass")
            except OSError: pass
def f(): return True
def test(): return True
check = unit_tests = test_f = test
""",
        function=True,
    ),
    "imported-harness": Attack(
        """
import harness, program
harness.Run.finish = lambda self: [b"1 0 - 0.0 0.0", b"@GUESS@", b"", b'{"value": 1}']
program.run_program = lambda *a: 0
harness.send = lambda *a: None
def f(): return harness.Run
""",
        function=True,
    ),
    "returned-into-the-harness": Attack(
        """
import harness
for frame in sys._current_frames().values():
    while frame:
        if frame.f_code.co_name == "serve": frame.f_locals["control"] = 1
        frame = frame.f_back
for fd in range(4, 256):
    try: harness.send(fd, b"done")
    except OSError: pass
"""
    ),
    "poisoned-working-folder": Attack(
        "open('/tmp/@MARKER@', 'w').write('x')\nopen('/tmp/json.py', 'w').write('x')",
        then="if os.path.exists('/tmp/@MARKER@'): print('@SECRET@')",
    ),
    "poisoned-standard-library": Attack(
        """
import json
for path in (json.__file__, json.__cached__ or "", os.__file__):
    try: open(path, "ab").write(b"\\nprint('@SECRET@')")
    except OSError: pass
json.dumps = lambda *a, **k: "'@SECRET@'"
""",
        then="import json\nprint(json.dumps('x'))",
    ),
    "poisoned-interpreter": Attack(
        """
import builtins
builtins.print = lambda *a, **k: os.write(1, b"@SECRET@")
os.environ["PYTHONSTARTUP"] = sys.path[0]
sys.path.insert(0, "/tmp")
""",
        then="print('x')\nif '/tmp' in sys.path or 'PYTHONSTARTUP' in os.environ: print('@SECRET@')",
    ),
    "daemon-left-behind": Attack(
        """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(256):
            try: os.close(fd)
            except OSError: pass
        time.sleep(1000)
    os._exit(0)
print("done")
""",
        then="""
for pid in range(2, 1000):
    if pid != os.getpid():
        try: os.kill(pid, 0); print("@SECRET@")
        except ProcessLookupError: pass
""",
    ),
    "executed-daemon-left-behind": Attack(
        """
import subprocess
subprocess.Popen(["/python/bin/python3", "-S", "-c",
    "import ctypes, time; ctypes.CDLL(None).prctl(15, b'@MARKER@'); time.sleep(1000)"],
    start_new_session=True)
"""
    ),
    "system-v-shared-memory-left-behind": Attack(
        f"kernel(29, 194, {_KEY}, 4096, 0o1666)",
        then=f"if kernel(29, 194, {_KEY}, 4096, 0) >= 0: print('@SECRET@')",
    ),
    "system-v-messages-left-behind": Attack(
        f"kernel(68, 186, {_KEY}, 0o1666)",
        then=f"if kernel(68, 186, {_KEY}, 0) >= 0: print('@SECRET@')",
    ),
    "posix-queue-left-behind": Attack(
        "kernel(240, 180, b'@MARKER@', 0o102, 0o666, None)",
        then="if kernel(240, 180, b'@MARKER@', 2, 0, None) >= 0: print('@SECRET@')",
    ),
    "posix-shared-memory-left-behind": Attack(
        "open('/dev/shm/@MARKER@', 'w').write('x')",
        then="if os.path.exists('/dev/shm/@MARKER@'): print('@SECRET@')",
    ),
    "key-left-behind": Attack(
        "kernel(248, 217, b'user', b'@MARKER@', b'x', 1, -4)",
        then="if kernel(249, 218, b'user', b'@MARKER@', None, -4) >= 0: print('@SECRET@')",
    ),
    "lock-left-behind": Attack(
        "import fcntl\nfcntl.flock(os.open('/dev/null', os.O_RDWR), fcntl.LOCK_EX)\n"
        "if os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(1000)",
        then="""
import fcntl
try: fcntl.flock(os.open('/dev/null', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError: print('@SECRET@')
""",
    ),
}
