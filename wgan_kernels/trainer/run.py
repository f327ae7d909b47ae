"""A run from its first or next step to its end: steps, checks, evaluations, checkpoints, and what stops it."""

from __future__ import annotations

import math
import time

from tqdm import tqdm

from . import ranks
from .checkpoint import save_checkpoint
from .evaluation import Judge
from .interrupt import Interrupt
from .loop import Training
from .pictures import sample_grid
from .record import Log, Record
from .verification import VerificationError, Verifier

EVALUATIONS = 40  # along a run


def train(
    training: Training, judge: Judge | None, verifier: Verifier, interrupt: Interrupt, record: Record, log: Log | None
) -> None:
    """Makes the steps that are left, or as many as can be; judge and log are those of the first rank alone."""
    config, start, first = training.config, time.perf_counter(), training.step_count
    interval = math.ceil(config.steps / EVALUATIONS)
    if judge is not None and not record.mmd2:
        record.mmd2[0] = judge.mmd2(training.evaluation_samples())
    bar = tqdm(total=config.steps, initial=first, desc=config.objective, unit=" steps", mininterval=0.25,
               disable=log is None)  # fmt: skip
    with bar:
        while training.step_count < config.steps and record.outcome == "finished":
            try:
                values = training.step(verifier.due(training.step_count))
            except VerificationError as error:
                record.outcome, record.explanation = "verification failed", str(error)
                break
            step = training.step_count
            if not all(map(math.isfinite, values.values())):
                record.outcome = "diverged"
                record.explanation = f"the losses are no longer finite numbers ({values}): try a smaller --lr"
                break
            record.add(values)
            if judge is not None and (step % interval == 0 or step == config.steps):
                record.mmd2[step] = judge.mmd2(training.evaluation_samples())
            if log is not None:
                log.write(step, values)
                if step in record.mmd2 and training.data.is_image:
                    log.show(sample_grid(training.evaluation_samples(), training.data.shape), step)
                if config.checkpoint_every and step % config.checkpoint_every == 0 and step < config.steps:
                    log.flush()
                    save_checkpoint(training)
                bar.set_postfix({name: f"{value:.3f}" for name, value in list(values.items())[:2]}, refresh=False)
            if ranks.any_rank(interrupt.requested, training.device) and step < config.steps:
                record.outcome, record.explanation = "interrupted", f"interrupted after {step} of {config.steps} steps"
            bar.update()
    record.seconds, record.steps_timed = time.perf_counter() - start, training.step_count - first
    if log is not None:
        log.close()
        if record.outcome in ("finished", "interrupted"):  # else it may stand within a step
            save_checkpoint(training)
