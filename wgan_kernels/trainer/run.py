"""A run from its first or next step to its end, what stops it, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import math
import signal
import time
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import yaml
from tqdm import tqdm

import wgan_kernels as wk

from . import ranks
from .checkpoint import replacing, save_checkpoint
from .config import Config
from .evaluation import Judge
from .loop import Training
from .verification import TOLERANCE, VerificationError, Verifier

EVALUATIONS = 40  # along a run
SHOWN = 64  # images for TensorBoard


class Interrupt:
    """Ctrl-C and SIGTERM as a wish that is met between two steps, so that what is saved is never half a step.

    Within a `with` block the first signal sets `requested` to its number; a second one does what it did before.
    """

    requested = 0

    def __enter__(self) -> Interrupt:
        self._previous: Any = {each: signal.signal(each, self._request) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        signal.signal(number, self._previous[number])


@dataclass
class Record:
    """What happened in a run."""

    outcome: str = "finished"  # or "interrupted", "diverged", "verification failed"
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
    for step in bar:
        try:
            values = training.step(verifier if due(step - 1, config.verify) else None)
        except VerificationError as error:
            record.outcome, record.explanation = "verification failed", str(error)
            break
        if not all(map(math.isfinite, values.values())):
            reason = f"the losses are no longer finite numbers ({values}): try a smaller --lr"
            record.outcome, record.explanation = "diverged", reason
            break
        for name, value in values.items():
            record.history.setdefault(name, []).append(value)
        bar.set_postfix({name: f"{value:.3f}" for name, value in list(values.items())[:2]}, refresh=False)
        record.seconds = time.perf_counter() - start
        if ranks.any_rank(bool(interrupt.requested), training.device) and step < config.steps:
            record.outcome, record.explanation = "interrupted", f"interrupted after {step} of {config.steps} steps"
        last = step == config.steps or record.outcome == "interrupted"
        if judge and (step == config.steps or due(step, math.ceil(config.steps / EVALUATIONS))):
            record.mmd2[step] = judge.mmd2(training.evaluation_samples())
        if judge and (last or due(step, config.checkpoint_every)):
            save_checkpoint(config, {**training.state_dict(), "record": asdict(record)})
        if board:
            show(board, training, record, step)
        if last:
            break
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
            images = training.evaluation_samples()[:SHOWN].unflatten(1, training.data.shape)
            board.add_images("samples", (images.clamp(-1, 1) + 1) / 2, step)


def metrics_of(training: Training, judge: Judge, verifier: Verifier, record: Record) -> dict[str, Any]:
    """All figures; `comparison` is for whoever makes one."""
    config, samples = training.config, training.evaluation_samples()
    checks = {"checks": verifier.checks, "tolerance": TOLERANCE, "largest_errors": verifier.worst._asdict()}
    return {
        "run": f"{config.objective} ({config.architecture}) on {config.data}",
        "config": config.plain(),
        "version": wk.__version__,
        "backend": config.backend,
        "why_not_native": wk.build_info()["reason"],
        "build": wk.build_info(),
        **asdict(record),
        "steps": training.step_count,
        "steps_per_second": training.step_count / record.seconds if record.seconds else 0.0,
        "bandwidth": judge.bandwidth,
        "mmd2": {"generated": judge.mmd2(samples), **judge.baselines, "untrained": record.mmd2[0]},
        "mmd2_history": [list(each) for each in record.mmd2.items()],
        "modes": judge.modes(samples),
        "verification": checks,
        "comparison": None,
    }


def save_metrics(config: Config, metrics: dict[str, Any]) -> None:
    """metrics.json with everything, and metrics.csv with a line for each step."""
    finite = json.loads(json.dumps(metrics), parse_constant=lambda name: None)  # JSON has no NaN
    with replacing(config.out / "metrics.json") as path:
        path.write_text(json.dumps(finite, indent=1, allow_nan=False) + "\n")
    curves, mmd2 = metrics["history"], dict(metrics["mmd2_history"])
    with replacing(config.out / "metrics.csv") as path, path.open("w", newline="") as file:
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
