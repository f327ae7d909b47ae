"""kernel_matvec: kernel matrices times vectors, and their derivatives."""

# Functions made in loops here are called before the loop goes on.
# ruff: noqa: B023

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cases import DTYPES, assert_same_bits, compile_once, form, leaf, samples
from tolerances import FAR_FROM_ORIGIN, KERNEL_VALUE, assert_as_good_as_torch, assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import use_backend
from wgan_kernels.ops import kernel_matvec as module
from wgan_kernels.ops.kernel_matvec import kernel_matvec
from wgan_kernels.ops.kernel_sums import kernel_sums

KINDS = ("rbf", "inverse_multiquadric")
SIZES = [(1, 1, 1, 1), (3, 5, 2, 1), (33, 95, 7, 3), (97, 96, 16, 8), (5, 400, 3, 33), (200, 1, 1, 17), (3, 4, 0, 2)]
PARAMS = torch.tensor([[1.3], [2.5]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.7, -1.2], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small sums on a busy machine wait for the second thread longer than they take; tests of threads set their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(x: Tensor, y: Tensor, v: Tensor, diagonal: bool = True) -> Tensor:
    s = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT
    matrix = WEIGHTS[0].item() * torch.exp(-s / (2 * 1.3**2)) + WEIGHTS[1].item() * 2.5 / (2.5 + s)
    return (matrix if diagonal else matrix * (1 - torch.eye(*s.shape[-2:], dtype=s.dtype))) @ v


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_and_gradients_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    for N, M, D, P in SIZES:
        x, y, v = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2), samples((M, P), wide, seed=3)
        outer = samples((N, P), wide, seed=4)
        results = []
        for function, as_dtype in (
            (lambda x, y, v: kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS), dtype),
            (lambda x, y, v: plain(x.to(wide), y.to(wide), v), dtype),
            (plain, torch.float64),
        ):
            inputs = [leaf(x.to(as_dtype)), leaf(y.to(as_dtype)), leaf(v.double() if function is plain else v)]
            out = function(*inputs)
            results.append([out.detach(), *torch.autograd.grad(out, inputs, outer.to(out.dtype))])
        terms = 4 * (M + N) * v.abs().max().item() * (1 + D) * outer.abs().max().item()
        for k, (ours, rough, exact) in enumerate(zip(*results, strict=True)):
            assert_as_good_as_torch(ours, rough, exact, f"{k} of {N}, {M}, {D}, {P}", terms)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_kernel_value(native: None, dtype: torch.dtype) -> None:
    """3000 pairs of points, each a problem of its own, as far apart as the kernel's scale and nearer."""
    half = torch.linspace(0, 0.5, 3000, dtype=dtype)[:, None, None]
    s = (2 * half.double()).square()[:, 0, 0]
    ones = torch.ones(3000, 1, 1, dtype=dtype)
    for kind, theta, exact in (("rbf", 0.5**0.5, torch.exp(-s)), ("inverse_multiquadric", 1.0, 1 / (1 + s))):
        values = kernel_matvec(half, -half, ones, (kind,), (theta,))[:, 0, 0]
        error = ((values.double() - exact) / exact).abs().max().item()
        assert error <= KERNEL_VALUE[dtype] * torch.finfo(dtype).eps, f"{kind}: {error / torch.finfo(dtype).eps} eps"


def test_sums_are_products_with_ones(native: None) -> None:
    x, y = samples((150, 6), torch.float64, seed=1), samples((110, 6), torch.float64, seed=2)
    _, sums = kernel_sums(x, y, KINDS, PARAMS, (1.0, 1.0, 1.0))
    ones = torch.ones(150, 1, dtype=torch.float64), torch.ones(110, 1, dtype=torch.float64)
    products = [
        kernel_matvec(x, x, ones[0], KINDS, PARAMS, diagonal=False),
        kernel_matvec(y, y, ones[1], KINDS, PARAMS, diagonal=False),
        kernel_matvec(x, y, ones[1], KINDS, PARAMS),
    ]
    for product, total in zip(products, sums.sum(1), strict=True):
        assert_same_by_another_route(product.sum(), total)


def test_ranges_batches_and_threads(native: None, one_and_two_threads: tuple[int, int]) -> None:
    x, y, v = (samples(shape, torch.float32, seed=k) for k, shape in enumerate([(2, 210, 9), (2, 130, 9), (2, 130, 4)]))
    results = []
    for threads in one_and_two_threads * 2:
        torch.set_num_threads(threads)
        results.append(kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS))
        assert_same_bits(results[-1], results[0])
    for b in range(2):
        assert_same_by_another_route(kernel_matvec(x[b], y[b], v[b], KINDS, PARAMS, WEIGHTS), results[0][b])
    cuts = [0, 1, 96, 96, 200, 210]
    for diagonal in (True, False):
        whole = kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS, diagonal=diagonal)
        parts = [
            kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS, diagonal=diagonal, begin=begin, end=end)
            for begin, end in zip(cuts, cuts[1:])
        ]
        assert_same_by_another_route(torch.cat(parts, 1), whole)


def test_a_large_call_is_made_range_by_range(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, v = (
        samples((300, 4), torch.float64),
        samples((200, 4), torch.float64, seed=1),
        samples((200, 2), torch.float64),
    )
    whole = kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS, begin=3)
    monkeypatch.setattr(module, "_WORK_PER_CALL", 1e5)
    assert_same_by_another_route(kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS, begin=3), whole)


def test_no_points(backend: str) -> None:
    for N, M, P in [(0, 3, 2), (3, 0, 2), (3, 2, 0)]:
        out = kernel_matvec(torch.ones(N, 2), torch.ones(M, 2), torch.ones(M, P), KINDS, PARAMS)
        assert out.shape == (N, P) and out.eq(2 * M).all()


def double_inputs(problems: tuple[int, ...] = ()) -> list[Tensor]:
    shapes = [(*problems, 4, 3), (*problems, 3, 3), (*problems, 3, 2)]
    return [leaf(samples(shape, torch.float64, seed=k)) for k, shape in enumerate(shapes)] + [
        leaf(WEIGHTS),
        leaf(PARAMS),
    ]


@pytest.mark.parametrize("problems", [(), (2,)])
@pytest.mark.parametrize("rows", [(0, -1), (1, 3)])
@pytest.mark.parametrize("diagonal", [True, False])
def test_gradcheck_and_gradgradcheck(
    backend: str, problems: tuple[int, ...], rows: tuple[int, int], diagonal: bool
) -> None:
    def function(x: Tensor, y: Tensor, v: Tensor, weights: Tensor, params: Tensor) -> Tensor:
        return kernel_matvec(x, y, v, KINDS, params, weights, diagonal=diagonal, begin=rows[0], end=rows[1])

    assert gradcheck(function, double_inputs(problems), fast_mode=True)
    assert gradgradcheck(function, double_inputs(problems), fast_mode=True)


def test_gradcheck_of_the_registered_operator(native: None) -> None:
    def function(*inputs: Tensor) -> Tensor:
        return torch.ops.wgan_kernels.kernel_matvec.default(*inputs, [0, 1], [1.0, 1.0], False, 0, 0, -1, True)

    assert gradcheck(function, double_inputs()) and gradgradcheck(function, double_inputs(), fast_mode=True)


def test_opcheck(native: None) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x, y = samples((2, 5, 3), dtype, "columns"), samples((2, 4, 3), dtype)
        v = samples((2, 4, 2), torch.promote_types(dtype, torch.float32))
        results = torch.library.opcheck(
            torch.ops.wgan_kernels.kernel_matvec.default,
            (leaf(x), leaf(y), leaf(v), leaf(WEIGHTS), leaf(PARAMS), [0, 1], [1.0, 1.0], False, 0, 1, 4, False),
        )
        assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_third_derivative_raises(native: None) -> None:
    x, y, v, *_ = double_inputs()
    (first,) = torch.autograd.grad(kernel_matvec(x, y, v, KINDS, PARAMS).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives of kernel_matvec are not supported"):
        torch.autograd.grad(second.sum(), x)


def test_far_from_the_origin(backend: str) -> None:
    x, y = (100 + 0.01 * samples(shape, torch.float32, seed=1) for shape in ((40, 5), (30, 5)))
    v, params = samples((30, 3), torch.float32), (0.02, 0.001)
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = [leaf(x.to(dtype)), leaf(y.to(dtype))]
        out = kernel_matvec(*inputs, v.to(dtype), KINDS, params)
        results.append([out.detach(), *torch.autograd.grad(out.sum(), inputs)])
    with use_backend("reference"):
        exact = kernel_matvec(x.double(), y.double(), v.double(), KINDS, params)
    assert_same_by_another_route(results[1][0], exact)
    for ours, expected in zip(*results, strict=True):
        assert (ours.double() - expected).abs().max() < FAR_FROM_ORIGIN[torch.float32] * expected.abs().max()


def test_nan_and_infinity_propagate(backend: str) -> None:
    for bad in (torch.nan, torch.inf):
        y = samples((4, 3), torch.float32)
        y[1, 1] = bad
        assert kernel_matvec(samples((5, 3), torch.float32), y, torch.ones(4, 1), KINDS, PARAMS).isnan().all()


def assert_same_fake_and_compiled(function: Callable[..., Tensor], *given: Tensor) -> None:
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = function(*map(mode.from_tensor, given))
    assert form(fake) == form(function(*given))
    results = []
    for call in (compile_once(function, "native"), function):
        inputs = [leaf(t) for t in given]
        out = call(*inputs)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, expected in zip(*results, strict=True):
        assert_same_by_another_route(ours, expected)


def test_fake_tensors_and_compiled_calls(native: None) -> None:
    x, y = samples((6, 3), torch.float32), samples((4, 3), torch.float32, seed=1)
    v = samples((4, 2), torch.float32)
    function = lambda x, y, v: kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS, begin=1)  # noqa: E731
    assert_same_fake_and_compiled(function, x, y, v)
