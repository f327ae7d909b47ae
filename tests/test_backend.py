"""Who serves a call: use_backend, the environment, the instruction sets; and life without the compiled library."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import has_native, leaf
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk
from wgan_kernels import _backend, build_info, use_backend
from wgan_kernels.ops.bias_leaky_relu import bias_leaky_relu

TESTS = Path(__file__).parent


class Operators(TorchDispatchMode):
    """The operators of the library that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "wgan_kernels":
            self.names.append(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


def operators() -> list[str]:
    """Which operators one call of each public function reaches."""
    with Operators() as seen:
        grad = leaf(torch.ones(2, 3))
        (first,) = torch.autograd.grad(wk.norm_penalty(grad), grad, create_graph=True)
        first.sum().backward()
        wk.interpolate(torch.ones(2, 3), torch.zeros(2, 3))
        wk.clip_weights_([torch.ones(3)], 0.1)
    return seen.names


NATIVE = ["norm_penalty", "norm_penalty_backward", "norm_penalty_double_backward", "interpolate", "clip_weights_"]
AUTO = NATIVE if has_native() else []


def served_by_native() -> bool:
    names = operators()
    assert names in (NATIVE, []), names
    return names == NATIVE


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    unset = {key: value for key, value in os.environ.items() if not key.startswith("WGAN_KERNELS_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**unset, **environment},
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_native_serves_by_default_and_reference_when_asked(native: None) -> None:
    assert operators() == NATIVE
    with use_backend("auto"):
        assert operators() == NATIVE
    with use_backend("reference"):
        assert operators() == []


def test_as_a_function() -> None:
    try:
        use_backend("reference")
        assert operators() == []
    finally:
        use_backend("auto")
    assert operators() == AUTO


def test_nested_and_restored_after_exceptions() -> None:
    with use_backend("reference"):
        with use_backend("auto"):
            assert operators() == AUTO
            with use_backend("reference"):
                assert operators() == []
            assert operators() == AUTO
        assert operators() == []
    assert operators() == AUTO
    with pytest.raises(KeyError), use_backend("reference"):
        with pytest.raises(ZeroDivisionError), use_backend("auto"):
            raise ZeroDivisionError
        assert operators() == []
        raise KeyError
    assert operators() == AUTO
    use_backend("reference")
    try:
        with use_backend("auto"):
            pass
        assert operators() == [], "leaving the block must bring back what was set before it"
    finally:
        use_backend("auto")


def test_a_block_entered_again_selects_again() -> None:
    chosen = use_backend("reference")
    use_backend("auto")
    for _ in range(2):
        with chosen:
            assert operators() == []
        assert operators() == AUTO
    with use_backend("reference"):
        with chosen, chosen:
            assert operators() == []
        assert operators() == [], "leaving it must bring back what was set when it was entered"
    assert operators() == AUTO


@pytest.mark.parametrize("name", ["nonsense", "", "Native", None, 5, True])
def test_an_unknown_name_is_refused_and_changes_nothing(name: Any) -> None:
    with use_backend("reference"):
        with pytest.raises(ValueError, match=r"name must be one of 'auto', 'native'.*'reference', got " + repr(name)):
            use_backend(name)
        assert operators() == []


def test_without_the_library_native_says_why_and_auto_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgan_kernels._extension.LOAD_ERROR", "it was left at home")
    info = build_info()
    assert info["native"] is False and info["reason"] == "it was left at home"
    assert info["library"] is None and info["cpu_instruction_set"] is None
    with pytest.raises(RuntimeError, match="'native'.*not available.*left at home"):
        use_backend("native")
    assert operators() == []
    monkeypatch.setattr("wgan_kernels._backend._current", "native")  # as the environment may have it
    for call in (lambda: wk.norm_penalty(torch.ones(2, 3)), lambda: wk.clip_weights_([torch.ones(2)], 0.1)):
        with pytest.raises(RuntimeError, match="left at home"):
            call()


def test_missing_library_fails_in_ci_and_skips_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # By its path: the tests of the core have a conftest of their own.
    conftest = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    require_native = conftest["require_native"]
    monkeypatch.setattr("wgan_kernels._extension.LOAD_ERROR", "it was left at home")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="left at home"):
        require_native()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="left at home"):
        require_native()


def test_native_refuses_tensors_it_cannot_serve(native: None) -> None:
    meta = torch.ones(2, 3, device="meta")
    for call in (
        lambda: wk.norm_penalty(meta),
        lambda: wk.interpolate(meta, meta),
        lambda: wk.clip_weights_([meta], 0.1),
    ):
        with pytest.raises(RuntimeError, match="'native'.*meta"):
            call()
        with use_backend("auto"):
            call()


@pytest.mark.parametrize("name", ["reference", "native", "auto", None])
def test_the_environment_sets_the_start(name: str | None, request: pytest.FixtureRequest) -> None:
    if name == "native":
        request.getfixturevalue("native")
    code = "import test_backend as t; print(t.served_by_native()); t.use_backend('auto'); print(t.served_by_native())"
    done = python(code, **({} if name is None else {"WGAN_KERNELS_BACKEND": name}))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(name != "reference" and has_native()), str(has_native())]


def test_a_wrong_environment_is_refused_by_the_first_call() -> None:
    code = "import torch, wgan_kernels as wk; print(wk.build_info()['torch'] != ''); wk.norm_penalty(torch.ones(2, 3))"
    done = python(code, WGAN_KERNELS_BACKEND="nonsense")
    assert done.stdout.split() == ["True"] and done.returncode != 0
    assert "ValueError: WGAN_KERNELS_BACKEND must be one of auto, native, triton, reference" in done.stderr
    assert "'nonsense'" in done.stderr
    calls = "wk.use_backend('auto'); wk.norm_penalty(torch.ones(2, 3)); print('works')"
    done = python(f"import torch, wgan_kernels as wk; {calls}", WGAN_KERNELS_BACKEND="nonsense")
    assert done.stdout.split() == ["works"], done.stderr


CALLS = [
    lambda x: wk.norm_penalty(x),
    lambda x: wk.interpolate(x, x),
    lambda x: wk.clip_weights_([x], 0.1),
    lambda x: wk.mmd2(x, x, wk.kernels.RBF(1.0)),
]


def test_triton_that_is_not_installed_is_asked_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_WHY_NO_TRITON", "the package triton is not installed")
    with pytest.raises(RuntimeError, match="'triton' back end is not available.*not installed"):
        use_backend("triton")
    assert operators() == AUTO
    monkeypatch.setattr(_backend, "_current", "triton")  # as the environment may have it
    for call in CALLS:
        with pytest.raises(RuntimeError, match="'triton' back end is not available.*not installed"):
            call(torch.ones(3, 3))


def test_triton_without_a_c_compiler_is_not_taken(triton: None, tmp_path: Path) -> None:
    code = """
import test_backend as t
try: t.use_backend('triton')
except RuntimeError as error: print(error)
print(t._backend.is_triton(t.OnDevice('cuda:0')), t.build_info()['triton'], t.build_info()['triton_reason'])
"""
    unset = {"CC": "", "TRITON_INTERPRET": "0"}
    done = python(code, PATH=str(tmp_path), **unset)
    assert done.returncode == 0, done.stderr
    assert re.match(r"the 'triton' back end is not available: .* no C compiler.* set CC\n", done.stdout)
    assert re.search(r"False False .* no C compiler", done.stdout)
    for name in ("gcc", "clang"):
        (tmp_path / name).mkdir()
        compiler = tmp_path / name / name
        compiler.write_text("#!/bin/sh\n")
        compiler.chmod(0o755)
        done = python(code, PATH=str(compiler.parent), **unset)
        assert done.stdout.split() == ["True", "True", "None"], done.stdout + done.stderr
    done = python(code, PATH=str(tmp_path), CC="cc", TRITON_INTERPRET="0")
    assert done.stdout.split() == ["True", "True", "None"], done.stdout + done.stderr
    code = "import wgan_kernels as wk; wk.use_backend('triton'); print(wk.build_info()['triton'])"
    done = python(code, PATH=str(tmp_path), CC="", TRITON_INTERPRET="1")
    assert done.stdout.split() == ["True"], "the interpreter compiles nothing: " + done.stderr


def test_triton_refuses_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_WHY_NO_TRITON", None)
    monkeypatch.setattr(_backend, "_INTERPRETED", False)
    with use_backend("triton"):
        for call in CALLS:
            with pytest.raises(RuntimeError, match="'triton' back end serves CUDA tensors, got a tensor on cpu"):
                call(torch.ones(3, 3))


class OnDevice:
    """As much of a tensor as is looked at to choose a back end."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.is_cpu, self.is_cuda = self.device.type == "cpu", self.device.type == "cuda"


@pytest.mark.parametrize("asked", ["auto", "native", "triton", "reference"])
@pytest.mark.parametrize("has_triton", [True, False])
@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda:0", "meta"])
def test_who_serves(device: str, serves: bool, has_triton: bool, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of the design: native where the library serves the device, else Triton on CUDA, else the reference."""
    monkeypatch.setattr(_backend, "_WHY_NO_TRITON", None if has_triton else "it was left at home")
    monkeypatch.setattr(_backend, "_INTERPRETED", False)
    monkeypatch.setattr(_backend, "_current", asked)
    monkeypatch.setattr("wgan_kernels._extension.serves_cuda", lambda device: serves)
    monkeypatch.setattr("wgan_kernels._extension.LOAD_ERROR", None if serves else "it was left at home")
    native = serves and device != "meta"
    triton = has_triton and device == "cuda:0"
    expected = {
        "auto": "native" if native else "triton" if triton else "reference",
        "native": "native" if native else "an error",
        "triton": "triton" if triton else "an error",
        "reference": "reference",
    }[asked]
    x = OnDevice(device)
    try:
        chosen = (
            "native" if _backend.is_native(x, "norm_penalty") else "triton" if _backend.is_triton(x) else "reference"
        )
    except RuntimeError:
        chosen = "an error"
    assert chosen == expected


def test_a_measured_preference_gives_an_operator_to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_INTERPRETED", False)
    monkeypatch.setattr(_backend, "TRITON_FIRST", frozenset({"interpolate"}))
    monkeypatch.setattr("wgan_kernels._extension.serves_cuda", lambda device: True)
    x = OnDevice("cuda:0")
    for has_triton in (True, False):
        monkeypatch.setattr(_backend, "_WHY_NO_TRITON", None if has_triton else "it was left at home")
        with use_backend("auto"):
            assert _backend.is_native(x, "interpolate") != has_triton and _backend.is_native(x, "norm_penalty")
    monkeypatch.setattr(_backend, "_current", "native")
    assert _backend.is_native(x, "interpolate")


@pytest.mark.parametrize("has_triton", [True, False])
def test_mixtures_too_large_for_cuda_go_to_the_next_back_end(has_triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    header = (TESTS.parent / "csrc" / "core" / "kernel_pairs.h").read_text()
    most = int(re.search(r"kMaxComponents = (\d+)", header)[1])
    monkeypatch.setattr(_backend, "_INTERPRETED", False)
    monkeypatch.setattr(_backend, "_WHY_NO_TRITON", None if has_triton else "triton is not installed")
    monkeypatch.setattr(_backend, "_current", "auto")
    monkeypatch.setattr("wgan_kernels._extension.serves_cuda", lambda device: True)
    monkeypatch.setattr("wgan_kernels._extension.LOAD_ERROR", None)
    cpu, cuda = OnDevice("cpu"), OnDevice("cuda:0")
    assert _backend.is_native(cuda, "kernel_sums", most) and _backend.is_native(cpu, "kernel_sums", most + 1)
    assert not _backend.is_native(cuda, "kernel_sums", most + 1) and _backend.is_triton(cuda) == has_triton
    monkeypatch.setattr(_backend, "_current", "native")
    assert _backend.is_native(cuda, "kernel_sums", most + 1), "it says itself what is too much"


@pytest.mark.parametrize("operator", ["kernel_sums", "weighted_kernel_sum", "kernel_matvec"])
def test_operators_over_pairs_say_how_large_their_mixture_is(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wgan_kernels.ops._weighted_kernel_sum import weighted_kernel_sum
    from wgan_kernels.ops.kernel_matvec import kernel_matvec
    from wgan_kernels.ops.kernel_sums import kernel_sums

    asked = []
    monkeypatch.setattr(_backend, "is_native", lambda tensor, operator, components=1: asked.append(components))
    x, kinds, params = torch.ones(2, 3), ("rbf",) * 40, (1.0,) * 40
    with use_backend("reference"):
        if operator == "kernel_matvec":
            kernel_matvec(x, x, torch.ones(2, 1), kinds, params)
        else:
            {"kernel_sums": kernel_sums}.get(operator, weighted_kernel_sum)(x, x, kinds, params, (1.0, 1.0, -2.0))
    assert asked and set(asked) == {40}


def test_importing_takes_no_triton_along() -> None:
    code = """
import sys, torch
before = set(sys.modules)
import wgan_kernels as wk
wk.norm_penalty(torch.ones(2, 3)); wk.mmd2(torch.ones(2, 3), torch.ones(2, 3), wk.kernels.RBF(1.0))
print([name for name in set(sys.modules) - before if name.split(".")[0] == "triton" or "_triton" in name])
"""
    done = python(code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_build_info() -> None:
    info = build_info()
    assert set(info) >= {"native", "reason", "library", "cpu_instruction_set", "torch", "build"}
    assert (info["triton_reason"] is None) == info["triton"]
    assert info["torch"] == torch.__version__
    assert (info["reason"] is None) == info["native"] == (info["library"] is not None)
    assert info["native"] is False or info["cpu_instruction_set"] in ("plain", "avx2", "avx512")
    info["native"] = "changed"
    assert build_info()["native"] != "changed"


# What torch, which has its own eyes, finds in this machine.
FOUND = {"AVX2": ["avx2"], "AVX512": ["avx2", "avx512"]}.get(torch.backends.cpu.get_cpu_capability(), [])


@pytest.mark.parity
def test_the_instruction_set_is_the_one_asked_for(native: None) -> None:
    wanted = os.environ.get("WGAN_KERNELS_ISA", ["plain", *FOUND][-1])
    assert build_info()["cpu_instruction_set"] == wanted


@pytest.mark.parametrize("isa", ["plain", *FOUND])
def test_every_instruction_set_passes_the_parity_tests(native: None, isa: str) -> None:
    if "WGAN_KERNELS_ISA" not in os.environ and isa == build_info()["cpu_instruction_set"]:
        return  # this very process runs them
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "parity", "-k", "not reference-"]
    files = ["test_weight_clip.py", "test_interpolate.py", "test_norm_penalty.py", "test_backend.py"]
    files += ["test_rmsprop_clip.py", "test_bias_leaky_relu.py"]
    # One thread: how rows are shared out among threads has tests of its own, and does not depend on the instructions.
    environment = {**os.environ, "WGAN_KERNELS_ISA": isa, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *files], env=environment, cwd=TESTS, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout and " skipped" not in done.stdout


def test_a_wrong_instruction_set_is_refused_at_the_first_use(native: None) -> None:
    code = "import torch, wgan_kernels as wk; print('imported'); wk.norm_penalty(torch.ones(2, 3))"
    done = python(code, WGAN_KERNELS_ISA="sse9")
    assert done.stdout.strip() == "imported" and done.returncode != 0
    assert "WGAN_KERNELS_ISA must be plain, avx2 or avx512, got sse9" in done.stderr


def test_forward_mode_gives_the_tangents_that_the_reference_has() -> None:
    """The compiled operators have no forward-mode formula, and would lose the tangents without an error."""
    x, u, z = torch.randn(4, 3), torch.randn(4, 3), torch.randn(5, 3)
    functions = {
        "norm_penalty": wk.norm_penalty,
        "bias_leaky_relu": lambda x: bias_leaky_relu(x, x[0]),
        "interpolate": lambda x: wk.interpolate(x, x + 1, torch.rand(4, generator=torch.Generator().manual_seed(0))),
        "mmd2": lambda x: wk.mmd2(x, z.to(x.dtype), wk.kernels.RBF(1.0)),
    }
    for name, function in functions.items():
        with torch.autograd.forward_ad.dual_level():
            out = function(torch.autograd.forward_ad.make_dual(x, u))
            tangent = torch.autograd.forward_ad.unpack_dual(out).tangent
        assert tangent is not None, name
        step = 1e-3
        difference = (function(x.double() + step * u.double()) - function(x.double() - step * u.double())) / (2 * step)
        assert torch.allclose(tangent.double(), difference.double(), rtol=1e-3, atol=1e-4), name
