"""Whether Triton can be used here, found out without importing it, which takes time."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

# Triton reads this when it is imported; its kernels then run on CPU tensors, and on no others.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _why_not() -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if INTERPRETED or os.name != "posix":  # elsewhere it brings a compiler along
        return None
    if os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"):
        return None
    return "the package triton finds no C compiler, which its first launch needs: install gcc or clang, or set CC"


WHY_NOT: str | None = _why_not()
