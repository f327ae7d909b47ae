"""MMD-GAN with gradient penalty: the critic finds features in which the discrepancy shows.

Li et al. 2017, "MMD GAN: Towards Deeper Understanding of Moment Matching Network", for the game on learned features;
Binkowski et al. 2018, "Demystifying MMD GANs", for the unbiased estimate, the rational quadratic kernels (section 2.1)
and the penalty of the witness function (section 4), with Adam(1e-4, 0.5, 0.9), lambda = 1, 16 features, 5 critic steps.
"""

from __future__ import annotations

from torch import Tensor, nn

import wgan_kernels as wk

from ..ranks import joined
from .base import Adversarial, Terms

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)
KERNEL = wk.kernels.RationalQuadratic(ALPHAS)


class MMDGAN(Adversarial):
    """phi = critic, k the sum of the kernels, f(z) = mean_i k(phi(z), phi(x_i)) - mean_j k(phi(z), phi(y_j))."""

    name = "mmd-gan"
    betas = (0.5, 0.9)
    penalty_weight = 1.0
    critic_steps = 5
    critic_outputs = 16
    critic_draws = ("real", "latent", "mix")
    generator_draws = ("real", "latent")
    feature_matching = None  # its features are matched anyway

    def critic_terms(self, critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Terms:
        """-MMD^2(phi(x), phi(y)) + lambda mean (||grad f(x^)||_2 - 1)^2, x^ between x and y."""
        of_real, of_fake = joined(critic(real)), joined(critic(fake))
        mmd2 = wk.mmd2(of_real, of_fake, KERNEL)

        def witness(z: Tensor) -> Tensor:
            return wk.witness(critic(z), of_real, of_fake, KERNEL)

        # Not in closed form: the witness would be recorded kernel by kernel, at half the speed for small critics.
        settings = {"mix": mix, "weight": self.penalty_weight, "route": "double_backward"}
        penalty = wk.gradient_penalty(witness, real, fake, **settings)
        return {"loss": penalty - mmd2, "mmd2": mmd2, "penalty": penalty, "size": penalty + len(ALPHAS)}

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Terms:
        mmd2 = wk.mmd2(joined(critic(real)), joined(critic(fake)), KERNEL)
        return {"loss": mmd2, "size": mmd2.new_tensor(len(ALPHAS))}
