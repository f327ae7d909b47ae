"""The game with the generator's loss that does not saturate (Goodfellow et al. 2014, section 3)."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Terms
from .gan import GAN


class NSGAN(GAN):
    name = "nsgan"

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor | None) -> Terms:
        """-1/2 mean log D(G(z))."""
        return {"loss": self.cross_entropy(critic(fake), 1.0) / 2}
