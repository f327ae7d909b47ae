"""WAE-MMD (Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", Algorithm 2), with the settings of its MNIST (C.1).

z ~ N(0, 1), z~ = encoder(x), c the squared error, lambda = penalty_weight, d_z = latent, sigma_z^2 = 1.
"""

from __future__ import annotations

from torch import Tensor, nn

import wgan_kernels as wk

from ..networks import Architecture, Sizes
from ..ranks import joined
from .base import Batch, Objective, Terms, Update


class WAE(Objective):
    """What both kinds have in common: an encoder, and the generator as its decoder."""

    batch_size = 100
    latent = 8
    lr = 1e-3
    penalty_weight = 10.0

    def make_networks(self, architecture: Architecture, sizes: Sizes) -> nn.ModuleDict:
        encoder = architecture.make_critic(sizes, sizes.latent)
        return nn.ModuleDict({"encoder": encoder, "generator": architecture.make_generator(sizes)})

    def autoencode(self, networks: nn.ModuleDict, real: Tensor) -> tuple[Tensor, Tensor]:
        """z~, and 1/n sum_i c(x_i, G(z~_i))."""
        codes = networks.encoder(real)
        return codes, (real - networks.generator(codes)).square().sum(1).mean()


class WAEMMD(WAE):
    name = "wae-mmd"

    def updates(self) -> list[Update]:
        return [Update("autoencoder", ("encoder", "generator"), ("real", "latent"), self.loss)]

    def loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """1/n sum_i c(x_i, G(z~_i)) + lambda MMD^2_U(z, z~), k(x, y) = C / (C + ||x - y||^2), C = 2 d_z sigma_z^2."""
        codes, reconstruction = self.autoencode(networks, batch.real)
        kernel = wk.kernels.InverseMultiquadric.for_prior(self.latent, scales=(1.0,))
        mmd2 = wk.mmd2(joined(batch.latent), joined(codes), kernel)
        loss = reconstruction + self.penalty_weight * mmd2
        return {"loss": loss, "reconstruction": reconstruction, "mmd2": mmd2}
