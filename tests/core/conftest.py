"""Builds core_module and simt_module (csrc/core on numpy, see CMakeLists.txt) unless they are on the path already, as
under ctest."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "core"
ISAS = ("plain", "avx2", "avx512")


def tool(name: str) -> str | None:
    """A program of the environment this Python belongs to, or else of the system."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout}", pytrace=False)


def build() -> None:
    if os.environ.get("CXX") is None and not any(map(tool, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler: install one (Debian: apt-get install g++), or set CXX")
    cmake = tool("cmake")
    if cmake is None:
        pytest.fail("a C++ compiler but no cmake: pip install cmake ninja pybind11", pytrace=False)
    BUILD.mkdir(parents=True, exist_ok=True)
    ninja = tool("ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    with open(BUILD / ".lock", "w") as lock:  # two runs of the tests may meet here
        fcntl.flock(lock, fcntl.LOCK_EX)
        run([cmake, "-S", str(ROOT), "-B", str(BUILD), f"-DPython_EXECUTABLE={sys.executable}", *generator])
        run([cmake, "--build", str(BUILD)])


def built(name: str):
    """The module of that name, or None where CMake left it out."""
    if importlib.util.find_spec("core_module") is None:
        build()
        sys.path.insert(0, str(BUILD))
        importlib.invalidate_caches()
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


@pytest.fixture(scope="session")
def core():
    """The module with every function of the core."""
    return built("core_module")


@pytest.fixture(scope="session")
def simt():
    """The module with every CUDA function of the core, run by the CPU."""
    module = built("simt_module")
    if module is None:
        missing = "no headers of CUDA: pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl"
        pytest.fail(missing, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return module


@pytest.fixture(params=ISAS)
def isa(request, core):
    """Each instruction set that this machine has."""
    if request.param not in core.supported_isas():
        pytest.skip(f"this machine lacks {request.param}")
    return request.param
