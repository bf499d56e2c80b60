"""reasoning-gym, importable without a C compiler.

It imports pycosat, a SAT solver that is published as C source alone, to *generate* zebra puzzles;
no scorer uses it. Where pycosat is not installed an empty module stands in for it, so that
generating a zebra puzzle fails by name and everything else works.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

if importlib.util.find_spec("pycosat") is None:
    sys.modules.setdefault("pycosat", ModuleType("pycosat"))

reasoning_gym: Any = importlib.import_module("reasoning_gym")
