"""Builds wgan_kernels/_C.abi3.so, one library for every torch from 2.11 on. Needs torch and a C++ compiler.

Without them the package still installs and runs on plain PyTorch; `python -m wgan_kernels.info` says what was missing.
Environment: WGAN_KERNELS_CUDA=auto|0|1, TORCH_CUDA_ARCH_LIST, MAX_JOBS, DEBUG=1.
"""

import json
import os
import shutil
import subprocess
from glob import glob
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = Path(__file__).parent / "wgan_kernels"
DEBUG = os.environ.get("DEBUG", "0") == "1"
# The oldest torch that the library is promised to load into.
TORCH_TARGET_VERSION = "0x020b000000000000"

try:
    from torch import __version__ as torch_version
    from torch.utils import cpp_extension
except ImportError as error:
    torch_version, cpp_extension = None, None
    missing = f"torch could not be imported while building ({error}); install torch, then use --no-build-isolation"
else:
    missing = None


def cuda_sources():
    wanted = os.environ.get("WGAN_KERNELS_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"WGAN_KERNELS_CUDA must be auto, 0 or 1, got {wanted!r}")
    sources = sorted(glob("csrc/core/*_cuda.cu"))
    if wanted == "1" and not sources:
        raise SystemExit("WGAN_KERNELS_CUDA=1 was asked for, but this version has no CUDA kernels yet")
    return [] if wanted == "0" else sources


def compiler():
    name = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if name is None:
        return None
    return subprocess.run([*name.split(), "--version"], capture_output=True, text=True).stdout.partition("\n")[0]


def library():
    flags = ["-std=c++17", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-ffp-contract=off", "-Wno-psabi"]
    flags += ["-O0", "-g", "-Wall", "-Wextra", "-Wno-maybe-uninitialized"] if DEBUG else ["-O3"]
    return cpp_extension.CppExtension(
        "wgan_kernels._C",
        sorted(glob("csrc/core/*.cpp") + glob("csrc/torch/*.cpp")),
        depends=sorted(glob("csrc/*/*.h")),
        py_limited_api=True,
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)],
        extra_compile_args={"cxx": flags},
        extra_link_args=["-Wl,--exclude-libs,ALL", *([] if DEBUG else ["-s"])],
    )


def report(package, error=None):
    """Leaves beside the library what it was built with, or why it was not; build_info() reads it."""
    if error:
        # One of an earlier build would be loaded under operators that may have changed since.
        (package / "_C.abi3.so").unlink(missing_ok=True)
    build = {"compiler": compiler(), "torch": torch_version, "cuda": None}
    text = json.dumps({**build, **({"error": error} if error else {})}, indent=1)
    package.mkdir(parents=True, exist_ok=True)
    (package / "_build.json").write_text(text + "\n")


cuda_sources()
if missing is None and compiler() is None:
    missing = "no C++ compiler was found while building; install one (Debian: apt-get install g++) and install again"

if missing is None:

    class Build(cpp_extension.BuildExtension):
        def run(self):
            error = None
            try:
                super().run()
            except Exception as failure:  # whatever went wrong, the package works without its library
                error = f"the library did not compile: {failure}"
                print(f"wgan_kernels: {error}")
                for extension in self.extensions:
                    extension.optional = True
            in_place = self.inplace or self.editable_mode
            report(PACKAGE if in_place else Path(self.build_lib) / "wgan_kernels", error)

    native = {
        "ext_modules": [library()],
        "cmdclass": {"build_ext": Build},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }
else:
    print(f"wgan_kernels: {missing}")

    class Report(build_py):
        def run(self):
            super().run()
            report(PACKAGE if self.editable_mode else Path(self.build_lib) / "wgan_kernels", missing)

    native = {"cmdclass": {"build_py": Report}}

setup(**native)
