"""One run's networks, optimisers and random numbers, and the step that moves them; knows no objective by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import ranks
from .config import Config
from .data import Data
from .graphs import GraphedUpdate
from .layers import WithReference
from .networks import ARCHITECTURES, Sizes
from .objectives import Objective, make_objective
from .objectives.base import Batch, Terms, Update

SAMPLES = 2000  # to judge by
REFERENCES = 64  # of virtual batch normalisation

Check = Callable[[Update, "Training", Batch, Terms], None]


class Training:
    """A pure function of (config, data, objective, dtype); each rank has one of its own, which all stay alike."""

    def __init__(
        self, config: Config, data: Data, objective: Objective | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config, self.data, self.dtype = config, data, dtype
        self.objective = objective or make_objective(config)
        self.device = torch.device(config.device)
        self.random = torch.Generator().manual_seed(config.seed)  # of the CPU: the same numbers for every device
        self._train_data = data.train.to(self.device, dtype)
        self.networks = self._make_networks(data).to(self.device, dtype)
        self.generator: nn.Module = self.networks.generator
        averaging = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(self.generator, multi_avg_fn=averaging) if config.ema else None
        self.past = AveragedModel(self.networks) if config.historical_averaging else None
        self.evaluation_latents = self._normal(SAMPLES, self.objective.latent)
        self.updates = self.objective.updates()
        self.optimizers = {update.name: self._make_optimizer(update) for update in self.updates}
        self._losses = {each.name: torch.compile(each.loss) if config.compile else each.loss for each in self.updates}
        self._graphs: dict[str, GraphedUpdate] = {}
        self.step_count = 0

    def step(self, check: Check | None = None) -> dict[str, float]:
        """All updates of the objective, once; `check` sees the last descent of each. Returns what is worth a curve."""
        self._set_rates()
        found: dict[str, Tensor] = {}
        for update in self.updates:
            with self._only(update.players):
                for remaining in reversed(range(update.times)):
                    terms = self._descend(update, None if remaining else check)
            for name, value in terms.items():
                if name != "size":
                    found[f"{update.name}_loss" if name == "loss" else name] = value.detach().double()
        if self.average is not None:
            self.average.update_parameters(self.generator)
        if self.past is not None:
            self.past.update_parameters(self.networks)
        self.step_count += 1
        return dict(zip(found, ranks.averaged(torch.stack(list(found.values()))).tolist(), strict=True))

    def loss(self, update: Update, batch: Batch) -> Terms:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            return self._losses[update.name](self.networks, batch)

    @torch.no_grad()
    def evaluation_samples(self) -> Tensor:
        """Generated from the same latents at every call, on the CPU."""
        generator = self.generator if self.average is None else self.average
        generator.eval()
        samples = generator(self.evaluation_latents)
        generator.train()
        return samples.float().cpu()

    def state_dict(self) -> dict[str, Any]:
        """All that a step depends on and changes, in plain containers."""
        state = {"step": self.step_count, "random": self.random.get_state(), "latents": self.evaluation_latents}
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step_count = state["step"]
        self.random.set_state(state["random"])
        self.evaluation_latents = state["latents"].to(self.device)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"networks": self.networks, "average": self.average, "past": self.past}
        parts |= {f"{name} optimizer": optimizer for name, optimizer in self.optimizers.items()}
        return {name: part for name, part in parts.items() if part is not None}

    def draw(self, update: Update) -> Batch:
        """All ranks draw the numbers of the joined batch, and take their rows."""
        size, of = self.objective.batch_size, dict.fromkeys(Batch._fields)
        if "real" in update.draws:
            which = torch.randint(len(self._train_data), (size,), generator=self.random)
            of["real"] = self._train_data[ranks.own(which).to(self.device)]
        if "latent" in update.draws:
            of["latent"] = ranks.own(self._normal(size, self.objective.latent))
        if "mix" in update.draws:
            of["mix"] = ranks.own(torch.rand(size, generator=self.random)).to(self.device, self.dtype)
        if "noise" in update.draws:
            scale = self.objective.instance_noise * (1 - self.step_count / self.config.steps)
            noise = [ranks.own(scale * self._normal(size, self._train_data.size(1))) for _ in range(2)]
            of["noise"] = torch.stack(noise)
        return Batch(**of)

    def players(self, update: Update) -> list[nn.Parameter]:
        return [param for name in update.players for param in self.networks[name].parameters()]

    def _make_networks(self, data: Data) -> nn.ModuleDict:
        architecture = ARCHITECTURES[self.config.architecture]
        sizes = Sizes(data.shape, self.objective.latent, self.config.width or architecture.width, data.bounded)
        with torch.random.fork_rng(devices=[]):  # torch.nn draws initial weights from the global generator only
            torch.manual_seed(self.config.seed)
            networks = self.objective.make_networks(architecture, sizes)
        if self.config.virtual_batch_norm:
            reference = self._normal(REFERENCES, self.objective.latent).to("cpu", torch.float32)
            networks["generator"] = WithReference(networks.generator, reference)
        return networks

    def _make_optimizer(self, update: Update) -> torch.optim.Optimizer:
        settings = {"capturable": True} if self.config.cuda_graphs else {}
        optimizer = self.objective.optimizer(update.name, self.players(update), **settings)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
            if self.config.cuda_graphs:  # which reads the rate where it is
                group["lr"] = torch.tensor(group["lr"], device=self.device)
        return optimizer

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.random).to(self.device, self.dtype)  # the same numbers in every dtype

    def _descend(self, update: Update, check: Check | None) -> Terms:
        batch = self.draw(update)
        if self.config.cuda_graphs:
            if update.name not in self._graphs:
                self._graphs[update.name] = GraphedUpdate(self, update, batch)
            if check is not None:
                check(update, self, batch, self.loss(update, batch))
            return self._graphs[update.name](batch)
        terms = self.loss(update, batch)
        if check is not None:
            check(update, self, batch, terms)
        self.descend(update, terms["loss"])
        return terms

    def descend(self, update: Update, loss: Tensor) -> None:
        optimizer = self.optimizers[update.name]
        optimizer.zero_grad()
        if self.past is not None:
            loss = loss + self.config.historical_averaging * self._distance_to_past(update)
        loss.backward()
        ranks.average_gradients(self.players(update))
        optimizer.step()

    def _distance_to_past(self, update: Update) -> Tensor:
        """||theta - mean of past theta||^2 (Salimans et al. 2016, section 3.3)."""
        past = [param for name in update.players for param in self.past.module[name].parameters()]
        pairs = zip(self.players(update), past, strict=True)
        return torch.stack([(now - then.detach()).square().sum() for now, then in pairs]).sum()

    @contextmanager
    def _only(self, players: tuple[str, ...]) -> Iterator[None]:
        """The other networks stand still here: asking for their gradients would only cost time."""
        others = [network for name, network in self.networks.items() if name not in players]
        for network in others:
            network.requires_grad_(False)
        try:
            yield
        finally:
            for network in others:
                network.requires_grad_(True)

    def _set_rates(self) -> None:
        """With decay linearly to 0, as the ResNets for CIFAR-10 of Gulrajani et al. 2017 are trained (appendix F)."""
        left = 1 - self.step_count / self.config.steps if self.config.decay else 1.0
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(group["initial_lr"] * left)
                else:
                    group["lr"] = group["initial_lr"] * left
