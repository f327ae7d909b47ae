"""The CUDA build, on machines without a GPU: what nvcc makes of the kernels, and a library that loads without CUDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cuda_resources
import pytest
import torch
from cases import copy_sources

import cuda_toolkit


def require_toolkit() -> cuda_toolkit.Toolkit:
    """For tests that need nvcc: where it is missing they are skipped, but never in CI."""
    toolkit = cuda_toolkit.find()
    if toolkit is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must compile the CUDA kernels: {cuda_toolkit.MISSING}", pytrace=False)
        pytest.skip(cuda_toolkit.MISSING)
    return toolkit


@dataclass
class Build:
    toolkit: cuda_toolkit.Toolkit
    tree: Path
    log: str

    def python(self, code: str) -> str:
        """Runs code on the package that was built."""
        command = [sys.executable, "-c", code]
        environment = {**os.environ, "PYTHONPATH": str(self.tree)}
        done = subprocess.run(command, cwd=self.tree.parent, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def set_up(tree: Path, prelude: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """setup.py build_ext --inplace, without optimising what runs on the host; first the prelude."""
    run = "import runpy, sys; sys.argv = ['setup.py', 'build_ext', '--inplace']; runpy.run_path('setup.py')"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # of ninja
    jobs = os.environ.get("MAX_JOBS", str(os.cpu_count()))
    return subprocess.run(
        [sys.executable, "-c", f"{prelude}\n{run}"],
        cwd=tree,
        env={**os.environ, "DEBUG": "1", "PATH": path, "MAX_JOBS": jobs, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The package with CUDA kernels for one architecture, and PTX; any warning of nvcc or ptxas is an error."""
    toolkit = require_toolkit()
    tree = copy_sources(tmp_path_factory.mktemp("cuda") / "source")
    flags = {"TORCH_CUDA_ARCH_LIST": "9.0+PTX", "NVCC_APPEND_FLAGS": cuda_resources.FLAGS}
    done = set_up(tree, WGAN_KERNELS_CUDA="1", **flags)
    assert done.returncode == 0, done.stdout[-20000:]
    return Build(toolkit, tree, done.stdout)


def test_kernels_use_the_registers_and_memory_of_the_table(build: Build) -> None:
    found, spills = cuda_resources.parse(build.log)
    assert spills == []
    assert set(found) == {"sm_90"} and found["sm_90"]
    problems = cuda_resources.differences(found, build.toolkit.version)
    assert problems == [], "if this is meant: python tests/cuda_resources.py --write\n" + "\n".join(problems)


# Instructions that move 16 bytes: a thread has four packs of every array, in every dtype that a kernel serves.
WHOLE_PACKS = [
    ("weight_clip", "wgk::weight_clip_kernel", {"LDG.128": 16, "STG.128": 16}),
    # A thread has two packs of weights, averages and gradients, and of other states where there are any.
    ("rmsprop_clip", "wgk::rmsprop_clip_kernel<19>", {"LDG.128": 24, "STG.128": 16}),
    ("rmsprop_clip", "wgk::rmsprop_clip_kernel<31>", {"LDG.128": 40, "STG.128": 32}),
    ("interpolate", "wgk::combine_kernel<{dtype}, true, {V},", {"LDG.128": 8, "STG.128": 4}),
    ("bias_leaky_relu", "wgk::rectify_kernel<{dtype}, false, {V}>", {"LDG.128": 4, "STG.128": 4}),
    ("bias_leaky_relu", "wgk::rectify_kernel<{dtype}, true, {V}>", {"LDG.128": 8, "STG.128": 4}),
    ("norm_penalty", "wgk::combine_kernel<{dtype}, false, {V},", {"LDG.128": 4, "STG.128": 4}),
    ("norm_penalty", "wgk::combine_kernel<{dtype}, true, {V},", {"LDG.128": 8, "STG.128": 4}),
]
PACKS = {"double": 2, "float": 4, "wgk::bfloat16": 8, "wgk::float16": 8}


@pytest.mark.parametrize(("operator", "pattern", "expected"), WHOLE_PACKS)
def test_elementwise_kernels_move_16_bytes_at_once(
    build: Build, operator: str, pattern: str, expected: dict[str, int]
) -> None:
    (compiled,) = build.tree.glob(f"build/temp.*/csrc/core/{operator}_cuda.o")
    found = cuda_resources.accesses(compiled)
    assert found is not None, "no cuobjdump: it comes with the CUDA toolkit, and with triton"
    for name in {pattern.format(dtype=dtype, V=V) for dtype, V in PACKS.items()}:
        kernels = [counts for kernel, counts in found.items() if kernel.startswith(name)]
        assert kernels, f"{name} is not in {list(found)}"
        for counts in kernels:
            assert all(counts.get(access, 0) >= count for access, count in expected.items()), f"{name}: {counts}"


# What the kernels over pairs of points multiply with: bfloat16 and float16 as they are, float32 as TF32, and float64.
TENSOR_CORES = {
    "wgk::sums_kernel<float,": {"HMMA.16816.F32.BF16", "HMMA.16816.F32", "HMMA.1688.F32.TF32"},
    "wgk::matvec_kernel<float>": {"HMMA.16816.F32.BF16", "HMMA.16816.F32", "HMMA.1688.F32.TF32"},
    "wgk::sums_kernel<double,": {"DMMA.8x8x4"},
    "wgk::matvec_kernel<double>": {"DMMA.8x8x4"},
}


@pytest.mark.parametrize("name", TENSOR_CORES)
def test_kernels_over_pairs_use_tensor_cores(build: Build, name: str) -> None:
    operator = "kernel_sums" if "sums" in name else "kernel_matvec"
    (compiled,) = build.tree.glob(f"build/temp.*/csrc/core/{operator}_cuda.o")
    found = cuda_resources.matrix_products(compiled)
    assert found is not None, "no cuobjdump: it comes with the CUDA toolkit, and with triton"
    kernels = {kernel: set(counts) for kernel, counts in found.items() if kernel.startswith(name)}
    assert kernels and all(kinds == TENSOR_CORES[name] for kinds in kernels.values()), kernels


def test_the_table_has_every_architecture_of_a_wheel() -> None:
    names = {f"sm_{name.removesuffix('+PTX').replace('.', '')}" for name in cuda_toolkit.DEFAULT_ARCHITECTURES}
    assert set(cuda_resources.table()["kernels"]) == names


def test_what_was_built_is_on_record(build: Build) -> None:
    info = json.loads(build.python("import json, wgan_kernels as wk; print(json.dumps(wk.build_info()))"))
    assert info["native"], info["reason"]
    assert info["build"]["cuda"] == build.toolkit.version and info["build"]["cuda_architectures"] == ["9.0+PTX"]


def test_library_needs_no_library_of_cuda(build: Build) -> None:
    library = str(build.tree / "wgan_kernels" / "_C.abi3.so")
    run = {"capture_output": True, "text": True, "check": True}
    needed = [
        line for line in subprocess.run(["readelf", "-d", library], **run).stdout.splitlines() if "NEEDED" in line
    ]
    assert needed and not [line for line in needed if "cuda" in line], needed
    undefined = subprocess.run(["nm", "-D", "--undefined-only", library], **run).stdout.split()
    assert not [name for name in undefined if name.startswith(("cuda", "cu", "__cuda", "aoti_torch_get_current_cuda"))]
    assert "wgk" not in subprocess.run(["nm", "-D", "--defined-only", library], **run).stdout


CPU_SESSION = """
import torch, wgan_kernels as wk
wk.use_backend("native")
critic = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LeakyReLU(), torch.nn.Linear(8, 1))
def session():
    torch.manual_seed(0)
    x, y = torch.randn(7, 4, requires_grad=True), torch.randn(6, 4)
    penalty = wk.gradient_penalty(critic, x[:6], y)
    discrepancy = wk.mmd2(x, y, wk.kernels.RBF(1.5))
    (grad,) = torch.autograd.grad(discrepancy, x, create_graph=True)
    weights = torch.randn(5)
    wk.clip_weights_([weights], 0.1)
    return [penalty, discrepancy, grad, *torch.autograd.grad(grad.square().sum(), x), weights]
ours = session()
with wk.use_backend("reference"):
    for a, b in zip(ours, session()):
        torch.testing.assert_close(a, b)
print("the same")
"""


def test_cpu_operators_work_in_a_cuda_build(build: Build) -> None:
    assert build.python(CPU_SESSION).strip() == "the same"


# A tensor that says it is on a GPU, handed to the CUDA kernel past the checks of torch.
CUDA_SESSION = """
import torch, wgan_kernels
from torch._subclasses.fake_tensor import FakeTensorMode
names = {name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("wgan_kernels::")}
names = {name for name in names if torch._C._dispatch_has_kernel_for_dispatch_key(f"wgan_kernels::{name}", "CPU")}
for name in names - {"norm_penalty_with_grad"}:  # of the CPU alone
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"wgan_kernels::{name}", "CUDA"), name
assert len(names) >= 9, names
with FakeTensorMode():
    grad, mix, cpu_mix = torch.empty(2, 3, device="cuda"), torch.empty(2, device="cuda"), torch.empty(2)
key = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
operators = torch.ops.wgan_kernels
for operator, arguments in [
    (operators.interpolate, (grad, grad, mix)), (operators.interpolate, (grad, grad, cpu_mix))
]:
    try:
        operator.default.redispatch(key, *arguments)
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_cuda_operators_say_what_is_missing(build: Build) -> None:
    without_cuda, two_devices = build.python(CUDA_SESSION).strip().splitlines()
    assert "a tensor on a GPU, but this torch has no CUDA" in without_cuda
    assert "every tensor must be on one device, got cuda:0 and cpu" in two_devices


def test_kernels_that_do_not_compile_leave_the_cpu_kernels(tmp_path: Path) -> None:
    toolkit = require_toolkit()
    tree = copy_sources(tmp_path / "source")
    for source in [*tree.glob("csrc/core/*.cpp"), *tree.glob("csrc/torch/*.cpp"), *tree.glob("csrc/core/*.cu")]:
        source.unlink()  # two small files tell as much, sooner
    (tree / "csrc" / "core" / "all_cpu.cpp").write_text("int all_cpu() { return 1; }\n")
    (tree / "csrc" / "core" / "all_cuda.cu").write_text("#error of this test\n")
    version = ".".join(toolkit.version.split(".")[:2])
    prelude = f"import torch; torch.version.cuda = '{version}'"  # as where WGAN_KERNELS_CUDA=auto looks for nvcc
    done = set_up(tree, prelude, WGAN_KERNELS_CUDA="auto")
    assert done.returncode == 0 and "error of this test" in done.stdout, done.stdout
    report = json.loads((tree / "wgan_kernels" / "_build.json").read_text())
    assert report["cuda"] is None and "did not compile" in report["without_cuda"] and "error" not in report
    assert (tree / "wgan_kernels" / "_C.abi3.so").exists()
    asked = set_up(tree, prelude, WGAN_KERNELS_CUDA="1")
    assert asked.returncode != 0, "CUDA that was asked for must not be left out without an error"


@pytest.mark.parametrize(("variable", "value", "error"), [
    ("TORCH_CUDA_ARCH_LIST", "Hopper", "TORCH_CUDA_ARCH_LIST must hold numbers such as 9.0"),
    ("CUDA_HOME", "/nowhere", "no CUDA compiler was found"),
])  # fmt: skip
def test_a_wrong_environment_is_refused(variable: str, value: str, error: str, tmp_path: Path) -> None:
    require_toolkit()
    tree = copy_sources(tmp_path / "source")
    done = set_up(tree, WGAN_KERNELS_CUDA="1", **{variable: value})
    assert done.returncode != 0 and error in done.stdout


def test_nvcc_of_the_python_packages_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "nvidia" / "cu13"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "lib" / "libcudart_static.a").touch()
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho '#$ _HERE_={home}/bin'\necho 'release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    toolkit = cuda_toolkit.find()
    assert toolkit == cuda_toolkit.Toolkit(home, "13.0.88") and toolkit.libraries == home / "lib"
    (home / "lib" / "libcudart_static.a").unlink()
    assert cuda_toolkit.find() != toolkit, "a compiler without the runtime to link is of no use"


def test_the_check_of_resources_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    log = """
ptxas info    : Compiling entry function '_ZN3wgk3setEPf' for 'sm_90'
ptxas info    : Function properties for _ZN3wgk3setEPf
    16 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 512 bytes smem
"""
    found, spills = cuda_resources.parse(log)
    assert found == {"sm_90": {"wgk::set": [40, 512, 16]}} and len(spills) == 1 and "4 bytes spill stores" in spills[0]
    known = {"nvcc": "13.0.88", "kernels": {"sm_90": {"wgk::set": [41, 512, 16]}}}
    monkeypatch.setattr(cuda_resources, "table", lambda: known)
    assert len(cuda_resources.differences(found, "13.0.88")) == 1 and cuda_resources.differences(found, "13.1.1") == []
    known["kernels"]["sm_90"] = {"wgk::other": [40, 512, 16]}
    assert len(cuda_resources.differences(found, "13.1.1")) == 2
