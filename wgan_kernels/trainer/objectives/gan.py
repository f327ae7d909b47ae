"""The original game, minimax (Goodfellow et al. 2014, "Generative Adversarial Nets", Algorithm 1).

D = sigmoid(s), s what the discriminator's network gives: log D = -log(1 + e^-s), log(1 - D) = -log(1 + e^s).
"""

import math

import torch
from torch import Tensor, nn

from .base import Adversarial, Terms


def cross_entropy(scores: Tensor, target: float) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


class GAN(Adversarial):
    """Settings of Adam and rate as in DCGAN, as the paper gives none."""

    name = "gan"
    lr = 2e-4
    label_smoothing = 0.0  # Salimans et al. 2016, section 3.4: one-sided, the real samples' alone
    minibatch_discrimination = False

    def critic_terms(self, critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor | None) -> Terms:
        """-1/2 mean log D(x) - 1/2 mean log(1 - D(G(z))), in which 2 JS - 2 log 2 = -2 loss for the best D."""
        loss = (cross_entropy(critic(real), 1 - self.label_smoothing) + cross_entropy(critic(fake), 0.0)) / 2
        return {"loss": loss, "jensen_shannon": math.log(2) - loss}

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor | None) -> Terms:
        """+1/2 mean log(1 - D(G(z)))."""
        return {"loss": -cross_entropy(critic(fake), 0.0) / 2}


class NSGAN(GAN):
    """The same with the generator's loss that does not saturate (section 3)."""

    name = "nsgan"

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor | None) -> Terms:
        """-1/2 mean log D(G(z))."""
        return {"loss": cross_entropy(critic(fake), 1.0) / 2}
