"""How the operators live with CUDA: streams, graphs, other devices, no waiting, the same bits every time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import pytest
import torch
from cases import assert_same_bits, samples
from tolerances import MATRIX_PRODUCTS, assert_same_by_another_route
from torch import Tensor

import wgan_kernels as wk
from wgan_kernels.ops._mixtures import _KIND_CODES
from wgan_kernels.ops.bias_leaky_relu import bias_leaky_relu
from wgan_kernels.ops.group_norm import group_norm
from wgan_kernels.ops.kernel_matvec import kernel_matvec
from wgan_kernels.ops.kernel_sums import kernel_sums
from wgan_kernels.ops.minibatch_discrimination import minibatch_discrimination
from wgan_kernels.ops.minibatch_stddev import minibatch_stddev
from wgan_kernels.ops.mlp_critic_loss import mlp_critic_loss
from wgan_kernels.ops.rmsprop_clip import rmsprop_clip_

KERNEL = wk.kernels.RBF((2.0, 5.0))


def clipped(weights: Tensor) -> list[Tensor]:
    params = [weights.clone(), weights.bfloat16()]
    wk.clip_weights_(params, -0.3, 0.2)
    return params


def stepped(weights: Tensor, grads: Tensor) -> list[Tensor]:
    """All that a step has, with its numbers on the device."""
    params = [weights.clone(), weights.bfloat16()]
    lists = [[torch.full_like(param, start) for param in params] for start in (1.0, 0.1, 0.0)]
    steps = [torch.zeros((), device=weights.device) for _ in params]
    stats, one = torch.zeros(2, dtype=torch.int64, device=weights.device), torch.ones((), device=weights.device)
    rmsprop_clip_(
        params, [grads, grads.bfloat16()], *lists, steps, lr=one * 0.1, alpha=0.9, eps=1e-3, weight_decay=0.1,
        momentum=0.9, maximize=False, low=-0.3, high=0.2, grad_scale=one * 4, found_inf=one * 0, stats=stats,
    )  # fmt: skip
    return [*params, *lists[0], *lists[1], *lists[2], *steps, stats.double()]


def rectified(x: Tensor, grad_y: Tensor) -> list[Tensor]:
    """Rows of channels, and of samples."""
    results = []
    for shape in ((12, 1500, 20), (12, 10, 3000)):
        each, bias = x.detach().reshape(shape).requires_grad_(), x.detach().flatten()[: shape[1]].requires_grad_()
        along = grad_y.detach().reshape(shape).requires_grad_()
        y = bias_leaky_relu(each, bias, 0.2, 1.4, 1.0)
        first = torch.autograd.grad(y, (each, bias), along, create_graph=True)
        (second,) = torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), along)
        results += [y.detach(), first[0].detach(), first[1].detach(), second]
    return results


def interpolated(real: Tensor, fake: Tensor) -> list[Tensor]:
    return [wk.interpolate(real, fake, real[:, 0].sigmoid())]


def penalised(grad: Tensor) -> list[Tensor]:
    grad = grad.detach().requires_grad_()
    value = wk.norm_penalty(grad)
    (first,) = torch.autograd.grad(value, grad, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), grad)
    return [value.detach(), first.detach(), second]


def normalised(x: Tensor, params: Tensor) -> list[Tensor]:
    """Every pass, of groups of channels and of a layer."""
    results = []
    for groups in (4, 1):
        leaves = [t.detach().requires_grad_() for t in (x.reshape(-1, 8, 5), *params)]
        y = group_norm(leaves[0], groups, *leaves[1:], 1e-5)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        results += [y, *first, *torch.autograd.grad(sum([t.square().sum() for t in first]), leaves[:2])]
    return [result.detach() for result in results]


def discrepancy(x: Tensor, y: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    value = wk.mmd2(x, y, KERNEL)
    (grad,) = torch.autograd.grad(value, x)
    return [value.detach(), grad]


def learned(x: Tensor, y: Tensor) -> list[Tensor]:
    """Every pass of the kernel sums, with parameters that are on the device."""
    x, params = x.detach().requires_grad_(), x[:2, :1].double().abs().add(1).detach().requires_grad_()
    value, sums = kernel_sums(x, y, ("rbf", "inverse_multiquadric"), params, (1.0, 1.0, -2.0))
    first = torch.autograd.grad(value, (x, params), create_graph=True)
    second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), (x, params))
    return [value.detach(), sums.detach(), *(grad.detach() for grad in first), *second]


def mixed(x: Tensor, y: Tensor) -> list[Tensor]:
    """The same of every kernel function, which the compiled library has, and products with their matrices."""
    kinds, shapes = (*_KIND_CODES, "polynomial"), (1.0, 1.0, 0.7, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0)
    x, params = x.detach().requires_grad_(), x[: len(kinds), :1].double().abs().add(1).detach().requires_grad_()
    with wk.use_backend("native"):
        value, sums = kernel_sums(x, y, kinds, params, (1.0, 1.0, -2.0), shapes=shapes, diagonal=True)
        out = kernel_matvec(x, y, y[:, :3], kinds, params, shapes=shapes)
    first = torch.autograd.grad(value, (x, params), create_graph=True)
    second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), (x, params))
    results = [value, sums, *first, *second, out, *torch.autograd.grad(out.square().sum(), (x, params))]
    return [result.detach() for result in results]


def product(x: Tensor, y: Tensor) -> list[Tensor]:
    return [kernel_matvec(x, y, y[:, :3], ("rbf",), (2.0,))]


def discriminated(x: Tensor) -> list[Tensor]:
    m = x.unflatten(1, (3, -1)).detach().requires_grad_()
    o = minibatch_discrimination(m)
    (first,) = torch.autograd.grad(o.square().sum(), m, create_graph=True)
    return [o.detach(), first.detach(), *torch.autograd.grad(first.square().sum(), m)]


def deviating(x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    value = minibatch_stddev(x, group_size=4, num_channels=2)
    (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    return [value.detach(), first.detach(), *torch.autograd.grad(first.square().sum(), x)]


def judged(real: Tensor, fake: Tensor, first: Tensor, last: Tensor) -> list[Tensor]:
    """The loss of a fully connected critic of two layers, and its derivatives."""
    settings = {"target": 1.0, "one_sided": False, "reduction": "mean", "weight": 10.0}
    layers = [first, last], [first[:, 0].contiguous(), None], [0.2, 1.0]
    penalty, wasserstein, norms, grad_weights, grad_biases = mlp_critic_loss(real, real, fake, *layers, **settings)
    return [penalty, wasserstein, norms, *grad_weights, grad_biases[0]]


CALLS: dict[str, tuple[Callable[..., list[Tensor]], Sequence[tuple[int, int]]]] = {
    "clip_weights_": (clipped, [(300, 17)]),
    "rmsprop_clip_": (stepped, [(300, 17), (300, 17)]),
    "bias_leaky_relu": (rectified, [(12, 30000), (12, 30000)]),
    "interpolate": (interpolated, [(33, 50), (33, 50)]),
    "group_norm": (normalised, [(33, 40), (2, 8)]),
    "norm_penalty": (penalised, [(12, 3000)]),
    "mmd2": (discrepancy, [(150, 20), (101, 20)]),
    "kernel_sums": (learned, [(90, 9), (131, 9)]),
    "kernel_sums of every kind": (mixed, [(90, 9), (131, 9)]),
    "kernel_matvec": (product, [(90, 9), (131, 9)]),
    "minibatch_discrimination": (discriminated, [(70, 54)]),
    "minibatch_stddev": (deviating, [(8, 9000)]),
    "mlp_critic_loss": (judged, [(33, 9), (33, 9), (70, 9), (1, 70)]),
}
each_call = pytest.mark.parametrize("name", CALLS)


def inputs_of(name: str, seed: int = 1, device: str = "cuda") -> list[Tensor]:
    return [samples(shape, torch.float32, seed=seed + k).to(device) for k, shape in enumerate(CALLS[name][1])]


@each_call
def test_same_bits_every_time(back_end: str, name: str) -> None:
    first = CALLS[name][0](*inputs_of(name))
    for _ in range(5):
        for a, b in zip(CALLS[name][0](*inputs_of(name)), first, strict=True):
            assert_same_bits(a.cpu(), b.cpu(), name)


@each_call
def test_runs_on_the_current_stream_and_waits_for_nothing(back_end: str, name: str) -> None:
    call, inputs = CALLS[name][0], inputs_of(name)
    expected = call(*inputs)  # and everything is compiled and cached
    late = [torch.zeros_like(x) for x in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call(*late)
        stream.synchronize()
        torch.cuda._sleep(1_000_000_000)  # about half a second
        for x, y in zip(late, inputs):
            x.copy_(y)
        start = time.perf_counter()
        results = call(*late)
        elapsed = time.perf_counter() - start
        assert not stream.query(), "the device was done before the host: this shows nothing"
    assert elapsed < 0.2, f"the host waited {elapsed:.2f} s for the device"
    stream.synchronize()
    for result, wanted in zip(results, expected, strict=True):
        assert_same_bits(result.cpu(), wanted.cpu(), name)


@each_call
def test_in_a_graph(back_end: str, name: str) -> None:
    call, static = CALLS[name][0], inputs_of(name)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call(*static)
    for seed in (10, 20):
        for x, y in zip(static, inputs_of(name, seed)):
            x.copy_(y)
        for _ in range(2):
            graph.replay()
        torch.cuda.synchronize()
        for result, wanted in zip(results, call(*inputs_of(name, seed)), strict=True):
            assert_same_bits(result.cpu(), wanted.cpu(), f"{name}, replayed")


@each_call
def test_on_a_device_that_is_not_the_current_one(back_end: str, name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device here")
    assert torch.cuda.current_device() == 0
    results = CALLS[name][0](*inputs_of(name, device="cuda:1"))
    assert torch.cuda.current_device() == 0
    for result, wanted in zip(results, CALLS[name][0](*inputs_of(name)), strict=True):
        assert result.device == torch.device("cuda:1")
        assert_same_by_another_route(result.cpu(), wanted.cpu(), name)


def test_tensors_of_several_devices_are_refused(back_end: str) -> None:
    devices = ["cpu", *(["cuda:1"] if torch.cuda.device_count() > 1 else [])]
    x, y, mix = torch.ones(4, 3, device="cuda"), torch.ones(4, 3, device="cuda"), torch.ones(4, device="cuda")
    for device in devices:
        for call in (
            lambda d=device: wk.interpolate(x, y.to(d), mix),
            lambda d=device: wk.mmd2(x, y.to(d), KERNEL),
            lambda d=device: wk.clip_weights_([x, y.to(d)], 0.1),
        ):
            with pytest.raises(ValueError, match="must be on the device of"):
                call()
    assert x.eq(1).all(), "written before it was refused"


def test_the_operators_refuse_tensors_of_several_devices(native_on_gpu: None) -> None:
    x, mix = torch.ones(4, 3, device="cuda"), torch.ones(4, device="cuda")
    operators = torch.ops.wgan_kernels
    params, weights = torch.ones(1, 1).double(), torch.ones(3, 1).double()
    for operator, arguments in [
        (operators.interpolate, (x, x, mix.cpu())),
        (operators.clip_weights_, ([x, x.cpu()], -0.1, 0.1)),
        (operators.clip_weights_, ([x.cpu(), x], -0.1, 0.1)),
        (operators.group_norm, (x, mix[:3].cpu(), None, 1, 1, 1e-5)),
        (operators.norm_penalty_backward, (mix[0].cpu(), x, mix.double(), 1.0, False, 1, 1.0)),
        (operators.kernel_sums, (x, x, weights, params.cuda(), [0], [1.0], False, 0, -1, False, 0)),
        (operators.kernel_sums, (x, x, weights.cuda(), params, [0], [1.0], False, 0, -1, False, 0)),
        (operators.kernel_matvec, (x, x, x, weights[0], params.cuda(), [0], [1.0], False, 0, 0, -1, True)),
        (operators.mlp_critic_loss, (x, None, None, [x.cpu()], [mix], [1.0], 1.0, False, 1, 1.0, True)),
        (operators.mlp_critic_loss, (x, x.cpu(), x, [x], [mix], [1.0], 1.0, False, 1, 1.0, True)),
    ]:
        with pytest.raises(RuntimeError, match="every tensor must be on one device, got c"):
            operator.default(*arguments)


def test_more_kernel_functions_than_fit_are_refused(native_on_gpu: None) -> None:
    x = torch.ones(4, 3, device="cuda")
    with pytest.raises(RuntimeError, match="at most 32 kernel functions on a GPU, got 33"):
        wk.mmd2(x, x, wk.kernels.RBF([1.0 + k for k in range(33)]))


def test_more_layers_than_fit_are_refused(native_on_gpu: None) -> None:
    x = torch.ones(4, 3, device="cuda")
    settings = {"target": 1.0, "one_sided": False, "reduction": "mean", "weight": 10.0}
    layers = [x[:3]] * 33, [None] * 33, [1.0] * 33
    with pytest.raises(RuntimeError, match="at most 32 layers on a GPU, got 33"):
        mlp_critic_loss(x, None, None, *layers, **settings)
    with wk.use_backend("auto"):
        assert mlp_critic_loss(x, None, None, *layers, **settings).norms.shape == (4,)


def test_tf32_is_used_where_torch_may_use_it(back_end: str) -> None:
    x, y = (10 * samples((300, 64), torch.float32, seed=k).cuda() for k in (1, 2))
    kernel = wk.kernels.RBF(80.0)
    exact = wk.mmd2(x.double(), y.double(), kernel).item()
    before = torch.backends.cuda.matmul.fp32_precision
    errors = {}
    try:
        for precision in ("ieee", "tf32"):
            torch.backends.cuda.matmul.fp32_precision = precision
            errors[precision] = abs(wk.mmd2(x, y, kernel).item() - exact)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert all(errors[precision] < MATRIX_PRODUCTS[precision] for precision in errors), errors
    assert errors["tf32"] != errors["ieee"], "the setting makes no difference"


@pytest.mark.parametrize("name", ["norm_penalty", "mmd2"])
def test_compiled_equals_eager(back_end: str, name: str) -> None:
    shapes = CALLS[name][1]
    inputs = [samples(shape, torch.float32, seed=k).cuda() for k, shape in enumerate(shapes)]
    function = {"norm_penalty": wk.norm_penalty, "mmd2": functools.partial(wk.mmd2, kernel=KERNEL)}[name]
    results = []
    for each in (torch.compile(lambda *args: function(*args) * 2, fullgraph=True), lambda *args: function(*args) * 2):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = each(*leaves)
        results.append([value.detach(), *torch.autograd.grad(value, leaves)])
    for a, b in zip(*results, strict=True):
        assert_same_by_another_route(a.cpu(), b.cpu(), name)
