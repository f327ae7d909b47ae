"""kernel_inception_distance against torchmetrics, on the same subsets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest, peers

# Of a hundred that the distance is made of: the time is theirs times as many.
SUBSETS, SUBSET_SIZE = 4, 1000


def bench_kid(record) -> None:
    n, d = 10_000, 2048
    real, fake = torch.randn(n, d).relu_(), 1.1 * torch.randn(n, d).relu_() + 0.05

    def ours(real: Tensor, fake: Tensor) -> Tensor:
        torch.manual_seed(peers.SEED)
        return torch.stack(wk.kernel_inception_distance(real, fake, subsets=SUBSETS, subset_size=SUBSET_SIZE))

    def theirs(real: Tensor, fake: Tensor) -> Callable[[], Tensor] | None:
        return peers.torchmetrics_kid(SUBSETS, SUBSET_SIZE, real, fake)

    def check() -> dict[str, Tensor]:
        wide = real.double(), fake.double()
        results = {contest.OURS: ours(real, fake).double(), "float64": ours(*wide)}
        if (in_float64 := theirs(*wide)) is not None:
            results["torchmetrics, float64"] = in_float64()  # in float32 it is itself further off
        return results

    contenders = {contest.OURS: lambda: ours(real, fake), "torchmetrics": theirs(real, fake)}
    case = f"KID of {n:,} x {d:,} features, {SUBSETS} subsets of {SUBSET_SIZE:,}"
    row = contest.hold(case, contenders, check=check, tolerance=1e-6, bars={"torchmetrics": 3.0}, rounds=7)
    record(row, contenders[contest.OURS])
