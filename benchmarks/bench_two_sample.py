"""mmd_test against what it replaces: the matrix of all pairs, stored, and a loop over permutations of it."""

from __future__ import annotations

import time

import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest
from benchmarks.bench_kernel_sums import rbf

PERMUTATIONS = 100


def stored_matrix(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    points = torch.cat([x, y])
    squares = points.square().sum(1)
    matrix = rbf(bandwidth)((squares[:, None] + squares - 2 * points @ points.T).clamp_(min=0))
    return matrix.fill_diagonal_(0)


def orders(points: int, permutations: int) -> list[Tensor]:
    """The samples' own, and those that mmd_test draws."""
    generator = torch.Generator().manual_seed(2)
    return [torch.arange(points), *(torch.randperm(points, generator=generator) for _ in range(permutations))]


def result(statistics: Tensor) -> Tensor:
    """(2,) the statistic and the p-value."""
    return torch.stack([statistics[0], (statistics >= statistics[0]).double().mean()])


def loop(x: Tensor, y: Tensor, bandwidth: float, permutations: int) -> Tensor:
    """The blocks of the permuted matrix, as most scripts sum them."""
    n, m = len(x), len(y)
    matrix, statistics = stored_matrix(x, y, bandwidth), []
    for order in orders(n + m, permutations):
        dealt = matrix[order][:, order]
        within = dealt[:n, :n].sum() / (n * (n - 1)) + dealt[n:, n:].sum() / (m * (m - 1))
        statistics.append(within - 2 * dealt[:n, n:].mean())
    return result(torch.stack(statistics).double())


def product(x: Tensor, y: Tensor, bandwidth: float, permutations: int) -> Tensor:
    """One product of the matrix with the labels of all permutations: the best that a stored matrix allows."""
    n, m = len(x), len(y)
    matrix = stored_matrix(x, y, bandwidth)
    labels = torch.zeros(permutations + 1, n + m)
    for row, order in zip(labels, orders(n + m, permutations)):
        row[order[:n]] = 1
    products = labels @ matrix
    within, touching = (labels * products).sum(1).double(), products.sum(1).double()
    total = matrix.sum().double()
    others = total - 2 * touching + within
    return result(within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * (touching - within) / (n * m))


def bench_permutation_test(record) -> None:
    n, d, bandwidth = 1000, 8, 3.0
    x, y = torch.randn(n, d), torch.randn(n, d)
    kernel = wk.kernels.RBF(bandwidth)

    def ours(permutations: int = PERMUTATIONS) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        test = wk.mmd_test(x, y, kernel, permutations=permutations, generator=generator)
        return torch.stack([test.statistic.double(), test.p_value])

    contenders = {
        contest.OURS: ours,
        "the loop": lambda: loop(x, y, bandwidth, PERMUTATIONS),
        "one product with it": lambda: product(x, y, bandwidth, PERMUTATIONS),
    }

    def check() -> dict[str, Tensor]:
        exact = loop(x.double(), y.double(), bandwidth, PERMUTATIONS)
        results = {"float64": exact, **{name: call() for name, call in contenders.items()}}
        for name, (statistic, _) in results.items():  # a small difference of means of order 1
            assert abs(statistic - exact[0]) < 1e-5, name
        return {name: p_value for name, (_, p_value) in results.items()}

    row = contest.hold(
        f"mmd_test, n = m = {n:,}, d = {d}, {PERMUTATIONS} permutations, against the stored matrix",
        contenders,
        check=check,
        bars={"the loop": 10.0},
        rounds=10,
    )
    start = time.perf_counter()
    ours(1000)
    row.notes.append(f"{contest.OURS} with 1,000 permutations: {time.perf_counter() - start:.2f} s")
    record(row, contenders[contest.OURS])
