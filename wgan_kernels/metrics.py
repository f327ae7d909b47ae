"""Metrics with the interface of torchmetrics, which this module needs and the rest of the package does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, ranks
from .kernels import Kernel
from .kid import KIDResult, kernel_inception_distance
from .samples import check_kernel

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ImportError(
        "wgan_kernels.metrics needs torchmetrics: pip install torchmetrics. "
        "wgan_kernels.kernel_inception_distance does without."
    ) from error


class KernelInceptionDistance(Metric):
    """`kernel_inception_distance` of features that arrive in batches, on one process or on several.

    Args:
        subsets, subset_size, kernel: as for `wgan_kernels.kernel_inception_distance`.
        seed: draws the same subsets at every compute(), on every rank alike; None goes on with the default generator
            of the CPU, as torchmetrics does: ranks then differ unless they are seeded alike.
        reset_real_features: whether reset() forgets the real features too.
        kwargs: of `torchmetrics.Metric`; by default ranks share their features over torch.distributed, any number of
            rows on each.

    compute() returns KIDResult(mean, std) of all features so far. Not differentiable: features are detached.
    Source: Binkowski et al. 2018, "Demystifying MMD GANs".
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(
        self,
        subsets: int = 100,
        subset_size: int = 1000,
        *,
        kernel: Kernel | None = None,
        seed: int | None = None,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        # torchmetrics' own way to share states stops on ranks that have none yet.
        kwargs.setdefault("dist_sync_fn", ranks.gather)
        super().__init__(**kwargs)
        if kernel is not None:
            check_kernel(kernel)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise TypeError(f"seed must be a whole number or None, got {type(seed).__name__}")
        self.subsets = _checks.positive_integer("subsets", subsets)
        self.subset_size = _checks.positive_integer("subset_size", subset_size)
        _checks.flag("reset_real_features", reset_real_features)
        self.kernel, self.seed, self.reset_real_features = kernel, seed, reset_real_features
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("fake_features", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """Takes in a batch: (B, D) features, of real samples or of generated ones."""
        _checks.flag("real", real)
        _checks.floating("features", features)
        if features.dim() != 2:
            raise ValueError(f"features must have shape (number, features), got {tuple(features.shape)}")
        (self.real_features if real else self.fake_features).append(features.detach().clone())

    def forward(self, features: Tensor, real: bool) -> None:  # type: ignore[override]
        """As update: one batch, of real samples or of generated ones, has no KID of its own."""
        self.update(features, real)

    def compute(self) -> KIDResult:
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        return kernel_inception_distance(
            _joined("real", self.real_features),
            _joined("fake", self.fake_features),
            subsets=self.subsets,
            subset_size=self.subset_size,
            kernel=self.kernel,
            generator=generator,
        )

    def reset(self) -> None:
        real_features = list(self.real_features)  # torchmetrics empties the list itself
        super().reset()
        if not self.reset_real_features:
            self.real_features = real_features


def _joined(name: str, batches: list[Tensor] | Tensor) -> Tensor:
    """(N, D), of the batches of this rank or of all ranks, which are one tensor already."""
    features = dim_zero_cat(batches) if len(batches) else None
    if features is None or len(features) == 0:
        raise ValueError(f"there are no {name} features yet: call update(features, real={name == 'real'}) first")
    return features
