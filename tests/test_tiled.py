"""Sums over pairs some rows at a time: against the whole kernel matrix, in value, derivatives and memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from cases import leaf, samples
from tolerances import assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import tiled

DOUBLE = torch.float64
SIZES = [(1, 1, 1), (7, 5, 2), (12, 31, 3), (16, 16, 1)]


@pytest.fixture(params=[1, 320, 1 << 26], ids=["row by row", "some rows", "whole"], autouse=True)
def bytes_per_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(tiled, "_BYTES_PER_BLOCK", request.param)
    return request.param


def rbf(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-(x[:, None] - y[None]).square().sum(-1) / 2)


def off_diagonal(k: Tensor) -> Tensor:
    return k - torch.diag(k.diagonal())


def points(N: int, M: int, D: int, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    return samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2) + 0.5


def plain_sums(x: Tensor, y: Tensor, diagonal: bool) -> Tensor:
    within = [rbf(z, z) if diagonal else off_diagonal(rbf(z, z)) for z in (x, y)]
    return torch.stack([k.sum() for k in (*within, rbf(x, y))])


@pytest.mark.parametrize(("N", "M", "D"), SIZES)
@pytest.mark.parametrize("diagonal", [False, True])
def test_kernel_sums(N: int, M: int, D: int, diagonal: bool) -> None:
    x, y = points(N, M, D)
    expected = plain_sums(x, y, diagonal)
    assert_same_by_another_route(tiled.kernel_sums(x, y, rbf, diagonal=diagonal), expected)
    x, y = torch.stack([x, x + 1]), torch.stack([y, y * 2])
    expected = torch.stack([plain_sums(*each, diagonal) for each in zip(x, y)])
    assert_same_by_another_route(tiled.kernel_sums(x, y, rbf, diagonal=diagonal), expected)


@pytest.mark.parametrize(("N", "M", "D"), SIZES)
@pytest.mark.parametrize("P", [0, 1, 3])
def test_matvec(N: int, M: int, D: int, P: int) -> None:
    x, y = points(N, M, D)
    v, w = samples((M, P), DOUBLE, seed=3), samples((N, P), DOUBLE, seed=4)
    assert_same_by_another_route(tiled.matvec(x, y, v, rbf), rbf(x, y) @ v)
    assert_same_by_another_route(tiled.matvec(x, x, w, rbf, diagonal=False), off_diagonal(rbf(x, x)) @ w)
    batch = tiled.matvec(torch.stack([x, x + 1]), torch.stack([y, y]), torch.stack([v, 2 * v]), rbf)
    assert_same_by_another_route(batch, torch.stack([rbf(x, y) @ v, 2 * rbf(x + 1, y) @ v]))


@pytest.mark.parametrize(("N", "M", "D"), SIZES)
def test_moments(N: int, M: int, D: int) -> None:
    x, y = points(N, M, D)
    xx, yy, xy = off_diagonal(rbf(x, x)), off_diagonal(rbf(y, y)), rbf(x, y)
    expected = [xx.sum(1), yy.sum(1), xy.sum(1), xy.sum(0), *[k.square().sum() for k in (xx, yy, xy)]]
    for found, wanted in zip(tiled.moments(x, y, rbf), expected, strict=True):
        assert_same_by_another_route(found, wanted)


def test_no_points_and_no_problems() -> None:
    none, some = torch.zeros(0, 2), torch.zeros(3, 2)
    assert tiled.kernel_sums(none, some, rbf, diagonal=True).tolist() == [0, 9, 0]
    assert tiled.matvec(none, some, torch.ones(3, 4), rbf).shape == (0, 4)
    assert tiled.matvec(some, none, torch.ones(0, 4), rbf).tolist() == [[0.0] * 4] * 3
    assert tiled.kernel_sums(some[:0, None], some[:0, None], rbf, diagonal=True).shape == (0, 3)
    assert tiled.matvec(some[:0, None], some[:0, None], torch.ones(0, 1, 4), rbf).shape == (0, 1, 4)


def test_dtypes_of_results() -> None:
    x, y = points(4, 5, 2, torch.float32)
    v = torch.ones(5, 1)
    assert tiled.kernel_sums(x, y, rbf, diagonal=False).dtype == DOUBLE
    assert tiled.matvec(x.bfloat16(), y.bfloat16(), v.bfloat16(), rbf).dtype == torch.float32
    assert tiled.matvec(x.double(), y.double(), v, rbf).dtype == DOUBLE


def test_first_and_second_derivatives_by_points_vectors_and_the_kernels_own_parameters() -> None:
    x, y = (leaf(each) for each in points(3, 2, 2))
    v, scale = leaf(samples((2, 2), DOUBLE, seed=3)), leaf(torch.tensor(1.3, dtype=DOUBLE))

    def scaled(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return rbf(x * scale, y * scale)

    for function, inputs in (
        (lambda x, y, s: tiled.kernel_sums(x, y, lambda a, b: scaled(a, b, s), diagonal=False), (x, y, scale)),
        (lambda x, y, v, s: tiled.matvec(x, y, v, lambda a, b: scaled(a, b, s)), (x, y, v, scale)),
        (lambda x, y, s: tuple(tiled.moments(x, y, lambda a, b: scaled(a, b, s))), (x, y, scale)),
    ):
        assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def test_memory_stays_small(bytes_per_block: int) -> None:
    """The kernel values of all pairs take 90 MB, and their graph several times as much."""
    if bytes_per_block > 1:
        pytest.skip("sets its own")
    script = """
import resource, torch
from wgan_kernels import tiled
def rbf(x, y):
    return torch.exp(-torch.cdist(x, y).square() / 2)
x, y = torch.randn(3600, 2, requires_grad=True), torch.randn(1800, 2)
tiled._BYTES_PER_BLOCK = 1 << 20
tiled.kernel_sums(x[:520], y[:520], rbf, diagonal=False).sum().backward()
tiled._BYTES_PER_BLOCK = 1 << 22
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tiled.kernel_sums(x, y, rbf, diagonal=False).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # freed memory is given back, whatever its size
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < 80 * 1024, "kB more at the highest"
