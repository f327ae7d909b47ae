"""MMD-GAN with gradient penalty: the critic finds features in which the discrepancy shows.

Li et al. 2017, "MMD GAN: Towards Deeper Understanding of Moment Matching Network", for the game on learned features;
Binkowski et al. 2018, "Demystifying MMD GANs", for the unbiased estimate, the rational quadratic kernels (section 2.1)
and the penalty of the witness function (section 4), with Adam(1e-4, 0.5, 0.9), lambda = 1, 16 features, 5 critic steps.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

import wgan_kernels as wk

from ..ranks import joined
from .base import Adversarial, Terms
from .wgan_gp import gradient_norms

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
        mmd2 = self.mmd2(of_real, of_fake)
        penalty = self.penalty(lambda z: self.witness(critic(z), of_real, of_fake), real, fake, mix)
        return {"loss": penalty - mmd2, "mmd2": mmd2, "penalty": penalty, "size": penalty + len(ALPHAS)}

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Terms:
        mmd2 = self.mmd2(joined(critic(real)), joined(critic(fake)))
        return {"loss": mmd2, "size": mmd2.new_tensor(len(ALPHAS))}

    def mmd2(self, x: Tensor, y: Tensor) -> Tensor:
        return wk.mmd2(x, y, KERNEL)

    def witness(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return wk.witness(z, x, y, KERNEL)

    def penalty(self, witness: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        # Not in closed form: the witness would be recorded kernel by kernel, at half the speed for small critics.
        settings = {"mix": mix, "weight": self.penalty_weight, "route": "double_backward"}
        return wk.gradient_penalty(witness, real, fake, **settings)


class PlainMMDGAN(MMDGAN):
    def mmd2(self, x: Tensor, y: Tensor) -> Tensor:
        return unbiased_mmd2(kernel, x, y)

    def witness(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return kernel(z, x).mean(1) - kernel(z, y).mean(1)

    def penalty(self, witness: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        return self.penalty_weight * ((gradient_norms(witness, real, fake, mix) - 1) ** 2).mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """The sum of the kernels in plain PyTorch, (N, D), (M, D) -> (N, M)."""
    squares = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(2)
    return sum((1 + squares / (2 * alpha)) ** -alpha for alpha in ALPHAS)


def unbiased_mmd2(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Mean k(x_i, x_j) over i != j, and that of y, less twice mean k(x_i, y_j)."""
    n, m = len(x), len(y)
    within_x, within_y = (kernel(each, each).fill_diagonal_(0).sum() for each in (x, y))
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * kernel(x, y).mean()
