"""Builds wgan_kernels/_C.abi3.so, one library for every torch from 2.11 on. Needs torch and a C++ compiler.

Without them the package still installs and runs on plain PyTorch; `python -m wgan_kernels.info` says what was missing.
Environment: WGAN_KERNELS_CUDA=auto|0|1, TORCH_CUDA_ARCH_LIST, CUDA_HOME, MAX_JOBS, DEBUG=1.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKAGE = ROOT / "wgan_kernels"
sys.path.insert(0, str(ROOT))
import cuda_toolkit  # noqa: E402 - a build back end does not look beside setup.py

DEBUG = os.environ.get("DEBUG", "0") == "1"
# The oldest torch that the library is promised to load into.
TORCH_TARGET_VERSION = "0x020b000000000000"

try:
    import torch
    from torch.utils import cpp_extension
except ImportError as error:
    torch, cpp_extension = None, None
    missing = f"torch could not be imported while building ({error}); install torch, then use --no-build-isolation"
else:
    missing = None


def find_cuda():
    """The toolkit to build CUDA kernels with or None, and why it is None."""
    wanted = os.environ.get("WGAN_KERNELS_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"WGAN_KERNELS_CUDA must be auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        return None, "WGAN_KERNELS_CUDA=0 was set while building"
    if wanted == "auto" and (torch is None or torch.version.cuda is None):
        return None, "the torch of the build was one without CUDA, and WGAN_KERNELS_CUDA=1 was not set"
    toolkit = cuda_toolkit.find()
    if wanted == "1" and (missing or toolkit is None):
        raise SystemExit(f"WGAN_KERNELS_CUDA=1 was asked for, but {missing or cuda_toolkit.MISSING}")
    return toolkit, None if toolkit else cuda_toolkit.MISSING


def compiler():
    name = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if name is None:
        return None
    return subprocess.run([*name.split(), "--version"], capture_output=True, text=True).stdout.partition("\n")[0]


def library(toolkit):
    flags = ["-std=c++17", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-ffp-contract=off", "-Wno-psabi"]
    flags += ["-O0", "-g", "-Wall", "-Wextra", "-Wno-maybe-uninitialized"] if DEBUG else ["-O3"]
    headers = sorted(glob("csrc/*/*.h") + glob("csrc/*/*.cuh"))
    extension = cpp_extension.CppExtension(
        "wgan_kernels._C",
        sorted(glob("csrc/core/*.cpp") + glob("csrc/torch/*.cpp")),
        depends=headers,
        py_limited_api=True,
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)],
        extra_compile_args={"cxx": flags, "nvcc": []},
        extra_link_args=["-Wl,--exclude-libs,ALL", *([] if DEBUG else ["-s"])],
    )
    if toolkit is not None:
        # Under a torch without CUDA, ninja is not told which headers a .cu file includes: a change of any counts.
        contents = hashlib.sha256(b"".join(Path(name).read_bytes() for name in headers)).hexdigest()[:16]
        extension.sources += sorted(glob("csrc/core/*.cu"))
        extension.define_macros += [("WGK_CUDA", None)]
        extension.extra_compile_args["nvcc"] = [
            # Torch's own flags take the operators of half-width floats away, which other builds of the core have.
            *(flag.replace("-D", "-U", 1) for flag in cpp_extension.COMMON_NVCC_FLAGS if flag.startswith("-D")),
            *cuda_toolkit.FLAGS,
            *cuda_toolkit.gencode(cuda_toolkit.architectures(toolkit)),
            f"-DWGK_HEADERS={contents}",
            *(["-lineinfo"] if DEBUG else []),
        ]
        extension.extra_link_args += [f"-L{toolkit.libraries}", *cuda_toolkit.LIBRARIES]
        cpp_extension.CUDA_HOME = str(toolkit.home)
    return extension


def report(package, error=None, toolkit=None, without_cuda=None):
    """Leaves beside the library what it was built with, or why it was not; build_info() reads it."""
    if error:
        # One of an earlier build would be loaded under operators that may have changed since.
        (package / "_C.abi3.so").unlink(missing_ok=True)
    build = {"compiler": compiler(), "torch": torch and torch.__version__, "cuda": toolkit and toolkit.version}
    if toolkit:
        build["cuda_architectures"] = cuda_toolkit.architectures(toolkit)
    elif without_cuda:
        build["without_cuda"] = without_cuda
    if error:
        build["error"] = error
    package.mkdir(parents=True, exist_ok=True)
    (package / "_build.json").write_text(json.dumps(build, indent=1) + "\n")


if missing is None and compiler() is None:
    missing = "no C++ compiler was found while building; install one (Debian: apt-get install g++) and install again"
toolkit, without_cuda = find_cuda()

if missing is None:

    class Build(cpp_extension.BuildExtension):
        def run(self):
            error, built_with, reason = None, toolkit, without_cuda
            inplace = self.inplace  # lost where run fails
            try:
                super().run()
            except Exception as failure:  # whatever went wrong, the package works without its library
                if toolkit is not None and os.environ.get("WGAN_KERNELS_CUDA") == "1":
                    raise
                error, built_with = f"the library did not compile: {failure}", None
                print(f"wgan_kernels: {error}")
                if toolkit is not None:
                    error, reason = self.run_without_cuda(inplace), error
                for extension in self.extensions:
                    extension.optional = error is not None
            folder = PACKAGE if inplace or self.editable_mode else Path(self.build_lib) / "wgan_kernels"
            report(folder, error, built_with, reason)

        def run_without_cuda(self, inplace):
            print("wgan_kernels: building again without CUDA")
            self.inplace, self.compiler = inplace, None
            vars(self.extensions[0]).update(vars(library(None)))
            try:
                super().run()
            except Exception as failure:
                return f"the library did not compile: {failure}"

    native = {
        "ext_modules": [library(toolkit)],
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
