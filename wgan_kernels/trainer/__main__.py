"""`python -m wgan_kernels.trainer`, also installed as `wgan-train`."""

import signal
import sys
from collections.abc import Sequence

import torch

import wgan_kernels as wk

try:
    import yaml

    from . import ranks
    from .checkpoint import load_checkpoint, prepare, replacing
    from .config import Config, parse
    from .data import Judge, load
    from .files import FileError, naming
    from .loop import Training
    from .networks import ARCHITECTURES
    from .objectives import make_objective
    from .pictures import draw_comparison, save, save_pictures
    from .run import Interrupt, Record, metrics_of, save_metrics, summary, train
    from .twin import Verifier, compare
except ModuleNotFoundError as error:
    if (error.name or "torch").partition(".")[0] in ("wgan_kernels", "torch"):
        raise  # no extra would help
    sys.exit(f"wgan-train needs {error.name}: install the package with its [trainer] extra")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns the exit status: 0 finished, 1 failed, 2 could not start, 130 or 143 interrupted by Ctrl-C or SIGTERM.
    """
    config, status, expected = parse(arguments), 2, (FileError, ValueError)
    with ranks.process_group(config.device), wk.use_backend(config.backend), Interrupt() as interrupt:
        torch.set_num_threads(config.threads)
        try:
            training, record = start(config)
            status, expected = 1, (FileError,)
            return run(training, record, interrupt)
        except expected as error:
            print(f"wgan-train: error: {error}", file=sys.stderr)
            return status


def start(config: Config) -> tuple[Training, Record]:
    """Everything that may be wrong is found here, before a file of an earlier run is touched."""
    objective = make_objective(config)
    config = config.resolved(objective)
    if objective.batch_size % ranks.count():
        raise ValueError(f"--batch-size must be a multiple of the {ranks.count()} ranks, got {objective.batch_size}")
    if config.compare and ranks.count() > 1:
        raise ValueError(f"--compare is for one process, got {ranks.count()} ranks")
    data = load(config.data, ARCHITECTURES[config.architecture].least_side)
    training, record = Training(config, data, objective), Record()
    if config.resume and (state := load_checkpoint(config)):
        with naming(config.out, "the checkpoint does not fit this run, and was left"):
            training.load_state_dict(state)
            record = Record(**state["record"])
    if ranks.number() == 0:
        prepare(config.out)
        with replacing(config.out / "config.yaml") as path:
            path.write_text(yaml.safe_dump(config.plain(), sort_keys=False))
    return training, record


def run(training: Training, record: Record, interrupt: Interrupt) -> int:
    """Trains, saves, compares and reports; the first rank alone writes and speaks."""
    config, verifier = training.config, Verifier(training.config)
    judge = Judge(training.data) if ranks.number() == 0 else None
    train(training, judge, verifier, interrupt, record)
    stopped = 128 + (interrupt.requested or signal.SIGINT)  # by a signal, maybe of another rank
    status = {"finished": 0, "interrupted": stopped}.get(record.outcome, 1)
    if not judge:
        return status
    metrics = metrics_of(training, judge, verifier, record)
    save_pictures(training, metrics)
    save_metrics(config.out, metrics)
    if config.compare and status == 0 and not interrupt.requested:
        print("timing the same run on plain PyTorch ...", file=sys.stderr)
        if found := compare(config, training.data, lambda: bool(interrupt.requested)):
            metrics["comparison"] = found
            status = int(not found["same_curve"])
            save(config.out / "comparison.png", (9, 5), draw_comparison, found)
            save_metrics(config.out, metrics)
    print(summary(metrics), flush=True)  # before ranks.leave
    if record.explanation:
        print(f"wgan-train: {record.outcome}: {record.explanation}", file=sys.stderr)
    return status


if __name__ == "__main__":
    ranks.leave(main())
