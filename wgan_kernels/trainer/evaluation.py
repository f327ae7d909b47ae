"""How far generated samples are from real ones that the generator has never seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import wgan_kernels as wk

from .data import Data
from .loop import SAMPLES


class Judge:
    """Unbiased MMD^2 to held-out samples, with an RBF kernel as wide as the median distance of training samples.

    About 0, and often below, for samples of the same distribution.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6, and section 8 for the median heuristic.
    """

    def __init__(self, data: Data) -> None:
        train = data.train[:SAMPLES]
        self._held_out, self._modes = data.held_out[:SAMPLES], data.modes
        self.bandwidth = wk.median_bandwidth(train)
        self.baselines = {"train": self.mmd2(train), "gaussian": self.mmd2(fitted_gaussian(train))}

    def mmd2(self, samples: Tensor) -> float:
        return wk.mmd2(samples, self._held_out, wk.kernels.RBF(self.bandwidth)).item()

    def modes(self, samples: Tensor) -> dict[str, Any] | None:
        """Of a mixture: how many modes have 1 % of the samples within 4 sigma, and what part of all is that near."""
        if self._modes is None:
            return None
        centres, sigma = self._modes
        distances, nearest = torch.cdist(samples, centres).min(dim=1)
        shares = torch.bincount(nearest[distances < 4 * sigma], minlength=len(centres)) / len(samples)
        return {"modes": len(centres), "found": int((shares >= 0.01).sum()), "near": shares.sum().item()}


def fitted_gaussian(samples: Tensor) -> Tensor:
    """Draws from the normal distribution with the mean and covariance of samples (N, P)."""
    n, mean = len(samples), samples.mean(0)
    normal = torch.randn(SAMPLES, n, generator=torch.Generator().manual_seed(0))
    # Sums of centred samples with normal weights have their covariance.
    return mean + normal @ (samples - mean) / (n - 1) ** 0.5
