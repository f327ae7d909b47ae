"""Discrepancies of samples whose points are dealt out again, for all ways of dealing in one pass over the pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .kernels import Kernel
from .pair_sums import matvec


class Statistics(NamedTuple):
    """Of the samples as they are, and of each relabelling."""

    values: Tensor  # (P + 1,) float64
    rounding: Tensor  # () how far apart values may be that are equal but for rounding, as when samples change places

    def p_values(self) -> Tensor:
        """(P + 1,) for each: the share of all that are at least as large, itself included."""
        ordered = self.values.sort().values
        smaller = torch.searchsorted(ordered, self.values - self.rounding)
        shares = (len(ordered) - smaller).double() / len(ordered)
        return shares.masked_fill(~self.values.isfinite().all(), torch.nan)  # there is no order among these


def memberships(n: int, m: int, permutations: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """(n + m, 1 + permutations) who is in the first sample, 1 or 0: the first n, and as many by chance."""
    labels = torch.zeros((1 + permutations, n + m), dtype=torch.promote_types(like.dtype, torch.float32))
    labels[0, :n] = 1
    for row in labels[1:]:
        row[torch.randperm(n + m, generator=generator, device=_device(generator))[:n].cpu()] = 1
    return labels.T.to(like.device)


def signs(n: int, permutations: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """(n, 1 + permutations) which pairs are swapped, -1, or not, 1: none, and each by chance."""
    drawn = torch.randint(0, 2, (n, permutations), generator=generator, device=_device(generator), dtype=torch.int8)
    both = torch.cat([drawn.new_ones((n, 1)), 2 * drawn - 1], 1)
    return both.to(like.device, torch.promote_types(like.dtype, torch.float32))


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def permuted_mmd2(points: Tensor, labels: Tensor, n: int, kernel: Kernel) -> Statistics:
    """The unbiased estimate between the n points in the first sample and the m >= n others. points: (n + m, D)."""
    # In float64 from here on: statistics are differences of sums that may be a million times as large.
    points, labels = points.double(), labels.double()
    m, columns = len(points) - n, torch.cat([labels, torch.ones_like(labels[:, :1])], 1)
    products = matvec(points, points, columns, kernel, diagonal=False)
    labels, products, rows = columns[:, :-1], products[:, :-1], products[:, -1:]
    # With K as the matrix without its diagonal and a, b as labels: a'Ka and a'K(a + b), hence a'Kb and b'Kb. The other
    # way about, with the larger sample as a, what is left for b'Kb would be rounding.
    (within, within_size), (touching, touching_size) = _sums(labels, products), _sums(labels, rows)
    (total,), (total_size,) = _sums(torch.ones_like(rows), rows)
    values = (
        within / (n * (n - 1))
        + (total - 2 * touching + within) / (m * (m - 1))
        - (touching - within) * (2 / (n * m))
    )  # fmt: skip
    sizes = within_size / (n * (n - 1)) + total_size / (m * (m - 1)) + touching_size / (n * m)
    return Statistics(values, _rounding(sizes))


def signed_mmd2(x: Tensor, y: Tensor, signs: Tensor, kernel: Kernel) -> Statistics:
    """The estimate without pairs (x_i, y_i), for x and y with some of these swapped. x, y: (n, D)."""
    x, y, signs = x.double(), y.double(), signs.double()
    n, points, both = len(x), torch.cat([x, y]), torch.cat([signs, -signs])
    products = matvec(points, points, both, kernel, diagonal=False)
    # Between x_i and y_i the signs are always opposite, whichever way about they are: counted twice, as -k(x_i, y_i).
    pairs = matvec(x[:, None], y[:, None], signs.new_ones((n, 1, 1)), kernel)
    forms, sizes = _sums(both, products)
    values = (forms + 2 * pairs.sum(dtype=torch.float64)) / (n * (n - 1))
    return Statistics(values, _rounding(sizes / (n * (n - 1))))


def _sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) float64 sums over points of a * b, and roots of the sums of squares; some points at a time, in cache."""
    sums, squares = (a.new_zeros(a.shape[1], dtype=torch.float64) for _ in range(2))
    for some_a, some_b in zip(a.split(128), b.split(128)):
        terms = some_a.double() * some_b
        sums += terms.sum(0)
        squares += terms.square_().sum(0)
    return sums, squares.sqrt()


def _rounding(sizes: Tensor) -> Tensor:
    """sizes: by how much statistics change if all products change by as much as themselves, in random directions."""
    return 1024 * torch.finfo(torch.float64).eps * sizes.max()
