"""What an objective tells the loop: its networks, and in which order they descend which losses on which draws."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import wgan_kernels as wk

from ..networks import Architecture, Sizes
from ..ranks import joined

# Of minibatch discrimination (Salimans et al. 2016, section 3.2), as in that paper's code.
CLOSENESSES, KERNEL_DIM = 100, 5

# "loss", which is descended, and what else is worth a curve; all (). "size", if there, is no curve: how large the
# parts are that the loss is a difference of, which rounding errors are to be measured by.
Terms = dict[str, Tensor]


class Batch(NamedTuple):
    """What an update draws; None for what it does not ask for."""

    real: Tensor | None = None  # (B, P) samples of the data
    latent: Tensor | None = None  # (B, latent) standard normal numbers
    mix: Tensor | None = None  # (B,) uniform in [0, 1)
    noise: Tensor | None = None  # (2, B, P) normal, for real and for generated samples


class Update(NamedTuple):
    """One descent of some networks, which is made `times` times in a row."""

    name: str
    players: tuple[str, ...]  # the networks that descend
    draws: tuple[str, ...]  # fields of Batch
    loss: Callable[[nn.ModuleDict, Batch], Terms]
    times: int = 1


class Objective:
    """Networks, the updates of one step in their order, and their optimisers.

    Class attributes are the paper's defaults; a run may set those that an objective has, and that are not None.
    """

    name: ClassVar[str]
    critic_outputs: ClassVar[int] = 1
    rates: ClassVar[dict[str, float]] = {}  # of updates, in parts of lr
    on_reference: ClassVar[bool] = False  # whether its losses are to run on the library's specification
    batch_size = 64
    latent = 32
    lr = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)

    def __init__(self, **settings: Any) -> None:
        for setting, value in settings.items():
            if getattr(type(self), setting, None) is None:
                raise ValueError(f"--{setting.replace('_', '-')} makes no sense with {self.name}")
            setattr(self, setting, value)

    def optimizer(self, name: str, params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """That of the update of this name."""
        return torch.optim.Adam(params, self.lr * self.rates.get(name, 1), betas=self.betas, fused=True)


class Adversarial(Objective):
    """A generator against a critic of samples: critic_steps steps of the critic, then one of the generator.

    Their losses are those of critic_terms(critic, real, fake, mix) and generator_terms(critic, fake, real), of which
    each has what the update draws, and None for the rest.
    """

    critic_steps = 1
    feature_matching = False
    instance_noise = 0.0
    minibatch_discrimination: bool | None = None  # a gradient penalty is of samples by themselves
    generator_draws: ClassVar[tuple[str, ...]] = ("latent",)
    critic_draws: ClassVar[tuple[str, ...]] = ("real", "latent")

    def make_networks(self, architecture: Architecture, sizes: Sizes) -> nn.ModuleDict:
        critic = architecture.make_critic(sizes, self.critic_outputs)
        if self.minibatch_discrimination:
            *features, last = critic
            group = torch.distributed.group.WORLD  # of all ranks; None where there is one process
            closeness = wk.nn.MinibatchDiscrimination(last.in_features, CLOSENESSES, KERNEL_DIM, group=group)
            critic = nn.Sequential(*features, closeness, nn.Linear(last.in_features + CLOSENESSES, last.out_features))
        return nn.ModuleDict({"critic": critic, "generator": architecture.make_generator(sizes)})

    def updates(self) -> list[Update]:
        noise = ("noise",) if self.instance_noise else ()
        real = ("real",) if self.feature_matching else ()
        return [
            Update("critic", ("critic",), self.critic_draws + noise, self.critic_loss, self.critic_steps),
            Update("generator", ("generator",), self.generator_draws + real + noise, self.generator_loss),
        ]

    def critic_loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        fake = networks.generator(batch.latent).detach()  # the loop has frozen it: there is no graph to leave
        return self.critic_terms(networks.critic, *self._seen(batch, fake), batch.mix)

    def generator_loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        real, fake = self._seen(batch, networks.generator(batch.latent))
        loss = self.match_features if self.feature_matching else self.generator_terms
        return loss(networks.critic, fake, real)

    def match_features(self, critic: nn.Sequential, fake: Tensor, real: Tensor) -> Terms:
        """||mean f(x) - mean f(G(z))||^2, f what the critic's last layer sees (Salimans et al. 2016, section 3.1)."""
        of_real, of_fake = (joined(critic[:-1](each)).mean(0) for each in (real, fake))
        return {"loss": (of_real - of_fake).square().sum(), "size": of_real.square().sum() + of_fake.square().sum()}

    def _seen(self, batch: Batch, fake: Tensor) -> tuple[Any, Tensor]:
        """What the critic sees of both: with instance noise (Sonderby et al. 2017, section 3)."""
        if batch.noise is None:
            return batch.real, fake
        return None if batch.real is None else batch.real + batch.noise[0], fake + batch.noise[1]
