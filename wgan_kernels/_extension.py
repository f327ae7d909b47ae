"""Finds and loads the compiled library. Importing never raises; what is missing is said at the first use."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import torch

from . import _toolchain

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
    """Whether the loaded library has code that this CUDA device can run."""
    return why_not_cuda(device) is None


def why_not_cuda(device: torch.device) -> str | None:
    """Why the loaded library does not serve this CUDA device; None where it does."""
    if LOAD_ERROR is not None:
        return LOAD_ERROR
    # Which device is the current one may change between calls; what a device can do does not.
    return _known_why_not_cuda(torch.cuda.current_device() if device.index is None else device.index)


def _known_why_not_cuda(index: int) -> str | None:
    return _why_not_cuda(index)


# As torch.compiler.assume_constant_result marks it, whose import would take a second: not to be traced, but called.
_known_why_not_cuda._dynamo_marked_constant = True


@functools.cache
def _why_not_cuda(index: int) -> str | None:
    build = _build_report()
    if not build.get("cuda"):
        return f"the library was built without CUDA: {build.get('without_cuda', 'nobody asked for it')}"
    if torch.version.hip is not None:
        return "the library has kernels for NVIDIA's GPUs alone"
    if index >= torch.cuda.device_count():
        return "torch sees no such device"
    capability, names = torch.cuda.get_device_capability(index), build["cuda_architectures"]
    driver = torch._C._cuda_getDriverVersion()
    toolkit_major, toolkit_minor = map(int, build["cuda"].split(".")[:2])
    if driver // 1000 < toolkit_major:
        return f"the library was built with CUDA {build['cuda']}; the driver knows CUDA {_version(driver)} at most"
    if any(_runs_machine_code(name, capability) for name in names):
        return None
    can_compile = driver >= 1000 * toolkit_major + 10 * toolkit_minor
    if can_compile and any(_compiles_from_ptx(name, capability) for name in names):
        return None
    newer = "" if can_compile else f", and the driver, of CUDA {_version(driver)}, is too old to compile its PTX"
    return f"the library was built for {', '.join(names)}; the device is of {capability[0]}.{capability[1]}{newer}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _architecture(name: str) -> tuple[int, int, str, bool]:
    """9.0a+PTX -> 9, 0, 'a', True."""
    major, minor, family, ptx = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", name).groups()
    return int(major), int(minor), family, ptx is not None


def _runs_machine_code(name: str, capability: tuple[int, int]) -> bool:
    # Machine code runs on later chips of its generation, unless it uses what is one chip's own.
    major, minor, family, _ = _architecture(name)
    return capability == (major, minor) if family == "a" else capability[0] == major and capability[1] >= minor


def _compiles_from_ptx(name: str, capability: tuple[int, int]) -> bool:
    major, minor, family, ptx = _architecture(name)
    return ptx and not family and capability >= (major, minor)


def build_info() -> dict[str, Any]:
    """What this installation can do, and why not more.

    Returns:
        A dict with `native` (whether the compiled library is loaded), `reason` (why it is not, or None), `library`
        (its path), `triton` (whether Triton can be used), `triton_reason` (why not, or None), `cpu_instruction_set`
        (the one chosen at run time: 'avx512', 'avx2' or 'plain'), `torch` (running), `devices` (each CUDA device: its
        name, which back end 'auto' takes there, and why not those before it) and `build` (compiler, torch and CUDA at
        build time).
    """
    native = LOAD_ERROR is None
    return {
        "native": native,
        "reason": LOAD_ERROR,
        "library": str(_LIBRARY) if native else None,
        "triton": _toolchain.WHY_NOT is None,
        "triton_reason": _toolchain.WHY_NOT,
        "cpu_instruction_set": torch.ops.wgan_kernels.cpu_instruction_set() if native else None,
        "torch": torch.__version__,
        "devices": {f"cuda:{index}": _device_info(index) for index in range(torch.cuda.device_count())},
        "build": _build_report(),
    }


def _device_info(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    reason, without = why_not_cuda(torch.device("cuda", index)), _toolchain.WHY_NOT
    reasons = [] if reason is None else [reason] if without is None else [reason, without]
    back_end = ("native", "triton", "reference")[len(reasons)]
    served = f"served by {back_end!r}" + (f" ({'; '.join(reasons)})" if reasons else "")
    return f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}, {served}"
