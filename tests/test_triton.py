"""The Triton kernels without a GPU: run by Triton's interpreter, seen by the tracer, and named as the native ones."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import lay_out
from torch import Tensor

pytestmark = pytest.mark.usefixtures("triton")
TESTS = Path(__file__).parent
PAIR_OPERATORS = ("kernel_sums", "kernel_matvec")


def test_every_kernel_on_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "interpreted")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"\d\d+ passed", done.stdout) and " skipped" not in done.stdout


def test_kernels_are_compiled_to_what_the_table_says() -> None:
    """For sm_90; `make wheel` compiles them for every architecture. Registers and spills are those of the Triton that
    the table names, which the project's tests install; with another one, the rest is looked at."""
    import triton

    pinned = json.loads((TESTS / "triton_resources.json").read_text())["triton"]
    assert f'"triton=={pinned}"' in (TESTS.parent / "pyproject.toml").read_text()
    command = [sys.executable, str(TESTS / "triton_resources.py"), "--check", "sm_90"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=1800)
    again = "if this is meant: python tests/triton_resources.py --write\n"
    assert done.returncode == 0, again + done.stdout[-3000:] + done.stderr[-5000:]
    held = "as in the table, none spills" if triton.__version__ == pinned else f"the table is of Triton {pinned}"
    assert re.match(r"\d\d+ kernels for sm_\d+", done.stdout) and held in done.stdout


def test_sizes_compile_and_tune_few_variants() -> None:
    """Only sizes that say how memory is aligned are compiled for; what is tuned for has one key for many sizes."""
    from triton_launches import launches

    from wgan_kernels._triton import _launch

    kernels = {id(launch.kernel): launch for launch in launches()}
    assert len(kernels) > 8
    for launch in kernels.values():
        parameters = launch.kernel.params
        numbers = [each for each in parameters if not each.is_constexpr and type(launch.arguments[each.name]) is int]
        special = {each.name for each in numbers if not each.do_not_specialize}
        assert special <= {"D", "P"}, (launch.name, special)
    assert all(tuner.keys == ["size_class"] for tuner in tuners().values())
    assert {_launch.size_class(D) for D in range(1025, 2049)} == {2048}
    assert len({_launch.size_class(D) for D in range(1, 1 << 16)}) == 17
    assert {_launch.feature_class(D) for D in range(1 << 10)} == {16, 32, 64, 128}


def test_sums_have_one_order_wherever_tensors_begin() -> None:
    """Loads of several numbers at once need boundaries; what is added up must not depend on whether there are any."""
    from triton_launches import recorded
    from triton_resources import binary_for, order_of

    def orders(offset: int) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for dtype, shape in ((torch.float32, (8, 16, 256)), (torch.float64, (8, 4096))):
            x = lay_out(torch.zeros(shape, dtype=dtype), "offset" if offset else "contiguous")
            value, norms = torch.ones((), dtype=dtype), torch.ones(8, dtype=torch.float64)
            with recorded(str(dtype), seen):
                operators.bias_leaky_relu_backward_triton(x, x, 0.2, 1.0, None, True)
                operators.norm_penalty_triton(x, 1.0, False, 1, 10.0)
                operators.norm_penalty_double_backward_triton(x, value, x, norms, 1.0, False, 1, 10.0)
        found = {}
        for name, launch in seen.items():
            binary = binary_for(launch, "sm_90", with_sizes=True)
            found[name] = order_of(binary.asm["ptx"], binary.asm["ttgir"])[1]
        return found

    triton_operators()
    operators = torch.ops.wgan_kernels
    aligned, offset = orders(0), orders(1)
    assert len(aligned) > 6 and sum(map(len, aligned.values())) > 6
    assert aligned == offset


def tuners() -> dict[str, Any]:
    """Everything that has several configurations."""
    from triton.runtime.autotuner import Autotuner

    from wgan_kernels._triton import _layer_products, group_norm, interpolate, kernel_matvec, kernel_sums, norm_penalty

    found = {}
    for module in (_layer_products, group_norm, interpolate, kernel_matvec, kernel_sums, norm_penalty):
        for name, value in vars(module).items():
            for key, each in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(each, Autotuner) and len(each.configs) > 1:
                    found[f"{name} {key}".strip()] = each
    return found


def test_every_sweep_over_pairs_is_tuned() -> None:
    products = {f"{operator}_kernels tf32x3" for operator in PAIR_OPERATORS} | {"kernel_sums_kernels tf32"}
    exact = {f"{operator}_exact_kernel" for operator in PAIR_OPERATORS} | {"kernel_sums_exact_wide_kernel"}
    assert products | exact <= set(tuners())


def test_nothing_is_tuned_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph gets what was chosen before, or else the first configuration, which is not taken for a choice."""
    capturing = True
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    for name, tuner in tuners().items():
        launched: list[dict[str, Any]] = []
        timed: list[float] = []

        def bench(call: Any, quantiles: Any, timed: list[float] = timed) -> list[float]:
            timed.append(-float(len(timed)))  # so that the last is the fastest
            return [timed[-1]] * 3

        run = lambda *args, launched=launched, **settings: launched.append(settings)  # noqa: E731
        monkeypatch.setattr(tuner.fn, "run", run)
        mine = copy.copy(tuner)
        mine.cache, mine._do_bench = copy.copy(tuner.cache), bench
        given = {each: 1 for each in tuner.arg_names if each not in tuner.configs[0].kwargs}
        for capturing, chosen, times in (  # noqa: B007 - read by what stands for torch
            (True, 0, 0),
            (False, -1, len(tuner.configs)),
            (False, -1, len(tuner.configs)),
            (True, -1, len(tuner.configs)),
        ):
            mine.run(grid=(1,), warmup=False, **given)
            expected = tuner.configs[chosen].all_kwargs()
            assert launched[-1].items() >= expected.items() and len(timed) == times, (name, capturing, launched[-1])


def test_what_the_first_launch_compiles_with_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wgan_kernels import _toolchain

    monkeypatch.setattr(_toolchain, "INTERPRETED", False)
    monkeypatch.setenv("CC", "cc")
    monkeypatch.delenv("CPATH", raising=False)
    monkeypatch.delenv("C_INCLUDE_PATH", raising=False)
    elsewhere = tmp_path / "include"
    elsewhere.mkdir()
    monkeypatch.setattr(_toolchain.sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    assert "finds no Python.h" in _toolchain._why_not() and "python3-dev" in _toolchain._why_not()
    (elsewhere / "Python.h").touch()
    assert "finds no Python.h" in _toolchain._why_not()
    monkeypatch.setenv("CPATH", f"{os.pathsep}{elsewhere}")
    assert _toolchain._why_not() is None
    monkeypatch.delenv("CPATH")
    (tmp_path / "Python.h").touch()
    assert _toolchain._why_not() is None
    monkeypatch.setattr(_toolchain.sysconfig, "get_default_scheme", lambda: "posix_local")
    monkeypatch.setattr(_toolchain.sysconfig, "get_paths", lambda scheme: {"include": f"{tmp_path}/{scheme}"})
    (tmp_path / "posix_prefix").mkdir()
    (tmp_path / "posix_prefix" / "Python.h").touch()
    assert _toolchain._why_not() is None


def arguments(schema: Any) -> list[tuple[str, str]]:
    """Names and types; a list may be of symbolic integers, and what it aliases has a name of its own."""
    return [(each.name, re.sub(r"SymInt", "int", str(each.type))) for each in schema.arguments]


def triton_operators() -> dict[str, Any]:
    from wgan_kernels.ops import _triton_operators  # noqa: F401 - registers them

    names = {name for name in torch._C._dispatch_get_all_op_names() if re.fullmatch(r"wgan_kernels::\w+_triton", name)}
    return {name.partition("::")[2]: getattr(torch.ops.wgan_kernels, name.partition("::")[2]).default for name in names}


def test_every_operator_has_one_on_triton_with_the_same_schema() -> None:
    from wgan_kernels.ops import _schemas

    names = [re.match(r"\w+", schema)[0] for schema in _schemas._SCHEMAS if "Tensor" in schema]
    names.remove("norm_penalty_with_grad")  # the CPU's own
    ours = triton_operators()
    assert set(ours) == {f"{name}_triton" for name in names}
    for name in names:
        schema, native = ours[f"{name}_triton"]._schema, getattr(torch.ops.wgan_kernels, name).default._schema
        assert arguments(schema) == arguments(native), name
        assert [str(each.type) for each in schema.returns] == [str(each.type) for each in native.returns], name
        assert schema.is_mutable == native.is_mutable, name


def traced(function: Any, *inputs: Tensor) -> str:
    """The code of the graph that Inductor would be given."""
    from torch._functorch.aot_autograd import aot_function, make_boxed_compiler

    seen = []

    def compiler(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(graph.code)
        raise StopIteration  # nothing here can run it

    with pytest.raises(StopIteration):
        aot_function(function, make_boxed_compiler(compiler))(*inputs)
    return seen[0]


@pytest.mark.filterwarnings("ignore")  # without a device the tracer cannot compile kernels to see what they write
def test_the_tracer_sees_through_the_operators_to_the_kernels() -> None:
    from torch._subclasses import FakeTensorMode

    triton_operators()
    operators = torch.ops.wgan_kernels
    with FakeTensorMode():
        inputs = [torch.empty(n, device="cuda") for n in ((5, 3), 5)]
        inputs += [torch.empty(n, dtype=torch.float64, device="cuda") for n in ((3, 3), 3, (3, 1))]
        mixture = [0, 2, 7], [1.0, 0.5, 3.0]
        calls = {
            "bias_leaky_relu": lambda x, *_: operators.bias_leaky_relu_triton(x, None, 0.2, 1.0, None),
            "group_norm": lambda x, *_: operators.group_norm_triton(x, None, None, 1, 1, 1e-5)[0],
            "interpolate": lambda x, mix, *_: operators.interpolate_triton(x, x, mix),
            "minibatch_discrimination": lambda x, *_: operators.minibatch_discrimination_triton(x.unsqueeze(1), 0, -1),
            "minibatch_stddev": lambda x, *_: operators.minibatch_stddev_triton(x, 5, 1),
            "mlp_critic_loss": lambda x, bias, *_: operators.mlp_critic_loss_triton(
                x, x, x, [x], [bias], [0.2], 1.0, True, 1, 10.0, True
            )[3][0],
            "norm_penalty": lambda x, *_: operators.norm_penalty_triton(x, 1.0, False, 1, 10.0)[0],
            "kernel_sums": lambda x, _, w, each, p: operators.kernel_sums_triton(
                x, x, w, p, *mixture, False, 0, -1, True, 0
            )[0],
            "kernel_matvec": lambda x, _, w, *each: operators.kernel_matvec_triton(
                x, x, x, *each, *mixture, False, 0, 0, -1, True
            ),
        }
        for name, call in calls.items():
            code = traced(call, *inputs)
            assert "triton_kernel_wrapper_functional" in code and f"{name}_triton" not in code, code
