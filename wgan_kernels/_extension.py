"""Finds and loads the compiled library. Importing never raises; what is missing is said at the first use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_LIBRARY = Path(__file__).with_name("_C.abi3.so")
_BUILD_REPORT = Path(__file__).with_name("_build.json")


def _build_report() -> dict[str, Any]:
    """What setup.py wrote when it built, or failed to build, the library."""
    try:
        return json.loads(_BUILD_REPORT.read_text())
    except (OSError, ValueError):
        return {"error": "the package was not installed by its setup.py; run 'pip install --no-build-isolation .'"}


def _load() -> str | None:
    """Loads the library; returns None, or why it could not be loaded."""
    if not _LIBRARY.exists():
        return _build_report().get("error", f"{_LIBRARY.name} is missing from the installed package")
    try:
        torch.ops.load_library(str(_LIBRARY))
    except (OSError, RuntimeError) as error:
        return f"{_LIBRARY.name} does not load into torch {torch.__version__}: {error}"
    return None


LOAD_ERROR: str | None = _load()


def require() -> None:
    """Raises a RuntimeError that says why, where the compiled library is not there."""
    if LOAD_ERROR is not None:
        raise RuntimeError(f"the 'native' back end is not available: {LOAD_ERROR}")


def serves_cuda(device: torch.device) -> bool:
    """Whether the library has CUDA kernels for this device. This build has none."""
    return False


def build_info() -> dict[str, Any]:
    """What this installation can do, and why not more.

    Returns:
        A dict with `native` (whether the compiled library is loaded), `reason` (why it is not, or None), `library`
        (its path), `cpu_instruction_set` (the one chosen at run time: 'avx512', 'avx2' or 'plain'), `torch` (running)
        and `build` (compiler, torch and CUDA at build time).
    """
    native = LOAD_ERROR is None
    return {
        "native": native,
        "reason": LOAD_ERROR,
        "library": str(_LIBRARY) if native else None,
        "cpu_instruction_set": torch.ops.wgan_kernels.cpu_instruction_set() if native else None,
        "torch": torch.__version__,
        "build": _build_report(),
    }
