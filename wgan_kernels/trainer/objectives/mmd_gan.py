"""MMD-GAN with gradient penalty: the critic finds features in which the discrepancy shows.

Li et al. 2017, "MMD GAN: Towards Deeper Understanding of Moment Matching Network", for the game on learned features;
Binkowski et al. 2018, "Demystifying MMD GANs", for the unbiased estimate, the rational quadratic kernels (section 2.1)
and the penalty of the witness function (section 4), with Adam(1e-4, 0.5, 0.9), lambda = 1, 16 features, 5 critic steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import wgan_kernels as wk

from ..ranks import joined
from .base import Adversarial, Terms

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)


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
        return wk.mmd2(x, y, wk.kernels.RationalQuadratic(ALPHAS))

    def witness(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return wk.witness(z, x, y, wk.kernels.RationalQuadratic(ALPHAS))

    def penalty(self, witness, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        # Not in closed form: the witness would be recorded kernel by kernel, at half the speed for small critics.
        settings = {"mix": mix, "weight": self.penalty_weight, "route": "double_backward"}
        return wk.gradient_penalty(witness, real, fake, **settings)


class PlainMMDGAN(MMDGAN):
    def mmd2(self, x: Tensor, y: Tensor) -> Tensor:
        n, m = len(x), len(y)
        within_x, within_y = (self.kernel(each, each).fill_diagonal_(0).sum() for each in (x, y))
        return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * self.kernel(x, y).mean()

    def witness(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.kernel(z, x).mean(1) - self.kernel(z, y).mean(1)

    def penalty(self, witness, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        eps = mix.unsqueeze(1)
        mixed = (eps * real + (1 - eps) * fake).requires_grad_()
        (grad,) = torch.autograd.grad(witness(mixed).sum(), mixed, create_graph=True)
        return self.penalty_weight * ((grad.norm(2, dim=1) - 1) ** 2).mean()

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, D), (M, D) -> (N, M)."""
        squares = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(2)
        return sum((1 + squares / (2 * alpha)) ** -alpha for alpha in ALPHAS)
