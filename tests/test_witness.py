"""witness and kernel_matvec: against the kernel matrix, and the gradient penalty of a critic that is a witness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_error, compile_once, leaf, samples
from tolerances import EAGER_FLOAT64, KERNEL_VALUE, assert_as_good_as_torch, largest
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import gradient_penalty, kernel_matvec, witness
from wgan_kernels.kernels import RBF, InverseMultiquadric, Kernel, Linear
from wgan_kernels.kernels.composition import Sum

KERNELS = [RBF([0.8, 2.0]), InverseMultiquadric(3.0), RBF(2.0) + 0.5 * Linear()]
DOUBLE = torch.float64


def matrix(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    if isinstance(kernel, Sum):
        return sum(weight * matrix(each, x, y) for each, weight in kernel.terms)
    if isinstance(kernel, Linear):
        return x @ y.mT
    s = (x[:, None] - y[None]).square().sum(-1)
    if isinstance(kernel, RBF):
        return sum(torch.exp(-s / (2 * bandwidth**2)) for bandwidth in kernel.components(1).params)
    return sum(scale / (scale + s) for scale in kernel.components(1).params)


def points(dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor, Tensor]:
    return samples((5, 3), dtype, seed=1), samples((9, 3), dtype, seed=2), samples((7, 3), dtype, seed=3) + 0.5


def plain_witness(z: Tensor, x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    return matrix(kernel, z, x).mean(1) - matrix(kernel, z, y).mean(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_values(backend: str, kernel: Kernel, dtype: torch.dtype) -> None:
    z, x, y = points(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    terms = KERNEL_VALUE[wide] * len(kernel.components(1).kinds)
    exact = [each.double() for each in (z, x, y)]
    widened = [each.to(wide) for each in (z, x, y)]
    found, expected = witness(z, x, y, kernel), plain_witness(*exact, kernel)
    assert_as_good_as_torch(found, plain_witness(*widened, kernel), expected, "witness", terms)
    for v in (samples((9,), dtype, seed=4), samples((9, 2), dtype, seed=4)):
        found = kernel_matvec(z, x, v, kernel)
        plain = matrix(kernel, *widened[:2]) @ v.to(wide)
        best = matrix(kernel, *exact[:2]) @ v.double()
        assert_as_good_as_torch(found, plain, best, "product", terms * v.abs().sum().item())


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_first_and_second_derivatives(backend: str, kernel: Kernel) -> None:
    z, x, y = (leaf(each) for each in points())
    v = leaf(samples((9, 2), DOUBLE, seed=5))
    for function, inputs in (
        (lambda *each: witness(*each, kernel), (z, x, y)),
        (lambda *each: kernel_matvec(*each, kernel), (z, x, v)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("route", ["auto", "functional", "double_backward"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_penalty_of_a_witness(backend: str, kernel: Kernel, route: str) -> None:
    """As MMD-GANs take it: of the kernel on a network's features, by the network's parameters."""
    torch.manual_seed(1)
    features = Features().double()
    real, fake = samples((6, 3), DOUBLE, seed=1), samples((6, 3), DOUBLE, seed=2)
    mix = torch.linspace(0.1, 0.9, 6, dtype=DOUBLE)
    results = []
    for function, settings in ((witness, {"route": route}), (plain_witness, {"route": "double_backward"})):

        def critic(z: Tensor, function: Any = function) -> Tensor:
            return function(features(z), features(real), features(fake), kernel)

        value = gradient_penalty(critic, real, fake, mix=mix, **settings)
        grads = torch.autograd.grad(value, list(features.parameters()), allow_unused=True)
        results.append([value, *[torch.zeros(()) if grad is None else grad for grad in grads]])
    for ours, theirs in zip(*results, strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64


@pytest.mark.parametrize("kernel", KERNELS[1:], ids=repr)
def test_a_compiled_step_with_a_witness(backend: str, kernel: Kernel) -> None:
    torch.manual_seed(1)
    features = Features().double()
    real, fake = samples((6, 3), DOUBLE, seed=1), samples((6, 3), DOUBLE, seed=2)
    mix = torch.linspace(0.1, 0.9, 6, dtype=DOUBLE)

    def penalty(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        def critic(z: Tensor) -> Tensor:
            return witness(features(z), features(real), features(fake), kernel)

        return gradient_penalty(critic, real, fake, mix=mix)

    params = [param for name, param in features.named_parameters() if name != "net.2.bias"]
    values = [function(real, fake, mix) for function in (penalty, compile_once(penalty, backend))]
    expected, compiled = [[value, *torch.autograd.grad(value, params)] for value in values]
    for ours, theirs in zip(compiled, expected, strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"z": torch.ones(3)}, ValueError, [r"z must be points", r"\(3,\)"]),
        ({"x": torch.ones(4, 2)}, ValueError, ["x must have as many features as z, 3", "2"]),
        ({"y": torch.ones(0, 3)}, ValueError, ["y must hold at least 1 points", "0"]),
        ({"y": torch.ones(2, 3, dtype=DOUBLE)}, TypeError, ["y must have the dtype of z", "float64"]),
        ({"x": [1.0]}, TypeError, ["x", "list"]),
        ({"kernel": 1.0}, TypeError, ["kernel", "float"]),
    ],
)
def test_what_witness_refuses(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    arguments = {**dict(zip("zxy", points(torch.float32))), "kernel": RBF(1.0), **change}
    assert_same_error(lambda: witness(**arguments), error, *words)


@pytest.mark.parametrize(
    ("v", "error", "words"),
    [
        (torch.ones(8), ValueError, ["v must have a row for each point of y", r"\(9, columns\)", r"\(8,\)"]),
        (torch.ones(9, 1, 1), ValueError, ["v must have a row", r"\(9, 1, 1\)"]),
        (torch.ones(9, dtype=torch.int64), TypeError, ["v", "int64"]),
    ],
)
def test_what_kernel_matvec_refuses(v: Tensor, error: type[Exception], words: list[str]) -> None:
    x, y, _ = points(torch.float32)
    assert_same_error(lambda: kernel_matvec(x, y, v, RBF(1.0)), error, *words)
