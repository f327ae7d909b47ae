"""A run from its first or next step to its end, what stops it, and what it leaves behind."""

import csv
import json
import math
import signal
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

import wgan_kernels as wk

from . import ranks
from .checkpoint import replacing, save_checkpoint
from .data import Judge
from .loop import Training
from .twin import TOLERANCE, VerificationError, Verifier

EVALUATIONS = 40  # along a run
EARLY_ENDS = {VerificationError: "verification failed", FloatingPointError: "diverged", InterruptedError: "interrupted"}


class Interrupt(ExitStack):
    """Ctrl-C and SIGTERM as a wish that is met between two steps, so that what is saved is never half a step.

    Within a `with` block the first signal sets `requested` to its number; a second one does what it did before.
    """

    requested = 0

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.callback(signal.signal, number, signal.signal(number, self._request))
        return self

    def _request(self, number: int, *_: Any) -> None:
        self.requested = number
        self.close()


@dataclass
class Record:
    """What happened in a run."""

    outcome: str = "finished"  # or an early end
    explanation: str = ""
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)  # one entry per step
    mmd2: dict[int, float] = field(default_factory=dict)  # step -> generated against held-out


def train(training: Training, judge: Judge | None, verifier: Verifier, interrupt: Interrupt, record: Record) -> None:
    """Makes the steps that are left, or as many as can be; the first rank alone has a judge, and writes."""
    config, done, start = training.config, training.step_count, time.perf_counter() - record.seconds
    board = summary_writer(training) if judge and config.tensorboard else None
    if judge and not record.mmd2:
        record.mmd2[0] = judge.mmd2(training.evaluation_samples())
    bar = tqdm(range(done + 1, config.steps + 1), config.objective, config.steps, initial=done, disable=not judge)
    try:
        for step in bar:
            values = training.step(verifier if due(step - 1, config.verify) else None)
            if not all(map(math.isfinite, values.values())):
                raise FloatingPointError(f"the losses are no longer finite numbers ({values}): try a smaller --lr")
            for name, value in values.items():
                record.history.setdefault(name, []).append(value)
            bar.set_postfix({name: f"{value:.3f}" for name, value in list(values.items())[:2]}, refresh=False)
            record.seconds = time.perf_counter() - start
            last = step == config.steps or ranks.any_rank(bool(interrupt.requested), training.device)
            if judge and (step == config.steps or due(step, math.ceil(config.steps / EVALUATIONS))):
                record.mmd2[step] = judge.mmd2(training.evaluation_samples())
            if judge and (last or due(step, config.checkpoint_every)):
                save_checkpoint(config, {**training.state_dict(), "record": asdict(record)})
            if board:
                show(board, training, record, step)
            if last and step < config.steps:
                raise InterruptedError(f"interrupted after {step} of {config.steps} steps")
    except tuple(EARLY_ENDS) as error:
        record.outcome, record.explanation = EARLY_ENDS[type(error)], str(error)
    if board:
        board.close()


def due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def summary_writer(training: Training) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # of a package that other runs do not need

    return SummaryWriter(str(training.config.out / "tensorboard"), purge_step=training.step_count + 1)


def show(board: Any, training: Training, record: Record, step: int) -> None:
    for name, values in record.history.items():
        board.add_scalar(name, values[-1], step)
    if step in record.mmd2:
        board.add_scalar("mmd2", record.mmd2[step], step)
        if training.data.is_image:
            images = training.evaluation_samples()[:64].unflatten(1, training.data.shape)
            board.add_images("samples", (images.clamp(-1, 1) + 1) / 2, step)


def metrics_of(training: Training, judge: Judge, verifier: Verifier, record: Record) -> dict[str, Any]:
    """All figures; `comparison` is for whoever makes one."""
    config, samples, build = training.config, training.evaluation_samples(), wk.build_info()
    name = f"{config.objective} ({config.architecture}) on {config.data}"
    about = {"run": name, "config": config.plain(), "version": wk.__version__, "backend": config.backend}
    about |= {"why_not_native": build["reason"], "build": build, **asdict(record), "steps": training.step_count}
    rate = training.step_count / record.seconds if record.seconds else 0.0
    mmd2 = {"generated": judge.mmd2(samples), **judge.baselines, "untrained": record.mmd2[0]}
    found = {"steps_per_second": rate, "bandwidth": judge.bandwidth, "mmd2": mmd2, "modes": judge.modes(samples)}
    checks = {"checks": verifier.checks, "tolerance": TOLERANCE, "largest_errors": verifier.worst._asdict()}
    return about | found | {"mmd2_history": list(record.mmd2.items()), "verification": checks, "comparison": None}


def save_metrics(out: Path, metrics: dict[str, Any]) -> None:
    """metrics.json with everything, and metrics.csv with a line for each step."""
    finite = json.loads(json.dumps(metrics), parse_constant=lambda name: None)  # JSON has no NaN
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(finite, indent=1, allow_nan=False) + "\n")
    curves, mmd2 = metrics["history"], dict(metrics["mmd2_history"])
    with replacing(out / "metrics.csv") as path, path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["step", *curves, "mmd2"])
        lines.writerow([0, *[""] * len(curves), mmd2[0]])
        lines.writerows([step, *values, mmd2.get(step, "")] for step, values in enumerate(zip(*curves.values()), 1))


def summary(metrics: dict[str, Any]) -> str:
    """What the run came to, for people: without curves, and with four digits."""
    longer = ("config", "build", "history", "mmd2_history")
    shown = {name: value for name, value in metrics.items() if value and name not in longer}
    if metrics["comparison"]:
        shown["comparison"] = {name: value for name, value in metrics["comparison"].items() if name != "curves"}
    rounded = json.loads(json.dumps(shown), parse_float=lambda digits: float(f"{float(digits):.4g}"))
    return yaml.safe_dump(rounded, sort_keys=False).strip()
