"""The training loop: one outer iteration of Algorithm 1 at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .config import Config
from .data import Data
from .evaluation import Judge
from .interrupt import Interrupt
from .networks import ARCHITECTURES, LATENT
from .objectives.wgan_gp import WGANGP, CriticTerms
from .verification import VerificationError, Verifier

EVALUATIONS = 40  # along a run

CriticCheck = Callable[[nn.Module, Tensor, Tensor, Tensor, CriticTerms], None]


class Training:
    """Networks, optimisers and random numbers of one run; a pure function of (config, data, objective, dtype)."""

    def __init__(self, config: Config, data: Data, objective: WGANGP, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.train_data, self.objective, self.dtype = config, data.train.to(dtype), objective, dtype
        architecture = ARCHITECTURES[config.architecture]
        with torch.random.fork_rng(devices=[]):  # torch.nn draws initial weights from the global generator only
            torch.manual_seed(config.seed)
            self.critic = architecture.make_critic(architecture.side).to(dtype)
            self.generator = architecture.make_generator(architecture.side).to(dtype)
        self.random = torch.Generator().manual_seed(config.seed)
        self.evaluation_latents = self.draw_latents(len(data.train))
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), config.lr, betas=objective.betas, fused=True)
            for name, network in self.networks.items()
        }
        self.step_count = 0

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "generator": self.generator}

    def step(self, check: CriticCheck | None = None) -> dict[str, float]:
        """One generator step after its critic steps (Algorithm 1, lines 2 to 12); `check` sees the last of these."""
        self._decay_learning_rate()
        for remaining in reversed(range(self.objective.critic_steps)):
            terms = self._critic_step(None if remaining else check)
        generator_loss = self._generator_step()
        self.step_count += 1
        return {
            "critic_loss": terms.loss.item(),
            "wasserstein": terms.wasserstein.item(),
            "penalty": terms.penalty.item(),
            "gradient_norm": terms.norms.mean().item(),
            "generator_loss": generator_loss.item(),
        }

    def draw_latents(self, number: int) -> Tensor:
        return torch.randn(number, LATENT, generator=self.random).to(self.dtype)  # the same numbers in every dtype

    @torch.no_grad()
    def evaluation_samples(self) -> Tensor:
        """Images of the same latents at every call, as many as there are training images."""
        self.generator.eval()
        samples = self.generator(self.evaluation_latents)
        self.generator.train()
        return samples

    def _critic_step(self, check: CriticCheck | None) -> CriticTerms:
        size = self.config.batch_size
        real = self.train_data[torch.randint(len(self.train_data), (size,), generator=self.random)]
        with torch.no_grad():
            fake = self.generator(self.draw_latents(size))
        mix = torch.rand(size, generator=self.random).to(self.dtype)
        terms = self.objective.critic_terms(self.critic, real, fake, mix)
        if check is not None:
            check(self.critic, real, fake, mix, terms)
        self._descend("critic", terms.loss)
        return terms

    def _generator_step(self) -> Tensor:
        # The critic stands still here: asking for its gradients would only cost time.
        self.critic.requires_grad_(False)
        loss = self.objective.generator_loss(self.critic, self.generator(self.draw_latents(self.config.batch_size)))
        self._descend("generator", loss)
        self.critic.requires_grad_(True)
        return loss

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def _decay_learning_rate(self) -> None:
        """Linearly to 0 over the run, as the paper's ResNets for CIFAR-10 are trained (its appendix)."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * (1 - self.step_count / self.config.steps)


@dataclass
class Record:
    """What happened in a run."""

    outcome: str = "finished"  # or "interrupted", "diverged", "verification failed"
    explanation: str = ""
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)  # one entry per step
    mmd2: dict[int, float] = field(default_factory=dict)  # step -> generated against held-out


def train(training: Training, judge: Judge, verifier: Verifier, interrupt: Interrupt) -> Record:
    """Runs the steps that are asked for, or as many as can be."""
    record, steps = Record(mmd2={0: judge.mmd2(training.evaluation_samples())}), training.config.steps
    interval, start = math.ceil(steps / EVALUATIONS), time.perf_counter()
    with tqdm(total=steps, desc=training.objective.name, unit=" steps", mininterval=0.25) as bar:
        while training.step_count < steps and record.outcome == "finished":
            try:
                _record_step(record, training.step(verifier.due(training.step_count)))
            except VerificationError as error:
                record.outcome, record.explanation = "verification failed", str(error)
                break
            step = training.step_count
            if record.outcome == "finished" and (step % interval == 0 or step == steps):
                record.mmd2[step] = judge.mmd2(training.evaluation_samples())
            if interrupt.requested and step < steps:
                record.outcome, record.explanation = "interrupted", f"interrupted after {step} of {steps} steps"
            _show(bar, record)
    record.seconds = time.perf_counter() - start
    return record


def _record_step(record: Record, values: dict[str, float]) -> None:
    if not all(map(math.isfinite, values.values())):
        record.outcome = "diverged"
        record.explanation = f"the losses are no longer finite numbers ({values}): try a smaller --lr"
        return
    for name, value in values.items():
        record.history.setdefault(name, []).append(value)


def _show(bar: tqdm, record: Record) -> None:
    latest = {name: values[-1] for name, values in record.history.items()}
    if latest:
        bar.set_postfix(
            {"critic loss": f"{latest['critic_loss']:.3f}", "gradient norm": f"{latest['gradient_norm']:.3f}"},
            refresh=False,
        )
    bar.update()
