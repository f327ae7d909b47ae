"""WGAN (Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", Algorithm 1): alpha = 5e-5, c = 0.01, m = 64, n = 5."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import wgan_kernels as wk

from .base import Adversarial, Terms


class Wasserstein(Adversarial):
    """What the critic's values are to the generator, whatever keeps the critic's slopes bounded."""

    critic_steps = 5

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor | None) -> Terms:
        """Line 10, which descends -mean f(g(z))."""
        scores = critic(fake)
        return {"loss": -scores.mean(), "size": scores.abs().mean()}


class WGAN(Wasserstein):
    name = "wgan"
    lr = 5e-5
    clip = 0.01
    minibatch_discrimination = False

    def critic_terms(self, critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor | None) -> Terms:
        """Line 5, which ascends mean f(x) - mean f(g(z))."""
        of_real, of_fake = critic(real).mean(), critic(fake).mean()
        wasserstein = of_real - of_fake
        return {"loss": -wasserstein, "wasserstein": wasserstein, "size": of_real.abs() + of_fake.abs()}

    def optimizer(self, name: str, params: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
        """Lines 6 and 7 for the critic, w <- clip(w + alpha RMSProp(w, g_w), -c, c), line 11 for the generator."""
        return wk.optim.ClippedRMSprop(params, self.lr, clip=self.clip if name == "critic" else None, **settings)


class PlainWGAN(WGAN):
    def optimizer(self, name: str, params: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.RMSprop(params, self.lr, **settings)
        if name == "critic":
            optimizer.register_step_post_hook(self.clip_weights)
        return optimizer

    @torch.no_grad()
    def clip_weights(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.clamp_(-self.clip, self.clip)
