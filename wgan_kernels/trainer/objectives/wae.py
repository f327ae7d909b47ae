"""WAE-MMD and WAE-GAN (Tolstikhin et al. 2018, "Wasserstein Auto-Encoders"), with the settings of their MNIST (C.1).

z ~ N(0, 1), z~ = encoder(x), c the squared error, lambda = penalty_weight, d_z = latent, sigma_z^2 = 1.
"""

from torch import Tensor, nn

import wgan_kernels as wk

from ..networks import Architecture, Sizes, mlp_critic
from ..ranks import joined
from .base import Batch, Objective, Terms, Update
from .gan import cross_entropy


class WAE(Objective):
    """What both kinds have in common: an encoder, and the generator as its decoder."""

    batch_size = 100
    latent = 8
    lr = 1e-3
    penalty_weight = 10.0
    draws: tuple[str, ...] = ("real", "latent")  # of the update, not a setting

    def make_networks(self, architecture: Architecture, sizes: Sizes) -> nn.ModuleDict:
        encoder = architecture.make_critic(sizes, sizes.latent)
        return nn.ModuleDict({"encoder": encoder, "generator": architecture.make_generator(sizes)})

    def updates(self) -> list[Update]:
        return [Update("autoencoder", ("encoder", "generator"), self.draws, self.loss)]

    def autoencode(self, networks: nn.ModuleDict, real: Tensor) -> tuple[Tensor, Tensor]:
        """z~, and 1/n sum_i c(x_i, G(z~_i))."""
        codes = networks.encoder(real)
        return codes, (real - networks.generator(codes)).square().sum(1).mean()


class WAEMMD(WAE):
    """Algorithm 2."""

    name = "wae-mmd"
    kernel_scale = 1.0  # s; the smaller, the smaller the holes between codes that the kernel sees

    def loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """1/n sum_i c(x_i, G(z~_i)) + lambda MMD^2_U(z, z~), k(x, y) = C / (C + ||x - y||^2), C = 2 s d_z sigma_z^2."""
        codes, reconstruction = self.autoencode(networks, batch.real)
        kernel = wk.kernels.InverseMultiquadric.for_prior(self.latent, scales=(self.kernel_scale,))
        mmd2 = wk.mmd2(joined(batch.latent), joined(codes), kernel)
        loss = reconstruction + self.penalty_weight * mmd2
        return {"loss": loss, "reconstruction": reconstruction, "mmd2": mmd2}


class WAEGAN(WAE):
    """Algorithm 1.

    D_gamma = critic, a discriminator of codes: 4 layers of 512 features, with half the learning rate.
    """

    name = "wae-gan"
    rates = {"critic": 0.5}
    draws = ("real",)
    critic_steps = 1
    label_smoothing = 0.0

    def make_networks(self, architecture: Architecture, sizes: Sizes) -> nn.ModuleDict:
        networks = super().make_networks(architecture, sizes)
        networks["critic"] = mlp_critic(sizes._replace(shape=(sizes.latent,), width=512), 1, hidden=4)
        return networks

    def updates(self) -> list[Update]:
        critic = Update("critic", ("critic",), ("real", "latent"), self.critic_loss, self.critic_steps)
        return [critic, *super().updates()]

    def critic_loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """Ascends lambda/n sum_i log D(z_i) + log(1 - D(z~_i))."""
        codes = networks.encoder(batch.real).detach()
        of_prior = cross_entropy(networks.critic(batch.latent), 1 - self.label_smoothing)
        return {"loss": self.penalty_weight * (of_prior + cross_entropy(networks.critic(codes), 0.0))}

    def loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """1/n sum_i c(x_i, G(z~_i)) - lambda log D(z~_i)."""
        codes, reconstruction = self.autoencode(networks, batch.real)
        deception = cross_entropy(networks.critic(codes), 1.0)
        return {"loss": reconstruction + self.penalty_weight * deception, "reconstruction": reconstruction}
