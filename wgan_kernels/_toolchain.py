"""Whether Triton can be used here, found out without importing it, which takes time."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec

# Triton reads this when it is imported; its kernels then run on CPU tensors, and on no others.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _has_python_header() -> bool:
    """Whether Triton's compiler will find Python.h."""
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme  # as Triton has it, for Debian's Python
    places = [sysconfig.get_paths(scheme)["include"]]
    for name in ("CPATH", "C_INCLUDE_PATH"):  # which gcc and clang heed
        places += filter(None, os.environ.get(name, "").split(os.pathsep))
    return any(os.path.exists(os.path.join(place, "Python.h")) for place in places)


def _why_not() -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if INTERPRETED or os.name != "posix":  # elsewhere it brings a compiler along
        return None
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "the package triton finds no C compiler, which its first launch needs: install gcc or clang, or set CC"
    if not _has_python_header():
        return (
            "the package triton finds no Python.h, which its first launch needs: install the headers of "
            f"Python {sysconfig.get_python_version()} (Debian: python3-dev), or name their folder in CPATH"
        )
    return None


WHY_NOT: str | None = _why_not()
