"""kernel_matvec of polynomials of degree 1, alone and in mixtures: one vector takes no pairs."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, assert_same_bits, leaf, samples
from test_kernel_matvec import assert_same_fake_and_compiled
from tolerances import assert_as_good_as_torch, assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels.ops import kernel_matvec as module
from wgan_kernels.ops.kernel_matvec import kernel_matvec

KINDS, SHAPES = ("polynomial", "rbf", "polynomial", "polynomial"), (1.0, 1.0, 3.0, 1.0)
PARAMS = torch.tensor([[0.0], [1.3], [1.0], [0.4]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.7, 2.0, 0.1, -1.2], dtype=torch.float64)
CANCELLING = torch.tensor([90.0, 0.1, -30.0, 0.1], dtype=torch.float64)


def parts(x: Tensor, y: Tensor) -> list[Tensor]:
    s, r = x @ y.mT, (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)
    return [s, torch.exp(-r / (2 * 1.3**2)), (s + 1) ** 3, s + 0.4]


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problems", [(), (2,)])
@pytest.mark.parametrize("weights", [WEIGHTS, CANCELLING], ids=["usual", "cancelling"])
def test_polynomials_of_degree_1_in_a_mixture(
    backend: str, weights: Tensor, problems: tuple[int, ...], dtype: torch.dtype
) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    x, y = (0.1 * samples((*problems, n, 3), torch.float64, seed=n) for n in (33, 20))
    v = samples((*problems, 20, 1), wide, seed=3)
    x, y = x.to(dtype), y.to(dtype)
    mixture = {"params": PARAMS, "weights": weights}
    numbers = {"params": tuple(PARAMS[:, 0].tolist()), "weights": tuple(weights.tolist())}

    def plain(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return sum(weight * part for weight, part in zip(weights.tolist(), parts(x, y))) @ v

    results = []
    for function, as_dtype in (
        (lambda *each: kernel_matvec(*each, KINDS, shapes=SHAPES, **mixture), dtype),
        (lambda *each: kernel_matvec(*each, KINDS, shapes=SHAPES, **numbers), dtype),
        (lambda x, y, v: plain(x.to(wide), y.to(wide), v), dtype),
        (plain, torch.float64),
    ):
        inputs = [leaf(x.to(as_dtype)), leaf(y.to(as_dtype)), leaf(v.double() if function is plain else v)]
        out = function(*inputs)
        results.append([out.detach(), *torch.autograd.grad(out.sum(), inputs)])
    sizes = [part.abs().sum(-1).max() * weight.abs() for weight, part in zip(weights, parts(x.double(), y.double()))]
    terms = sum(sizes).item() * v.abs().max().item()
    for k, (of_tensors, of_numbers, rough, exact) in enumerate(zip(*results, strict=True)):
        # What is wide is a sum of terms that cancel; the narrow gradients are rounded at the end only.
        assert_as_good_as_torch(of_tensors, rough, exact, terms=terms if of_tensors.dtype == wide else 0.0, what=str(k))
        assert_same_bits(of_numbers, of_tensors)


def test_derivatives_of_polynomials_of_degree_1(backend: str) -> None:
    def function(x: Tensor, y: Tensor, v: Tensor, weights: Tensor, params: Tensor) -> Tensor:
        return kernel_matvec(x, y, v, KINDS, params, weights, shapes=SHAPES, begin=1, end=3)

    points = (samples(shape, torch.float64, seed=k) for k, shape in enumerate([(4, 3), (3, 3), (3, 1)]))
    inputs = [leaf(each) for each in (*points, WEIGHTS, PARAMS)]
    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def test_polynomials_of_degree_1_take_no_pairs(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "_kernel_matvec", lambda x, y, v, *mixture: calls.append(mixture) or x.new_zeros(9, 1))
    x, y, v = (samples(shape, torch.float64, seed=k) for k, shape in enumerate([(9, 3), (8, 3), (8, 1)]))
    found = kernel_matvec(x, y, v, ("polynomial",), (0.0,))
    assert not calls
    assert_same_by_another_route(found, x @ (y.mT @ v))
    mixture = (KINDS, PARAMS, WEIGHTS)
    kernel_matvec(x, y, v, *mixture, shapes=SHAPES)
    ((weights, params, codes, shapes, *_),) = calls
    assert (weights.tolist(), params.tolist(), shapes) == ([2.0, 0.1], [[1.3], [1.0]], [1.0, 3.0]) and len(codes) == 2
    kernel_matvec(y, y, v, *mixture, shapes=SHAPES, diagonal=False)
    kernel_matvec(x, y, v.expand(8, 2), *mixture, shapes=SHAPES)
    assert [len(codes) for _, _, codes, *_ in calls] == [2, 4, 4]


LONG = 70_000  # of which torch has its threads add up parts, where they come to one number


@pytest.mark.parametrize(
    ("N", "M", "D"),
    [(2, LONG, 1), (1, LONG, 1), (2, 3, LONG), (1, 3, LONG), (3, 1, LONG), (2, LONG, 0), (LONG, 3, 1), (LONG, 4, 3)],
)
def test_threads_change_nothing(native: None, one_and_two_threads: tuple[int, int], N: int, M: int, D: int) -> None:
    inputs = [samples(shape, torch.float64, seed=k) for k, shape in enumerate([(N, D), (M, D), (M, 1), (N, 1)])]
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        x, y, v, grad = map(leaf, inputs)
        out = kernel_matvec(x, y, v, ("polynomial",), (1.0,))
        first = torch.autograd.grad(out, (x, y, v), grad, create_graph=True)
        results.append([out, *first])
        if min(N, M) > 1:  # for single points it is the operator that is called, whose own derivatives take long
            results[-1] += torch.autograd.grad(first, (x, y, v, grad), [each.detach().cos() for each in first])
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("count", [2, 4])
def test_ranges_and_counts_that_are_wrong(native: None, count: int) -> None:
    x, y, v = (samples(shape, torch.float64, seed=k) for k, shape in enumerate([(9, 3), (8, 3), (8, 1)]))
    with pytest.raises(RuntimeError, match="end"):
        kernel_matvec(x, y, v, ("polynomial",), (0.0,), end=10)
    with pytest.raises(ValueError, match="zip"):
        kernel_matvec(x, y, v, ("polynomial",) * 3, (0.0,) * count)


def test_fake_tensors_and_compiled_calls(native: None) -> None:
    x, y, v = (samples(shape, torch.float32, seed=k) for k, shape in enumerate([(6, 3), (4, 3), (4, 1)]))
    function = lambda *each: kernel_matvec(*each, KINDS, PARAMS, WEIGHTS, shapes=SHAPES, begin=1)  # noqa: E731
    assert_same_fake_and_compiled(function, x, y, v)


def test_a_row_of_numbers_for_a_kernel(backend: str) -> None:
    x, y, v = (samples(shape, torch.float64, seed=k) for k, shape in enumerate([(9, 3), (8, 3), (8, 1)]))
    wide = torch.cat([PARAMS, torch.ones(4, 1, dtype=torch.float64)], 1)  # of which these kernels take the first
    results = [kernel_matvec(x, y, v, KINDS, params, WEIGHTS, shapes=SHAPES) for params in (PARAMS, wide)]
    assert_same_bits(*results)
