"""Finds CUDA's compiler and says how the kernels are compiled: for setup.py, and for the tests that compile them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Compute capabilities of a library for everyone: from A100 to RTX 50, and PTX for what comes after.
DEFAULT_ARCHITECTURES = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0+PTX")
HOST_FLAGS = "-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wno-psabi"
FLAGS = ("-O3", "-std=c++17", "--expt-relaxed-constexpr", f"-Xcompiler={HOST_FLAGS}")
LIBRARIES = ("-lcudart_static", "-lrt", "-lpthread", "-ldl")
PACKAGES = "nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl"
MISSING = f"no CUDA compiler was found: put nvcc on PATH, set CUDA_HOME, or pip install {PACKAGES}"


@dataclass(frozen=True)
class Toolkit:
    home: Path
    version: str  # such as 13.0.88

    @property
    def nvcc(self) -> str:
        return str(self.home / "bin" / "nvcc")

    @property
    def libraries(self) -> Path | None:
        """The folder of the static runtime, which has another name in every way to install CUDA."""
        folders = (self.home / name for name in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"))
        return next((folder for folder in folders if (folder / "libcudart_static.a").exists()), None)

    def supported(self) -> set[str]:
        """The compute capabilities that it compiles for."""
        listed = subprocess.run([self.nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
        return {f"{major}.{minor}" for major, minor in re.findall(r"compute_(\d+)(\d)\b", listed)}


def find() -> Toolkit | None:
    """The toolkit of CUDA_HOME, of the nvcc on PATH, of the PyPI packages that are installed, or of /usr/local/cuda."""
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return _toolkit(f"{home}/bin/nvcc")
    installed = [str(nvcc) for entry in sys.path for nvcc in sorted(Path(entry).glob("nvidia/cu*/bin/nvcc"))]
    for nvcc in (shutil.which("nvcc"), *installed, "/usr/local/cuda/bin/nvcc"):
        if nvcc is not None and (toolkit := _toolkit(nvcc)):
            return toolkit
    return None


def _toolkit(nvcc: str) -> Toolkit | None:
    """What nvcc itself says: the program on PATH may be a script or a link to another place."""
    try:
        run = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "check": True}
        plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-E", os.devnull], **run).stdout
        version = subprocess.run([nvcc, "--version"], **run).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    here, number = re.search(r"_HERE_=(.+)", plan), re.search(r"\bV(\d+\.\d+\.\d+)", version)
    toolkit = Toolkit(Path(here[1]).resolve().parent, number[1]) if here and number else None
    return toolkit if toolkit and toolkit.libraries else None


def architectures(toolkit: Toolkit) -> list[str]:
    """Those that TORCH_CUDA_ARCH_LIST names, such as 8.0;9.0+PTX, or of the usual ones those that nvcc knows."""
    if wanted := os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split():
        if strange := [name for name in wanted if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", name)]:
            raise ValueError(f"TORCH_CUDA_ARCH_LIST must hold numbers such as 9.0 or 9.0+PTX, got {strange[0]!r}")
        return wanted
    supported = toolkit.supported()
    return [name for name in DEFAULT_ARCHITECTURES if name.removesuffix("+PTX") in supported]


def gencode(names: list[str]) -> list[str]:
    """nvcc's flags for these architectures."""
    flags = []
    for name in names:
        number = name.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if name.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags
