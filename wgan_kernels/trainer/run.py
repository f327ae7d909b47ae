"""A run from its first or next step to its end: steps, checks, evaluations, checkpoints, and what stops it."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from tqdm import tqdm

from . import ranks
from .checkpoint import FileError, save_checkpoint
from .evaluation import Judge
from .loop import Training
from .pictures import sample_grid
from .verification import VerificationError, Verifier

EVALUATIONS = 40  # along a run


class Interrupt:
    """Ctrl-C and SIGTERM as a wish that is met between two steps, so that what is saved is never half a step.

    Within a `with` block the first signal sets `requested`; a second one does what it did before.
    """

    def __init__(self) -> None:
        self.requested, self.signal = False, signal.SIGINT

    def __enter__(self) -> Interrupt:
        self._previous: Any = {each: signal.signal(each, self._request) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.signal = True, signal.Signals(number)
        signal.signal(number, self._previous[number])


@dataclass
class Record:
    """What happened in a run."""

    outcome: str = "finished"  # or "interrupted", "diverged", "verification failed"
    explanation: str = ""
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)  # one entry per step
    mmd2: dict[int, float] = field(default_factory=dict)  # step -> generated against held-out

    def end(self, outcome: str, explanation: str) -> None:
        self.outcome, self.explanation = outcome, explanation


def train(training: Training, judge: Judge | None, verifier: Verifier, interrupt: Interrupt, record: Record) -> None:
    """Makes the steps that are left, or as many as can be; the first rank alone has a judge, and writes."""
    config, start, earlier = training.config, time.perf_counter(), record.seconds
    interval, total = math.ceil(config.steps / EVALUATIONS), config.steps
    board = summary_writer(training) if judge and config.tensorboard else None
    if judge and not record.mmd2:
        record.mmd2[0] = judge.mmd2(training.evaluation_samples())
    with tqdm(total=total, initial=training.step_count, desc=config.objective, unit=" steps", disable=not judge) as bar:
        while training.step_count < total and record.outcome == "finished":
            try:
                values = training.step(verifier.due(training.step_count))
            except VerificationError as error:
                record.end("verification failed", str(error))
                break
            step = training.step_count
            if not all(map(math.isfinite, values.values())):
                record.end("diverged", f"the losses are no longer finite numbers ({values}): try a smaller --lr")
                break
            for name, value in values.items():
                record.history.setdefault(name, []).append(value)
            if ranks.any_rank(interrupt.requested, training.device) and step < total:
                record.end("interrupted", f"interrupted after {step} of {total} steps")
            record.seconds = earlier + time.perf_counter() - start
            if judge:
                if step % interval == 0 or step == total:
                    record.mmd2[step] = judge.mmd2(training.evaluation_samples())
                if board:
                    show(board, training, record, step)
                last = step == total or record.outcome == "interrupted"
                if last or (config.checkpoint_every and step % config.checkpoint_every == 0):
                    save_checkpoint(config, {**training.state_dict(), "record": asdict(record)})
            bar.set_postfix({name: f"{value:.3f}" for name, value in list(values.items())[:2]}, refresh=False)
            bar.update()
    if board:
        board.close()


def summary_writer(training: Training) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise FileError(f"argument --tensorboard: needs the package tensorboard: {error}") from error
    return SummaryWriter(str(training.config.out / "tensorboard"), purge_step=training.step_count + 1)


def show(board: Any, training: Training, record: Record, step: int) -> None:
    for name, values in record.history.items():
        board.add_scalar(name, values[-1], step)
    if step in record.mmd2:
        board.add_scalar("mmd2", record.mmd2[step], step)
        if training.data.is_image:
            board.add_image("samples", sample_grid(training.evaluation_samples(), training.data.shape), step,
                            dataformats="HW")  # fmt: skip
