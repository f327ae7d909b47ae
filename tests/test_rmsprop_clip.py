"""rmsprop_clip_: the numbers of torch.optim.RMSprop and clamp_, wherever the tensors lie."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import DTYPES, LARGE, SHAPES, assert_same_bits, each_backend, lay_out, samples
from tolerances import assert_as_good_as_torch, assert_rounded
from torch import Tensor, nn

import wgan_kernels as wk
from wgan_kernels.ops.rmsprop_clip import rmsprop_clip_
from wgan_kernels.optim import ClippedRMSprop

CLIP = 0.3
SETTINGS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"centered": True, "eps": 1e-4},
    {"centered": True, "eps": 1e-4, "momentum": 0.5, "weight_decay": 0.1, "maximize": True},
    {"weight_decay": 0.2, "alpha": 0.5, "eps": 1e-2},
    {"maximize": True, "alpha": 0.3, "centered": True, "eps": 1e-3},
]
LAYOUTS = ("contiguous", "offset", "columns", "rows", "transposed", "permuted")


def parameters(shapes: Any, dtype: torch.dtype, layout: str = "contiguous", device: str = "cpu") -> list[nn.Parameter]:
    values = [(samples(shape, dtype, seed=k) * 0.3).to(device) for k, shape in enumerate(shapes)]
    return [nn.Parameter(lay_out(x, layout if x.dim() else "contiguous")) for x in values]


def widened(params: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(param.detach().double().cpu()) for param in params]


def run(optimiser: Any, params: list[nn.Parameter], steps: int = 3, layout: str = "contiguous") -> dict[str, Tensor]:
    """Weights and states after some steps; torch's optimisers are followed by clamp_."""
    for step in range(steps):
        for k, param in enumerate(params):
            grad = samples(tuple(param.shape), param.dtype, seed=100 * step + k).to(torch.bfloat16).to(param)
            grad = lay_out(grad, layout if param.dim() else "contiguous")
            param.grad = grad if type(optimiser) is ClippedRMSprop else grad.contiguous()
        optimiser.step()
        if type(optimiser) is torch.optim.RMSprop:
            with torch.no_grad():
                for param in params:
                    param.clamp_(-CLIP, CLIP)
    states = [{"param": param, **optimiser.state[param]} for param in params]
    return {f"{k} {name}": x.detach().cpu() for k, each in enumerate(states) for name, x in each.items()}


def assert_is_rmsprop(
    dtype: torch.dtype,
    settings: dict[str, Any],
    shapes: Any,
    layout: str = "contiguous",
    of_grad: str = "contiguous",
    device: str = "cpu",
) -> None:
    ours = parameters(shapes, dtype, layout, device)
    plain = [nn.Parameter(param.detach().cpu().clone()) for param in ours]
    exact = widened(ours)
    around = [param.untyped_storage().clone().cpu() for param in ours]
    result = run(ClippedRMSprop(ours, lr=0.02, clip=CLIP, **settings), ours, layout=of_grad)
    plainly = run(torch.optim.RMSprop(plain, lr=0.02, **settings), plain, layout=of_grad)
    exactly = run(torch.optim.RMSprop(exact, lr=0.02, **settings), exact, layout=of_grad)
    for name, exact_one in exactly.items():
        # Gradients of both signs are added up in their average.
        terms = (1 - settings.get("alpha", 0.99)) * 3.0 if name.endswith("grad_avg") else 0.0
        if not name.endswith("step"):
            assert_as_good_as_torch(result[name], plainly[name], exact_one, f"{name}, {settings}", terms)
    assert result.keys() == plainly.keys() == exactly.keys()
    for param, storage in zip(ours, around, strict=True):
        memory = torch.empty(0, dtype=dtype).set_(storage)
        memory.as_strided(param.shape, param.stride(), param.storage_offset()).copy_(param.detach())
        now = torch.empty(0, dtype=dtype).set_(param.untyped_storage().cpu())
        assert_same_bits(now, memory, "what is around a parameter")


@pytest.mark.parity
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_is_rmsprop_and_clamp(backend: str, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    assert_is_rmsprop(dtype, settings, [*SHAPES, (), (64,), *([LARGE] if dtype == torch.float32 else [])])


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend: str, layout: str) -> None:
    shapes = [(5, 3, 4, 2), (4, 63), (7,), (3, 1, 2)]
    for dtype in (torch.float32, torch.bfloat16):
        for of_grad in ("contiguous", layout, "transposed", "expanded", "expanded_batch"):
            assert_is_rmsprop(dtype, SETTINGS[3], shapes, layout, of_grad)


def arguments(dtype: torch.dtype = torch.float32, shapes: Any = ((33,), (4, 5), ())) -> dict[str, Any]:
    """Everything at once; the steps are on the way from 3 to 4."""
    lists = {name: [samples(shape, dtype, seed=10 * k + j) * 0.1 for j, shape in enumerate(shapes)]
             for k, name in enumerate(("params", "grads", "square_avgs", "momentum_buffers", "grad_avgs"))}  # fmt: skip
    lists["square_avgs"] = [x.abs() + 1 for x in lists["square_avgs"]]
    return {
        **lists,
        "steps": [torch.tensor(3.0, dtype=(torch.float32, torch.float64)[k % 2]) for k in range(len(shapes))],
        "stats": torch.zeros(2, dtype=torch.int64),
        "lr": torch.tensor(0.05),
        "grad_scale": torch.tensor(4.0),
        "found_inf": torch.tensor(0.0),
        **{"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.8, "maximize": True},
        **{"low": -0.1, "high": 0.05},
    }


def call(given: dict[str, Any]) -> list[Tensor]:
    """Every tensor that was written, after the call."""
    lists = [given[name] for name in ("params", "grads", "square_avgs", "momentum_buffers", "grad_avgs", "steps")]
    rmsprop_clip_(*lists, **{name: value for name, value in given.items() if not isinstance(value, list)})
    written = [tensor for tensors in (lists[0], *lists[2:]) for tensor in tensors]
    return [*written, *([given["stats"]] if given["stats"] is not None else [])]


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_tensors(backend: str, dtype: torch.dtype) -> None:
    for wide in (False, True):
        given = arguments(dtype)
        if wide:
            given.update({name: given[name].double() for name in ("lr", "grad_scale", "found_inf")})
        plain = copy.deepcopy(given)
        plain.update(lr=given["lr"].item(), grad_scale=None, found_inf=None)
        plain["grads"] = [grad / 4 for grad in plain["grads"]]
        for a, b in zip(call(given), call(plain), strict=True):
            torch.testing.assert_close(a, b, rtol=2 * torch.finfo(dtype).eps, atol=2**-133)
        assert [step.item() for step in given["steps"]] == [4.0] * 3


@pytest.mark.parity
def test_nothing_is_done_where_an_infinity_was_found(backend: str) -> None:
    given = arguments()
    given["found_inf"] = torch.tensor(1.0)
    before = copy.deepcopy(given)
    after = call(given)
    for name in ("params", "square_avgs", "momentum_buffers", "grad_avgs", "steps"):
        for a, b in zip(given[name], before[name], strict=True):
            assert_same_bits(a, b, name)
    assert after[-1].tolist() == [0, 0]


@pytest.mark.parity
@pytest.mark.parametrize("alone", [False, True], ids=["step", "clip alone"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_stats_are_counted_in_the_same_pass(backend: str, dtype: torch.dtype, alone: bool) -> None:
    given = arguments(dtype, [(1000,), (0,), (37, 3), (), (70_001,)])
    if alone:
        names = ("grads", "square_avgs", "momentum_buffers", "grad_avgs", "steps")
        given.update({name: [] for name in names}, found_inf=None, grad_scale=None)
    given.update(low=-0.01, high=0.1)
    given["stats"] = torch.tensor([5, 0])
    call(given)
    weights = torch.cat([param.flatten() for param in given["params"]])
    low, high = (torch.tensor(bound, dtype=torch.float64).to(dtype) for bound in (-0.01, 0.1))
    expected = int(((weights == low) | (weights == high)).sum())
    assert expected > 1000 and given["stats"].tolist()[0] == 5 + expected
    assert given["stats"][1:].view(torch.float64).item() == weights.abs().max().item() == high.item()
    given["params"][0][3] = torch.nan
    call(given)
    assert given["stats"][1:].view(torch.float64).isnan().all(), "a NaN is the largest of all"


@pytest.mark.parity
def test_nan_and_infinity_pass_as_in_torch(backend: str) -> None:
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 1.0, -0.0, 1e-45] * 7)
    values, grads = special.repeat_interleave(7), special.repeat(7)
    for settings in SETTINGS[:2]:
        ours, theirs = nn.Parameter(values.clone()), nn.Parameter(values.clone())
        for param, optimiser in ((ours, ClippedRMSprop), (theirs, torch.optim.RMSprop)):
            param.grad = grads.clone()
            optimiser([param], lr=0.1, **({"clip": CLIP} if param is ours else {}), **settings).step()
        expected = theirs.detach().clamp(-CLIP, CLIP)
        assert torch.equal(ours.isnan(), expected.isnan())
        torch.testing.assert_close(ours.detach(), expected, equal_nan=True)


def test_a_variance_that_rounding_makes_negative_is_zero(backend: str) -> None:
    param = nn.Parameter(torch.full((64,), 0.02))
    optimiser = ClippedRMSprop([param], lr=1e-9, centered=True, alpha=0.5)
    for _ in range(60):
        param.grad = torch.linspace(0.1, 3.0, 64)
        optimiser.step()
    assert param.isfinite().all() and param.abs().max() <= 0.0100001


def test_same_bits_for_any_number_of_threads(native: None, one_and_two_threads: tuple[int, int]) -> None:
    """Very many small tensors and a large one."""
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        results.append(call(arguments(torch.float32, [*[(k % 70,) for k in range(2000)], (300_007,)])))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_errors_are_worded_and_nothing_is_written() -> None:
    def wrong() -> Iterator[tuple[str, dict[str, Any], type[Exception], str]]:
        yield "grads", {"grads": [torch.ones(33), torch.ones(5, 4), torch.ones(())]}, ValueError, r"grads\[1\]"
        yield "dtype", {"square_avgs": [torch.ones(33).double(), *arguments()["square_avgs"][1:]]}, TypeError, "float64"
        yield "params", {"params": [torch.ones(33, dtype=torch.int32), *arguments()["params"][1:]]}, TypeError, "int32"
        expanded = torch.ones(1).expand(33)
        yield "expanded", {"params": [expanded, *arguments()["params"][1:]]}, ValueError, "expanded"

    for name, change, error, word in wrong():
        messages = set()
        for back_end in each_backend():
            given = {**arguments(), **change}
            before = copy.deepcopy(given["params"])
            with pytest.raises(error, match=word) as caught:
                call(given)
            assert all(torch.equal(a, b) for a, b in zip(given["params"], before)), f"{name}, {back_end}"
            messages.add(str(caught.value))
        assert len(messages) == 1, messages


def test_opcheck(native: None) -> None:
    given = arguments()
    lists = [given[name] for name in ("params", "grads", "square_avgs", "momentum_buffers", "grad_avgs", "steps")]
    numbers = (given["stats"], given["lr"], given["grad_scale"], given["found_inf"], 0.0, 0.9, 1e-3, 0.1, 0.8, True)
    operator = torch.ops.wgan_kernels.rmsprop_clip_.default
    results = torch.library.opcheck(operator, (*lists, *numbers, -0.1, 0.05))
    assert set(results.values()) == {"SUCCESS"} and len(results) == 4
    bare = (lists[0], lists[1], lists[2], [], [], lists[5], None, None, None, None, 0.1, 0.9, 1e-3, 0.1, 0.0, False)
    assert set(torch.library.opcheck(operator, (*bare, -0.1, 0.05)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("settings", [SETTINGS[0], {**SETTINGS[3], "lr": torch.tensor(0.02)}], ids=["plain", "all"])
def test_a_compiled_step_is_the_eager_one(backend: str, settings: dict[str, Any]) -> None:
    results = []
    for compiled in (True, False):
        params = parameters([(33,), (4, 5), (3,)], torch.float32)
        optimiser = ClippedRMSprop(params, **{"lr": 0.02, "clip": CLIP, **settings})
        step = torch.compile(optimiser.step, backend="aot_eager", fullgraph=True) if compiled else optimiser.step
        for seed in range(3):
            for param in params[:2]:
                param.grad = samples(tuple(param.shape), torch.float32, seed=seed)
            step()
        states = [optimiser.state[param][name] for param in params[:2] for name in sorted(optimiser.state[param])]
        results.append([*(param.detach() for param in params), *states])
        assert params[0]._version >= 3 or not compiled
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_weights_says_what_became_of_them(backend: str, dtype: torch.dtype) -> None:
    params = parameters([(1000,), (0,), (30, 7), ()], dtype, "columns")
    expected = [param.detach().clone().clamp_(-0.1, 0.2) for param in params]
    stats = wk.clip_weights_([*params, params[0]], -0.1, 0.2, return_stats=True)
    for param, clipped in zip(params, expected, strict=True):
        assert_same_bits(param.detach(), clipped)
    flat = torch.cat([clipped.flatten() for clipped in expected])
    bounds = [torch.tensor(bound, dtype=torch.float64).to(dtype) for bound in (-0.1, 0.2)]
    assert_rounded(stats.at_bound, ((flat == bounds[0]) | (flat == bounds[1])).double().mean())
    assert isinstance(stats, wk.ClipStats) and stats.largest.item() == flat.abs().max().item()
    assert all(param._version > 0 for param in params)
    loose = wk.clip_weights_(params, 5.0, return_stats=True)
    assert loose.at_bound.item() == 0 and loose.largest.item() == flat.abs().max().item()
