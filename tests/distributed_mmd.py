"""Run by torchrun with four processes: the MMD of rows that are spread over ranks, beside that of the joined rows.

Each case runs on all four ranks, and then in two groups of two at the same time; rank 0 prints the names of those that
are done. A rank on which one fails ends, and torchrun the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from cases import samples
from tolerances import assert_rounded, assert_same_by_another_route, assert_within_one_ulp
from torch import Tensor
from torchrun_cases import run

from wgan_kernels import mmd2
from wgan_kernels.kernels import RBF, InverseMultiquadric, Kernel

# Rows of x and y by rank: some have none, and the first two together have enough of both.
ROWS_X, ROWS_Y = (5, 0, 9, 3), (4, 6, 1, 2)
kernel_sums = sys.modules["wgan_kernels.ops.kernel_sums"]
TILE = kernel_sums._ROWS


def kernel_value(kernel: Kernel, s: Tensor) -> Tensor:
    _, _, params, weights = kernel.components(1)
    if isinstance(kernel, InverseMultiquadric):
        return sum(scale / (scale + s) for scale in params)
    values = [torch.exp(-s / (2 * bandwidth**2)) for bandwidth in params]
    return sum(values if weights is None else [weight * value for weight, value in zip(weights, values)])


def pair_by_pair(x: Tensor, y: Tensor, kernel: Kernel, estimator: str = "unbiased") -> Tensor:
    """The definition, on the joined rows."""

    def mean(a: Tensor, b: Tensor, within: bool) -> Tensor:
        k = kernel_value(kernel, (a[:, None, :] - b[None, :, :]).square().sum(-1))
        if within and estimator == "unbiased":
            return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))
        return k.mean()

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


class Spread:
    """The joined rows, and those of this rank, as leaves."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.float64, D: int = 3, times: int = 1) -> None:
        ranks, rank = dist.get_process_group_ranks(group), dist.get_rank(group)
        parts = []
        for seed, rows in enumerate((ROWS_X, ROWS_Y)):
            counts = [times * rows[each] for each in ranks]
            joined = (samples((sum(counts), D), torch.float64, seed=seed) + seed).to(dtype)
            parts.append((joined.requires_grad_(), joined.detach().split(counts)[rank].clone().requires_grad_()))
            self.slices = [*getattr(self, "slices", []), slice(sum(counts[:rank]), sum(counts[: rank + 1]))]
        (self.all_x, self.x), (self.all_y, self.y) = parts

    def own(self, of_x: Tensor, of_y: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of this rank, of results for all rows."""
        return of_x[self.slices[0]], of_y[self.slices[1]]


def assert_same_on_all_ranks(value: Tensor, group: Any) -> None:
    values = [torch.empty_like(value) for _ in range(dist.get_world_size(group))]
    dist.all_gather(values, value.detach(), group=group)
    assert all(torch.equal(each, values[0]) for each in values), values


def value_and_gradient(group: Any) -> None:
    for kernel in (RBF([0.7, 2.0]), InverseMultiquadric(1.5)):
        for estimator in ("unbiased", "biased"):
            points = Spread(group)
            value = mmd2(points.x, points.y, kernel, estimator=estimator, group=group)
            expected = pair_by_pair(points.all_x, points.all_y, kernel, estimator)
            assert_same_on_all_ranks(value, group)
            assert_rounded(value.detach(), expected.detach(), terms=4.0)
            (3 * value).backward()
            (3 * expected).backward()
            for ours, exact in zip((points.x.grad, points.y.grad), points.own(points.all_x.grad, points.all_y.grad)):
                assert_rounded(ours, exact, terms=4.0) if len(exact) else None
            assert points.x.grad.shape == points.x.shape


def second_derivative(group: Any) -> None:
    """Of a loss that is a sum over the ranks, and of the value's square too: its slope is a number that all hold."""
    points, kernel = Spread(group), RBF([0.7, 2.0])
    value = mmd2(points.x.tanh(), points.y, kernel, group=group)
    expected = pair_by_pair(points.all_x.tanh(), points.all_y, kernel)
    seconds = []
    for result, leaves in ((value, (points.x, points.y)), (expected, (points.all_x, points.all_y))):
        grads = torch.autograd.grad(result**2 + result, leaves, create_graph=True)
        seconds.append(torch.autograd.grad(sum(grad.square().sum() + grad.sum() for grad in grads), leaves))
    for ours, exact in zip(seconds[0], points.own(*seconds[1])):
        assert_same_by_another_route(ours, exact)


def dtypes(group: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        points, kernel = Spread(group, dtype), RBF(2.0)
        value = mmd2(points.x, points.y, kernel, group=group)
        expected = pair_by_pair(points.all_x.double(), points.all_y.double(), kernel)
        assert value.dtype == torch.float32
        assert_same_on_all_ranks(value, group)
        assert_rounded(value.detach(), expected.detach(), terms=4.0)
        alone = mmd2(points.all_x, points.all_y, kernel)
        value.backward()
        alone.backward()
        for ours, joined in zip((points.x.grad, points.y.grad), points.own(points.all_x.grad, points.all_y.grad)):
            assert ours.dtype == dtype
            check = assert_same_by_another_route if dtype is torch.float32 else assert_within_one_ulp
            check(ours, joined) if len(joined) else None


def small_difference_of_large_sums(group: Any) -> None:
    """Each rank's share is of order 1, and in float32 its rounding would be seen in a value near 0."""
    kernel_sums._ROWS = TILE  # the same tiles as in one process, and the same digits of every kernel value
    points = Spread(group, torch.float32, times=40)
    value = mmd2(points.x, points.y - 1, RBF(2.0), group=group)
    alone = mmd2(points.all_x, points.all_y - 1, RBF(2.0))
    assert abs(alone) < 0.1, alone
    assert_within_one_ulp(value.detach(), alone.detach())


def whole_tiles(group: Any) -> None:
    """Rows shared out as they are outside of these tests."""
    kernel_sums._ROWS = TILE
    points, kernel = Spread(group, D=2, times=40), InverseMultiquadric([0.5, 2.0])
    value, alone = (mmd2(points.x, points.y, kernel, group=group), mmd2(points.all_x, points.all_y, kernel))
    assert_rounded(value.detach(), alone.detach(), terms=4.0)
    value.backward()
    alone.backward()
    for ours, joined in zip((points.x.grad, points.y.grad), points.own(points.all_x.grad, points.all_y.grad)):
        assert_same_by_another_route(ours, joined)
        assert_rounded(ours, joined) if len(joined) else None


def parameters_of_the_kernel(group: Any) -> None:
    results = []
    for spread in (True, False):
        points = Spread(group)
        numbers = torch.tensor([0.7, 2.0, 0.4], dtype=torch.float64, requires_grad=True)
        kernel = RBF(numbers[:2]) * numbers[2]
        if spread:
            value, leaves = mmd2(points.x, points.y, kernel, group=group), (points.x, points.y)
        else:
            value, leaves = pair_by_pair(points.all_x, points.all_y, kernel), (points.all_x, points.all_y)
        grads = torch.autograd.grad(value**2 + value, (numbers, *leaves), create_graph=True)
        # The gradient by parameters is a number that all ranks hold, those by rows are the ranks' own.
        of_parameters = torch.autograd.grad(grads[0].square().sum(), (numbers, *leaves), retain_graph=True)
        of_rows = torch.autograd.grad(grads[1].square().sum(), (numbers, *leaves))
        found = [grads[0].detach(), of_parameters[0], of_rows[0]]
        for of_leaves in (of_parameters[1:], of_rows[1:]):
            found += of_leaves if spread else points.own(*of_leaves)
        results.append(found)
    for ours, exact in zip(*results, strict=True):
        assert_same_by_another_route(ours, exact)
    for common in results[0][:3]:
        assert_same_on_all_ranks(common, group)


def gradients_by_some(group: Any) -> None:
    """Of x alone, on the first rank of the group alone; the others have to take part all the same."""
    points, rank = Spread(group), dist.get_rank(group)
    points.x.requires_grad_(rank == 0)
    value = mmd2(points.x, points.y.detach(), RBF(1.0), group=group)
    assert value.requires_grad
    value.backward()
    pair_by_pair(points.all_x, points.all_y, RBF(1.0)).backward()
    if rank == 0:
        assert_rounded(points.x.grad, points.own(points.all_x.grad, points.all_y)[0], terms=4.0)
    else:
        assert points.x.grad is None
    assert not mmd2(points.x.detach(), points.y.detach(), RBF(1.0), group=group).requires_grad
    with torch.no_grad():
        assert not mmd2(points.x, points.y, RBF(1.0), group=group).requires_grad


def errors(group: Any) -> None:
    """What is wrong on one rank, or does not fit together, raises on all, and the next call works."""
    rank, last = dist.get_rank(group), dist.get_world_size(group) - 1
    odd, x, y = rank == last, torch.zeros(3, 2), torch.ones(3, 2)

    def refused(error: type[Exception], words: str, x: Any = x, y: Any = y, kernel: Any = None, **more: Any) -> None:
        try:
            mmd2(x, y, kernel or RBF(1.0), group=group, **more)
        except error as found:
            assert words in str(found), found
        else:
            raise AssertionError(f"nothing was refused: {words}")

    wide = torch.zeros(3, 4)
    where = f"got 2 on rank 0 and 4 on rank {last}"
    refused(ValueError, f"as many features on all ranks, {where}", *((wide, wide) if odd else (x, y)))
    double = (x.double(), y.double())
    where = f"got torch.float32 on rank 0 and torch.float64 on rank {last}"
    refused(TypeError, f"the same dtype on all ranks, {where}", *(double if odd else (x, y)))
    refused(ValueError, "estimator must be the same", estimator="biased" if odd else "unbiased")
    refused(ValueError, "kernel must be the same", kernel=InverseMultiquadric(1.0) if odd else None)
    refused(ValueError, "got rbf with (1.0,), ", kernel=RBF(1.0 + odd / 2))
    refused(
        ValueError,
        f" on rank 0 and rbf with (1.5,), shapes (1.0,) and weights None on rank {last}",
        kernel=RBF(1.0 + odd / 2),
    )
    learned = torch.tensor(1.0, dtype=torch.float64, requires_grad=odd)
    refused(ValueError, "numbers must require gradients on all ranks or none", kernel=RBF(learned))
    refused(ValueError, "weights (2.0,) on rank", kernel=(1.0 + odd) * RBF(1.0))
    here = "y must have as many features as x" if odd else f"refused on rank {last}: ValueError: y must have as many"
    refused(ValueError, here, y=wide if odd else y)
    here = "x must be a torch.Tensor, got int" if odd else f"refused on rank {last}: TypeError: x must be"
    refused(TypeError if odd else ValueError, here, x=1 if odd else x)
    here = "estimator must be one of" if odd else "refused on rank"
    refused(ValueError, here, estimator="best" if odd else "unbiased")
    refused(ValueError, "x must hold at least 2 points on all ranks together, got 1", x=x[: int(odd)])
    kept, sys.modules["tqdm.auto"] = sys.modules.get("tqdm.auto"), None
    here = "progress=True needs tqdm" if odd else f"refused on rank {last}: ImportError: progress=True needs tqdm"
    refused(ImportError if odd else ValueError, here, progress=odd)
    sys.modules.pop("tqdm.auto") if kept is None else sys.modules.update({"tqdm.auto": kept})
    with torch.set_grad_enabled(odd):
        refused(ValueError, "all ranks must record gradients or none")
    assert mmd2(x, y, RBF(1.0), group=group) > 0


def metric(group: Any) -> None:
    from wgan_kernels.metrics import KernelInceptionDistance

    def fed(parts: list[tuple[Tensor, bool]], **settings: Any) -> KernelInceptionDistance:
        made = KernelInceptionDistance(4, 3, kernel=RBF(2.0), seed=1, **settings)
        for features, real in parts:
            for batch in features.split(2):
                made.update(batch, real) if len(batch) else None
        return made

    points = Spread(group)
    spread = fed([(points.x, True), (points.y, False)], process_group=group)
    alone = fed([(points.all_x, True), (points.all_y, False)], distributed_available_fn=lambda: False)
    for ours, expected in zip(spread.compute(), alone.compute()):
        assert torch.equal(ours, expected), (ours, expected)
    assert sum(map(len, spread.real_features)) == len(points.x)
    try:
        fed([(points.x, True)], process_group=group).compute()
    except ValueError as found:
        assert "there are no fake features yet" in str(found)
    else:
        raise AssertionError("a distance to nothing")


CASES: dict[str, Callable[[Any], None]] = {
    case.__name__: case
    for case in (value_and_gradient, second_derivative, dtypes, small_difference_of_large_sums, whole_tiles,
                 parameters_of_the_kernel, gradients_by_some, errors, metric)
}  # fmt: skip


def few_rows() -> None:
    kernel_sums._ROWS = 1  # so that few rows are shared out among all ranks


if __name__ == "__main__":
    run(CASES, few_rows)
