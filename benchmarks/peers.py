"""Libraries that compute the same as ours does, where they are installed: pip install --group bench."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

SEED = 1


def library(name: str) -> ModuleType | None:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _doubled(x: Tensor) -> Tensor:
    """x, with twice the gradient."""
    x = x.view_as(x)
    if x.requires_grad:
        x.register_hook(lambda grad: 2 * grad)
    return x


def keops_mmd2(bandwidth: float) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The unbiased squared MMD with an RBF kernel by pykeops, which compiles code when it first meets a dimension.

    Within a sample the two gradients of the symmetric kernel are taken as twice one of them, as geomloss does it.
    """
    pykeops = library("pykeops")
    if pykeops is None:
        return None
    pykeops.set_verbose(False)
    lazy = importlib.import_module("pykeops.torch").LazyTensor

    def total(x: Tensor, y: Tensor) -> Tensor:
        squares = lazy(x[:, None, :]).sqdist(lazy(y[None, :, :]))
        return (squares * (-0.5 / bandwidth**2)).exp().sum(1).sum()

    def mmd2(x: Tensor, y: Tensor) -> Tensor:
        n, m = len(x), len(y)
        within_x, within_y = (total(_doubled(z), z.detach()) - len(z) for z in (x, y))
        return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * total(x, y) / (n * m)

    return mmd2


def geomloss_mmd2(bandwidth: float) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The biased squared MMD with an RBF kernel, which is twice geomloss' loss, by the back end that it chooses."""
    geomloss = library("geomloss")
    if geomloss is None:
        return None
    loss = geomloss.SamplesLoss("gaussian", blur=bandwidth, backend="auto")
    return lambda x, y: 2 * loss(x, y)


def torchmetrics_kid(subsets: int, subset_size: int, real: Tensor, fake: Tensor) -> Callable[[], Tensor] | None:
    """(2,) mean and spread of subsets drawn from SEED."""
    if library("torchmetrics") is None:
        return None
    kid = importlib.import_module("torchmetrics.image.kid")
    metric = kid.KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=subsets, subset_size=subset_size, compute_with_cache=False
    )
    metric.set_dtype(real.dtype)
    metric.update(real, real=True)
    metric.update(fake, real=False)

    def compute() -> Tensor:
        torch.manual_seed(SEED)  # torchmetrics draws from the default generator
        return torch.stack(metric.compute())

    return compute
