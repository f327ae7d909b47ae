"""WAE-GAN (Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", Algorithm 1), with the settings of its MNIST (C.1)."""

from __future__ import annotations

import torch
from torch import nn

from ..networks import Architecture, Sizes, mlp_critic
from .base import Batch, Terms, Update
from .gan import GAN
from .wae_mmd import WAE


class WAEGAN(WAE):
    """D_gamma = critic, a discriminator of codes: 4 layers of 512 features, with half the learning rate."""

    name = "wae-gan"
    rates = {"critic": 0.5}
    critic_steps = 1
    label_smoothing = 0.0

    def make_networks(self, architecture: Architecture, sizes: Sizes) -> nn.ModuleDict:
        networks = super().make_networks(architecture, sizes)
        networks["critic"] = mlp_critic(sizes._replace(shape=(sizes.latent,), width=512), 1, hidden=4)
        return networks

    def updates(self) -> list[Update]:
        return [
            Update("critic", ("critic",), ("real", "latent"), self.critic_loss, self.critic_steps),
            Update("autoencoder", ("encoder", "generator"), ("real",), self.loss),
        ]

    def critic_loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """Ascends lambda/n sum_i log D(z_i) + log(1 - D(z~_i))."""
        with torch.no_grad():
            codes = networks.encoder(batch.real)
        of_prior = self.cross_entropy(networks.critic(batch.latent), 1 - self.label_smoothing)
        return {"loss": self.penalty_weight * (of_prior + self.cross_entropy(networks.critic(codes), 0.0))}

    def loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """1/n sum_i c(x_i, G(z~_i)) - lambda log D(z~_i)."""
        codes, reconstruction = self.autoencode(networks, batch.real)
        deception = self.cross_entropy(networks.critic(codes), 1.0)
        return {"loss": reconstruction + self.penalty_weight * deception, "reconstruction": reconstruction}

    cross_entropy = GAN.cross_entropy
