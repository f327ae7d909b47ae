"""`python -m wgan_kernels.trainer`, also installed as `wgan-train`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import torch

import wgan_kernels as wk

try:
    from . import ranks
    from .checkpoint import FileError, load_checkpoint, prepare, replacing, restore, save_checkpoint
    from .comparison import compare
    from .config import Config, parse
    from .data import load
    from .evaluation import Judge
    from .files import DataError
    from .interrupt import Interrupt
    from .loop import Training
    from .networks import ARCHITECTURES
    from .objectives import make_objective
    from .record import Log, Record
    from .results import Results, save, save_metrics, summary
    from .run import train
    from .verification import Verifier
except ModuleNotFoundError as error:
    if error.name not in ("PIL", "jsonargparse", "matplotlib", "numpy", "sklearn", "tqdm", "yaml"):
        raise
    sys.exit(f"wgan-train needs {error.name}: install the package with its [trainer] extra")

EXIT_CODES = {"finished": 0, "verification failed": 1, "diverged": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns the exit status: 0 finished, 1 failed, 2 could not start, 130 or 143 interrupted by Ctrl-C or SIGTERM.
    """
    config = parse(arguments)
    with ranks.process_group(config.device), wk.use_backend(config.backend), Interrupt() as interrupt:
        torch.set_num_threads(config.threads)
        try:
            training, verifier, state = start(config)
        except (DataError, FileError, ValueError) as error:
            print(f"wgan-train: error: {error}", file=sys.stderr)
            return 2
        try:
            return run(training, verifier, interrupt, resumed=state is not None)
        except FileError as error:
            print(f"wgan-train: error: {error}", file=sys.stderr)
            return 1


def start(config: Config) -> tuple[Training, Verifier, dict | None]:
    """Everything that may be wrong is found here, before a file of an earlier run is touched."""
    objective, plain = make_objective(config), make_objective(config, plain=True)
    own = {each: getattr(objective, each, None) for each in ("batch_size", "critic_steps", "latent", "lr", "clip",
                                                             "penalty_weight")}  # fmt: skip
    config = dataclasses.replace(config, **own)  # as the objective has it, for the record
    if objective.batch_size % ranks.count():
        raise ValueError(f"--batch-size must be a multiple of the {ranks.count()} ranks, got {objective.batch_size}")
    if config.compare and ranks.count() > 1:
        raise ValueError(f"--compare is for one process, got {ranks.count()} ranks")
    data = load(config.data, ARCHITECTURES[config.architecture].least_side)
    state = load_checkpoint(config) if config.resume else None
    training = Training(config, data, objective)
    if state is not None:
        restore(training, state)
    if ranks.number() == 0:
        prepare(config.out)
    return training, Verifier(config.verify, plain), state


def run(training: Training, verifier: Verifier, interrupt: Interrupt, resumed: bool) -> int:
    """Trains, saves, compares and reports; the first rank alone writes and speaks."""
    config, record = training.config, Record()
    if ranks.number() > 0:
        train(training, None, verifier, interrupt, record, None)
        return _status(record, interrupt)
    log = Log(config.out, record, training.step_count, config.tensorboard)
    with replacing(config.out / "config.yaml") as path:
        path.write_text(config.to_yaml())
    judge = Judge(training.data)
    train(training, judge, verifier, interrupt, record, log)
    results = Results(config, training, judge, verifier, record)
    save(results)
    if config.compare and record.outcome == "finished" and not interrupt.requested:
        print("timing the same run on plain PyTorch ...", file=sys.stderr)
        results.comparison = compare(config, training.data, interrupt)
        save_metrics(results)
    print(summary(results))
    if record.explanation:
        print(f"wgan-train: {record.outcome}: {record.explanation}", file=sys.stderr)
    same = results.comparison is None or results.comparison.same_curve
    return _status(record, interrupt) if same else 1


def _status(record: Record, interrupt: Interrupt) -> int:
    return 128 + interrupt.signal if record.outcome == "interrupted" else EXIT_CODES[record.outcome]


if __name__ == "__main__":
    sys.exit(main())
