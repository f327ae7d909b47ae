"""What is timed on a GPU: each case checks its contenders, then times them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import wgan_kernels as wk
from benchmarks import gpu_timing as timing
from benchmarks.bench_bias_leaky_relu import GAIN, SLOPE, double_backward, layer_for, off_the_kink
from benchmarks.bench_bias_leaky_relu import eager as eager_bias_leaky_relu
from benchmarks.bench_group_norm import TENSORS_MOVED, second_order
from benchmarks.bench_kernel_sums import eager as eager_mmd2
from benchmarks.bench_kernel_sums import rbf
from benchmarks.bench_norm_penalty import eager as eager_norm_penalty
from benchmarks.bench_rmsprop_clip import LR, Plain
from benchmarks.bench_weight_clip import foreach, loop
from wgan_kernels.optim import ClippedRMSprop

BOUND = 0.01


@dataclass
class Case:
    """Seconds of every contender; what was computed from rates; and the bars, a ratio for each."""

    name: str
    how: str
    seconds: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def ratios(self, back_end: str) -> dict[str, float]:
        """How much faster than each other contender, and which share of each ceiling."""
        ours = self.seconds[back_end]
        others = {name: each for name, each in self.seconds.items() if name not in timing.BACK_ENDS}
        return {name: each / ours for name, each in {**others, **self.ceilings}.items()}


def working(case: Case, contenders: dict[str, Callable[[], object]], check: Callable[[object], float]) -> dict:
    """The contenders that compute the right thing; `check` gives the error of a result, or raises."""
    right = {}
    for name, call in contenders.items():
        try:
            case.errors[name] = check(timing.under(name, call))
            right[name] = call
        except Exception as error:
            case.problems.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    allowed = 2 * case.errors.get("eager", 0.0) + 1e-6
    for name in [name for name in right if name in timing.BACK_ENDS and case.errors[name] > allowed]:
        case.problems.append(f"{name}: error {case.errors[name]:.1e}, allowed {allowed:.1e}")
        del right[name]
    return right


def relative(result: Tensor, exact: Tensor) -> float:
    assert result.shape == exact.shape, f"{tuple(result.shape)} for {tuple(exact.shape)}"
    error = (result.detach().double() - exact).abs().max() / exact.abs().max()
    assert error.isfinite(), "the result is not finite"
    return error.item()


def clip_one_large() -> Iterator[Case]:
    case = Case("clip_weights_, one tensor of 1 GB", "calls", bars={"copy": 0.85})
    values = torch.randn(1 << 28, device="cuda")
    weights, other = values.clone(), torch.empty_like(values)
    expected = values.clamp(-BOUND, BOUND)

    def check(_: object) -> float:
        assert torch.equal(weights, expected), "not as clamp_"
        weights.copy_(values)
        return 0.0

    contenders = {
        "native": lambda: wk.clip_weights_(weights, BOUND),
        "triton": lambda: wk.clip_weights_(weights, BOUND),
        "eager": lambda: weights.clamp_(-BOUND, BOUND),
    }
    right = working(case, contenders, check)
    case.seconds = timing.in_turns({**right, "copy": lambda: other.copy_(weights)}, rounds=15, times=3)
    yield case


def clip_many_small() -> Iterator[Case]:
    case = Case("clip_weights_, 60 small tensors", "calls", bars={"a loop of clamp_": 10.0})
    values = [torch.randn(size, device="cuda") for _ in range(20) for size in (64, 256, 16)]
    params = [value.clone() for value in values]

    def check(_: object) -> float:
        for param, value in zip(params, values):
            assert torch.equal(param, value.clamp(-BOUND, BOUND)), "not as clamp_"
            param.copy_(value)
        return 0.0

    contenders = {
        "native": lambda: wk.clip_weights_(params, BOUND),
        "triton": lambda: wk.clip_weights_(params, BOUND),
        "a loop of clamp_": lambda: loop(params),
        "_foreach_clamp_min_/max_": lambda: foreach(params),
    }
    case.seconds = timing.in_turns(working(case, contenders, check), rounds=30, times=20)
    yield case


def optimiser_steps(case: Case, sizes: list[int]) -> dict[str, Callable[[], object]]:
    """The contenders that step as torch's RMSprop and clamp_ do."""
    values = [torch.randn(size, device="cuda") * BOUND for size in sizes]
    grads = [torch.randn(size, device="cuda") for size in sizes]
    contenders, params = {}, {}
    for name in ("native", "triton", "RMSprop and clamp_", "RMSprop(foreach=True) and clamp_"):
        params[name] = [torch.nn.Parameter(value.clone()) for value in values]
        for param, grad in zip(params[name], grads):
            param.grad = grad
        if name in timing.BACK_ENDS:
            contenders[name] = ClippedRMSprop(params[name], lr=LR, clip=BOUND).step
        else:
            contenders[name] = Plain(params[name], "foreach" in name).step

    def stepped(name: str) -> list[Tensor]:
        contenders[name]()
        return params[name]

    exact = [torch.nn.Parameter(value.double()) for value in values]
    for param, grad in zip(exact, grads):
        param.grad = grad.double()
    Plain(exact, False).step()

    def check(result: list[Tensor]) -> float:
        return max(relative(param, wide.detach()) for param, wide in zip(result, exact))

    calls = {name: functools.partial(stepped, name) for name in contenders}
    return {name: contenders[name] for name in working(case, calls, check)}


def clipped_step_large() -> Iterator[Case]:
    count = 1 << 27
    case = Case("ClippedRMSprop, one tensor of 512 MB", "calls")
    case.bars = {"RMSprop(foreach=True) and clamp_": 2.5, "copy": 0.8}
    case.seconds = timing.in_turns(optimiser_steps(case, [count]), rounds=10, times=2)
    case.ceilings["copy"] = 20 * count / timing.copy_rate()
    yield case


def clipped_step_small() -> Iterator[Case]:
    case = Case("ClippedRMSprop, 60 small tensors", "calls", bars={"RMSprop(foreach=True) and clamp_": 3.0})
    case.seconds = timing.in_turns(optimiser_steps(case, [64, 256, 16] * 20), rounds=30, times=20)
    yield case


def norm_penalty() -> Iterator[Case]:
    # Several of them, more than the cache holds, are gone through in every call.
    shape, sets = (256, 3, 64, 64), 8
    grads = [torch.randn(shape, device="cuda", requires_grad=True) for _ in range(sets)]
    functions = {"native": wk.norm_penalty, "triton": wk.norm_penalty, "eager": eager_norm_penalty}

    def steps(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return [torch.autograd.grad(function(grad), grad)[0] for grad in grads]

    wide = grads[0].detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(eager_norm_penalty(wide), wide)
    contenders = {name: lambda function=function: steps(function) for name, function in functions.items()}
    bars = {"eager": 3.0, "copy": 0.7}
    for how in ("graph", "calls"):
        case = Case(f"norm_penalty forward + backward, {shape} float32", how, bars=bars if how == "graph" else {})
        right = working(case, contenders, lambda results: relative(results[0], exact))
        if how == "graph":
            right = {name: timing.as_graph(name, call) for name, call in right.items()}
        seconds = timing.in_turns(right, rounds=30, times=3)
        case.seconds = {name: each / sets for name, each in seconds.items()}
        # Read once forward; read and written once backward.
        case.ceilings["copy"] = 3 * 4 * grads[0].numel() / timing.copy_rate()
        yield case


def bias_leaky_relu() -> Iterator[Case]:
    shape = (256, 128, 32, 32)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(shape, device="cuda")
        layer = layer_for(x).cuda()
        x = off_the_kink(x, layer.bias).contiguous(memory_format=memory_format).requires_grad_()
        grad_y = torch.randn_like(x).requires_grad_()
        along = [torch.randn_like(x), torch.randn_like(layer.bias)]

        def step(call: Callable[[Tensor], Tensor], x=x, layer=layer, grad_y=grad_y, along=along) -> Tensor:
            return double_backward(call, x, layer.bias, grad_y, along)[3]

        contenders = {
            "native": functools.partial(step, layer),
            "triton": functools.partial(step, layer),
            "eager": functools.partial(step, lambda x, layer=layer: eager_bias_leaky_relu(x, layer.bias)),
        }
        bars = {"eager": 2.0, "copy": 0.7}
        name = f"BiasLeakyReLU forward + backward + double backward, {shape} {memory_format}"
        case = Case(name, "calls", bars=bars)
        exact = (along[0] + along[1].view(1, -1, 1, 1)).double()
        exact *= torch.where(eager_bias_leaky_relu(x.detach(), layer.bias.detach()) > 0, GAIN, GAIN * SLOPE)
        right = working(case, contenders, lambda result, exact=exact: relative(result, exact))
        case.seconds = timing.in_turns(right, rounds=15, times=3)
        # x, and twice a gradient and y, are read; y and twice a gradient are written.
        case.ceilings["copy"] = 8 * 4 * x.numel() / timing.copy_rate()
        yield case


def normalization() -> Iterator[Case]:
    """Forward, backward and double backward, as a gradient penalty has them."""
    for name, shape in (("LayerNorm", (4096, 1024)), ("GroupNorm", (256, 128, 32, 32))):
        make = (lambda: nn.LayerNorm(1024)) if name == "LayerNorm" else (lambda: nn.GroupNorm(8, 128))
        theirs, ours = make().cuda(), wk.nn.convert_layers(make().cuda())
        x, grad_y, along = (torch.randn(shape, device="cuda") for _ in range(3))
        x.requires_grad_()
        wide = [t.detach().double().requires_grad_() for t in (x, grad_y, along)]
        exact = second_order(make().cuda().double(), *wide)
        layers = {"native": ours, "triton": ours, "eager": theirs}
        contenders = {each: functools.partial(second_order, layer, x, grad_y, along) for each, layer in layers.items()}
        case = Case(f"{name}, {shape} float32: forward + backward + double backward", "calls", bars={"eager": 4.0})

        def check(results: list[Tensor], exact: list[Tensor] = exact) -> float:
            return max(relative(result, wide.detach()) for result, wide in zip(results, exact))

        case.seconds = timing.in_turns(working(case, contenders, check), rounds=20, times=2)
        case.ceilings["copy"] = TENSORS_MOVED * x.numel() * 4 / timing.copy_rate()
        yield case


@contextmanager
def matrix_products_in(precision: str) -> Iterator[None]:
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def pairs_ceilings(n: int, d: int, precision: str) -> dict[str, float]:
    """Seconds of 2 n^2 pairs, each once: products of d numbers, and one exponential."""
    operations = 4 * n * n * d
    products = operations / timing.matrix_product_rate(precision)
    if precision == "ieee":  # three products in TF32 have the digits of one in float32
        products = min(products, 3 * operations / timing.matrix_product_rate("tf32"))
    return {"tighter ceiling": max(products, 2 * n * n / timing.exponential_rate())}


def mmd2_large() -> Iterator[Case]:
    n, d, bandwidth = 16384, 64, 8.0
    x, y = torch.randn(n, d, device="cuda"), torch.randn(n, d, device="cuda") + 0.1
    kernel, value_of = wk.kernels.RBF(bandwidth), rbf(bandwidth)
    exact = eager_mmd2(x.double(), y.double(), value_of)
    contenders = {
        "native": lambda: wk.mmd2(x, y, kernel),
        "triton": lambda: wk.mmd2(x, y, kernel),
        "eager": lambda: eager_mmd2(x, y, value_of),
    }
    for precision in ("ieee", "tf32"):
        case = Case(f"mmd2 RBF forward, n = m = {n}, d = {d}, float32 ({precision})", "calls")
        case.ceilings = pairs_ceilings(n, d, precision)
        if precision == "ieee":
            case.bars = {"eager": 5.0, "tighter ceiling": 0.5}
        with matrix_products_in(precision):
            # A small difference of means of order 1: the error is that of the means.
            right = working(case, contenders, lambda value: abs(value.item() - exact.item()))
            case.seconds = timing.in_turns(right, rounds=9, times=2)
        yield case


def mmd2_small() -> Iterator[Case]:
    n, d, bandwidth = 64, 8, 3.0
    x, y = torch.randn(n, d, device="cuda", requires_grad=True), torch.randn(n, d, device="cuda") + 0.3
    kernel, value_of = wk.kernels.RBF(bandwidth), rbf(bandwidth)

    def step(function: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(function(x), x)[0]

    wide = x.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(eager_mmd2(wide, y.double(), value_of), wide)
    contenders = {
        "native": lambda: step(lambda x: wk.mmd2(x, y, kernel)),
        "triton": lambda: step(lambda x: wk.mmd2(x, y, kernel)),
        "eager": lambda: step(lambda x: eager_mmd2(x, y, value_of)),
    }
    for how in ("calls", "graph"):
        bars = {"eager": 5.0} if how == "calls" else {}
        case = Case(f"mmd2 RBF forward + backward, n = m = {n}, d = {d}, float32", how, bars=bars)
        right = working(case, contenders, lambda grad: relative(grad, exact))
        if how == "graph":
            right = {name: timing.as_graph(name, call) for name, call in right.items()}
        case.seconds = timing.in_turns(right, rounds=30, times=20)
        yield case


ALL = (
    clip_many_small,
    clip_one_large,
    clipped_step_small,
    clipped_step_large,
    norm_penalty,
    normalization,
    bias_leaky_relu,
    mmd2_small,
    mmd2_large,
)
