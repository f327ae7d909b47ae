"""The kernel functions and their sums as people write them, from differences of points, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("rbf", "inverse_multiquadric", "rational_quadratic", "laplacian", "matern32", "matern52", "energy",
         "polynomial")  # fmt: skip


class Mixture(NamedTuple):
    kinds: tuple[str, ...]
    shapes: tuple[float, ...]
    params: Tensor  # [C, 1]

    @property
    def codes(self) -> list[int]:
        return [KINDS.index(kind) for kind in self.kinds]


def mixture_of(*kinds: str, scale: float = 1.0) -> Mixture:
    """Parameters at which neighbours at squared distances of about `scale` are neither all alike nor all unrelated."""
    shapes = [{"rational_quadratic": 0.7 + c, "polynomial": 3.0 - c % 3}.get(kind, 1.0) for c, kind in enumerate(kinds)]
    params = [
        (scale if kind == "inverse_multiquadric" else scale**0.5) * (0.8 + 0.3 * c) for c, kind in enumerate(kinds)
    ]
    return Mixture(kinds, tuple(shapes), torch.tensor(params, dtype=torch.float64)[:, None])


def kernel(kind: str, s: Tensor, theta: Tensor, shape: float) -> Tensor:
    """s: squared distances, of a polynomial inner products."""
    if kind == "rbf":
        return torch.exp(-s / (2 * theta**2))
    if kind == "inverse_multiquadric":
        return theta / (theta + s)
    if kind == "rational_quadratic":
        return torch.exp(-shape * torch.log1p(s / (2 * shape * theta**2)))
    if kind == "polynomial":
        return (s + theta) ** int(shape)
    r = torch.where(s == 0, 0.0, torch.where(s == 0, 1.0, s).sqrt())
    if kind == "laplacian":
        return torch.exp(-r / theta)
    if kind == "energy":
        return -r
    if kind == "matern32":
        c = 3**0.5 / theta
        return torch.where(s == 0, 1 - c**2 * s / 2, (1 + c * r) * torch.exp(-c * r))
    c = 5**0.5 / theta
    return torch.where(s == 0, 1 - c**2 * s / 6 + c**4 * s**2 / 24, (1 + c * r + c**2 * s / 3) * torch.exp(-c * r))


def terms(kind: str, s: Tensor, theta: float, shape: float) -> list[Tensor]:
    """k, k_s, k_ss, k_t, k_st, k_tt."""
    s, t = s.clone().requires_grad_(), torch.full_like(s, theta, requires_grad=True)

    def by(value: Tensor, variable: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(s)
        (slope,) = torch.autograd.grad(value.sum(), variable, create_graph=True, allow_unused=True)
        return torch.zeros_like(s) if slope is None else slope

    k = kernel(kind, s, t, shape)
    k_s, k_t = by(k, s), by(k, t)
    return [each.detach() for each in (k, k_s, by(k_s, s), k_t, by(k_s, t), by(k_t, t))]


def pairs(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """s of all pairs, by differences."""
    if kind == "polynomial":
        return (x[..., :, None, :] * y[..., None, :, :]).sum(-1)
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def in_squares(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """The same in the way of matrices, which costs digits."""
    if kind == "polynomial":
        return x @ y.mT
    return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT).clamp(min=0)


def sums(x: Tensor, y: Tensor, of: Mixture, diagonal: bool = False, s_of: Callable[..., Tensor] = pairs) -> Tensor:
    """[.., 3, C] in the dtype of the points."""
    blocks = []
    for a, b in ((x, x), (y, y), (x, y)):
        counted = torch.ones(a.shape[-2], b.shape[-2], dtype=x.dtype)
        if a is b and not diagonal:
            counted = counted - torch.eye(a.shape[-2], dtype=x.dtype)
        each = []
        for kind, shape, theta in zip(of.kinds, of.shapes, of.params, strict=True):
            # What does not count has no derivative either, which a root at 0 would make NaN.
            s = torch.where(counted > 0, s_of(a, b, kind), 1.0)
            each.append((kernel(kind, s, theta.to(x.dtype)[0], shape) * counted).sum((-2, -1)))
        blocks.append(torch.stack(each, -1))
    return torch.stack(blocks, -2)


def magnitudes(x: Tensor, y: Tensor, of: Mixture, weights: Tensor) -> list[float]:
    """What the value and its first and second derivatives by points are sums of, had every term the same sign, and
    each s the error of the squares that it comes of."""
    points, n = torch.cat([x.double(), y.double()], -2), x.shape[-2]
    in_y = torch.arange(len(points)) >= n
    block = torch.where(in_y[:, None] == in_y, in_y.long()[:, None], 2)
    totals = torch.zeros(3, dtype=torch.float64)
    for c, (kind, shape, theta) in enumerate(zip(of.kinds, of.shapes, of.params, strict=True)):
        z = points if kind == "polynomial" else points - points.mean(-2, keepdim=True)
        squares, size = z.square().sum(-1), z.abs().amax(-1)
        noise, reach, w = squares[:, None] + squares, size[:, None] + size, weights.abs()[block, c]
        s = torch.where(torch.eye(len(z)) == 1, 1.0, pairs(z, z, kind))
        k, slope, bend = (each.abs() for each in terms(kind, s, theta.item(), shape)[:3])
        if kind in ("laplacian", "energy"):  # of which s is always taken in float64
            noise = 0 * noise
        totals[0] += (w * (k + slope * noise)).sum()
        totals[1] += (2 * w * (slope + bend * noise) * reach).sum(1).max()
        totals[2] += (8 * w * (slope + bend * (noise + reach**2 * z.shape[-1])) * reach).sum(1).max()
    return totals.tolist()
