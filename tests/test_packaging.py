"""The build: one ABI-stable library, and a package that works without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cases import copy_sources

import wgan_kernels

ROOT = Path(__file__).parents[1]


def run(*command: str, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_sources(tmp_path / "source")


def library(native) -> str:
    return wgan_kernels.build_info()["library"]


def test_library_needs_no_cpp_symbol_of_torch(native) -> None:
    symbols = run("nm", "-D", "--undefined-only", library(native)).split()
    assert any(symbol.startswith("aoti_torch_") for symbol in symbols), "the library calls torch's stable C functions"
    mangled = [symbol for symbol in symbols if re.match(r"_ZN?K?\d*.*(2at|3c10|5torch|6caffe2)\d", symbol)]
    assert mangled == []
    assert not [symbol for symbol in symbols if symbol.startswith(("Py", "_Py"))]


def test_library_shows_no_symbol_of_its_own(native) -> None:
    defined = [line.split()[-1] for line in run("nm", "-D", "--defined-only", library(native)).splitlines()]
    assert not [symbol for symbol in defined if "wgk" in symbol]


def test_library_is_named_for_the_stable_abi(native) -> None:
    assert Path(library(native)).name == "_C.abi3.so"


def test_wheel_is_tagged_for_every_python_from_3_10(native, source: Path, tmp_path: Path) -> None:
    pip_wheel = (sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps")
    # Not optimised, in a third of the time: the installed library was built by the same setup.py, optimised.
    run(*pip_wheel, "-w", str(tmp_path), str(source), DEBUG="1")
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("_C.abi3.so", "_build.json", "py.typed"):
        assert f"wgan_kernels/{name}" in names
    package = ROOT / "wgan_kernels"
    modules = {f"wgan_kernels/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


REFERENCE_SESSION = """
import json, torch, wgan_kernels as wk
critic = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LeakyReLU(), torch.nn.Linear(8, 1))
wk.gradient_penalty(critic, torch.randn(3, 4), torch.randn(3, 4)).backward()
wk.clip_weights_(critic, 0.01)
assert critic[0].weight.grad.abs().max() > 0
assert all(p.abs().max() <= 0.01 for p in critic.parameters())
wk.mmd2(torch.randn(5, 2), torch.randn(6, 2), wk.kernels.RBF(1.0))
try:
    wk.use_backend("native")
except RuntimeError as error:
    print(json.dumps([wk.build_info(), str(error)]))
"""


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(None, "no C++ compiler was found"), ("false", "the library did not compile")],
    ids=["no compiler", "broken compiler"],
)
def test_package_works_without_a_compiler(source: Path, tmp_path: Path, compiler: str | None, reason: str) -> None:
    target = tmp_path / "installed"
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "uname", "ninja", "false"):
        if path := shutil.which(tool):
            (tools / tool).symlink_to(path)
    environment = {"PATH": str(tools), **({"CXX": compiler, "CC": compiler} if compiler else {})}
    install = ("-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--target", str(target), str(source))
    run(sys.executable, *install, **environment)
    # From another folder, so that it is the new installation that is imported and not these sources.
    outside = {"cwd": tmp_path, "PYTHONPATH": str(target)}
    info, error = json.loads(run(sys.executable, "-c", REFERENCE_SESSION, **outside))
    assert not info["native"] and reason in info["reason"] and reason in error
    printed = run(sys.executable, "-m", "wgan_kernels.info", **outside)
    assert reason in printed


def test_import_is_quick(tmp_path: Path) -> None:
    """Adds under 150 ms to `import torch`: the best of three, as the machine may be busy."""
    code = "import time, torch; start = time.perf_counter(); import wgan_kernels; print(time.perf_counter() - start)"
    # Where bytecode is forbidden, Python would compile the sources every time, which takes longer than the rest.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    assert min(float(run(sys.executable, "-c", code, **bytecode)) for _ in range(3)) < 0.150


def test_build_info_says_what_was_built(native) -> None:
    info = wgan_kernels.build_info()
    assert info["reason"] is None and info["cpu_instruction_set"] in ("plain", "avx2", "avx512")
    assert info["build"]["torch"] and info["build"]["compiler"]


def test_environment_of_the_build_is_checked(source: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=source,
        env={**os.environ, "WGAN_KERNELS_CUDA": "maybe"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "WGAN_KERNELS_CUDA must be auto, 0 or 1, got 'maybe'" in done.stderr


@pytest.mark.parametrize("isa", ["avx1024", ""])
def test_unknown_instruction_set_is_refused(native, isa: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import wgan_kernels; print(wgan_kernels.build_info()['cpu_instruction_set'])"],
        env={**os.environ, "WGAN_KERNELS_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "WGAN_KERNELS_ISA must be plain, avx2 or avx512" in done.stderr


def test_source_distribution_can_be_compiled(source: Path, tmp_path: Path) -> None:
    for name in ("MANIFEST.in", "CMakeLists.txt", "Makefile"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path), cwd=source)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert needed <= held, needed - held
    assert not [name for name in held if name.endswith((".so", "_build.json"))]
