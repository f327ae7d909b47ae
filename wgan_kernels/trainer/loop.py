"""One run's networks, optimisers and random numbers, and the step that moves them; knows no objective by name."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import wgan_kernels as wk

from . import ranks
from .config import Config
from .data import SAMPLES, Data
from .networks import ARCHITECTURES, Sizes, WithReference
from .objectives import Objective, make_objective
from .objectives.base import Batch, Terms, Update


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
        self.networks = self._make_networks().to(self.device, dtype)
        self.generator: nn.Module = self.networks.generator
        averaging = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(self.generator, multi_avg_fn=averaging) if config.ema else None
        self.past = AveragedModel(self.networks) if config.historical_averaging else None
        self.evaluation_latents = self._normal(SAMPLES, self.objective.latent)
        self.updates = self.objective.updates()
        self.optimizers = {each.name: self.objective.optimizer(each.name, self.players(each)) for each in self.updates}
        # With decay linearly to 0, as the ResNets for CIFAR-10 of Gulrajani et al. 2017 are trained (appendix F).
        rate = (lambda step: 1 - step / config.steps) if config.decay else (lambda step: 1.0)
        self._rates = {name: torch.optim.lr_scheduler.LambdaLR(each, rate) for name, each in self.optimizers.items()}
        self._losses = {each.name: each.loss for each in self.updates}
        if config.compile or config.cuda_graphs:
            mode = {"mode": "reduce-overhead"} if config.cuda_graphs else {}
            self._losses = {name: torch.compile(loss, **mode) for name, loss in self._losses.items()}
        parts = {"networks": self.networks, "average": self.average, "past": self.past}
        parts |= {f"{name} optimizer": each for name, each in self.optimizers.items()}
        parts |= {f"{name} rate": each for name, each in self._rates.items()}
        self._parts: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
        self.step_count = 0

    def step(self, check: Callable[[Update, "Training", Batch, Terms], None] | None = None) -> dict[str, float]:
        """All updates of the objective, once; `check` sees the last descent of each. Returns what is worth a curve."""
        found: dict[str, Tensor] = {}
        for update in self.updates:
            for name, network in self.networks.items():
                network.requires_grad_(name in update.players)  # gradients of the others would only cost time
            for remaining in reversed(range(update.times)):
                batch = self.draw(update)
                terms = self.loss(update, batch)
                if check is not None and not remaining:
                    check(update, self, batch, terms)
                self.descend(update, terms["loss"])
            curves = {f"{update.name}_loss" if name == "loss" else name: value for name, value in terms.items()}
            found |= {name: value.detach().double() for name, value in curves.items() if name != "size"}
        self.networks.requires_grad_(True)
        if self.average is not None:
            self.average.update_parameters(self.generator)
        if self.past is not None:
            self.past.update_parameters(self.networks)
        for rate in self._rates.values():
            rate.step()
        self.step_count += 1
        return dict(zip(found, ranks.averaged(torch.stack(list(found.values()))).tolist(), strict=True))

    def loss(self, update: Update, batch: Batch) -> Terms:
        """Of the update of this name of its own objective, which may be the twin of the one that the update is of."""
        backend = wk.use_backend("reference") if self.objective.on_reference else nullcontext()
        with backend, torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            return self._losses[update.name](self.networks, batch)

    def descend(self, update: Update, loss: Tensor) -> None:
        players = self.players(update)
        self.optimizers[update.name].zero_grad()
        if self.past is not None:  # ||theta - mean of past theta||^2 (Salimans et al. 2016, section 3.3)
            now, past = map(nn.utils.parameters_to_vector, (players, self.players(update, self.past.module)))
            loss = loss + self.config.historical_averaging * (now - past.detach()).square().sum()
        loss.backward()
        ranks.average_gradients(players)
        self.optimizers[update.name].step()

    def draw(self, update: Update) -> Batch:
        """All ranks draw the numbers of the joined batch, and take their rows."""
        size, data = self.objective.batch_size, self._train_data
        scale = self.config.instance_noise * (1 - self.step_count / self.config.steps)
        draws: dict[str, Callable[[], Tensor]] = {
            "real": lambda: data[ranks.own(torch.randint(len(data), (size,), generator=self.random))],
            "latent": lambda: ranks.own(self._normal(size, self.objective.latent)),
            "mix": lambda: ranks.own(torch.rand(size, generator=self.random)).to(self.device, self.dtype),
            "noise": lambda: scale * ranks.own(self._normal(size, 2, data.size(1))).transpose(0, 1),
        }
        return Batch(**{name: draws[name]() for name in update.draws})

    @torch.no_grad()
    def evaluation_samples(self) -> Tensor:
        """Generated from the same latents at every call, on the CPU."""
        generator = self.generator if self.average is None else self.average
        samples = generator.eval()(self.evaluation_latents)
        generator.train()
        return samples.float().cpu()

    def players(self, update: Update, networks: nn.ModuleDict | None = None) -> list[nn.Parameter]:
        return [param for name in update.players for param in (networks or self.networks)[name].parameters()]

    def state_dict(self) -> dict[str, Any]:
        """All that a step depends on and changes, in plain containers."""
        state = {"step": self.step_count, "random": self.random.get_state(), "latents": self.evaluation_latents}
        return state | {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step_count = state["step"]
        self.random.set_state(state["random"].cpu())
        self.evaluation_latents = state["latents"].to(self.device)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def _make_networks(self) -> nn.ModuleDict:
        architecture, latent = ARCHITECTURES[self.config.architecture], self.objective.latent
        sizes = Sizes(self.data.shape, latent, self.config.width or architecture.width, self.data.is_image)
        with torch.random.fork_rng(devices=[]):  # torch.nn draws initial weights from the global generator only
            torch.manual_seed(self.config.seed)
            networks = self.objective.make_networks(architecture, sizes)
        if self.config.virtual_batch_norm:
            reference = torch.randn(64, latent, generator=self.random)
            networks["generator"] = WithReference(networks.generator, reference)
        return networks

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.random).to(self.device, self.dtype)  # the same numbers in every dtype
