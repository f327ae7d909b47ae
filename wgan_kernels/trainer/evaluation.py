"""How far generated images are from real ones that the generator has never seen."""

from __future__ import annotations

import torch
from torch import Tensor

import wgan_kernels as wk

from .data import Data


class Judge:
    """Unbiased MMD^2 to the held-out images, with an RBF kernel as wide as the median distance of training images.

    About 0, and often below, for images of the same distribution.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6, and section 8 for the median heuristic.
    """

    def __init__(self, data: Data) -> None:
        self.bandwidth = torch.pdist(data.train).median().item()
        self._held_out = data.held_out
        self.train_mmd2 = self.mmd2(data.train)

    def mmd2(self, samples: Tensor) -> float:
        return wk.mmd2(samples, self._held_out, wk.kernels.RBF(self.bandwidth)).item()
