"""`python -m wgan_kernels.trainer`, also installed as `wgan-train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

import wgan_kernels as wk

try:
    from .comparison import compare
    from .config import Config, parse
    from .data import load_digits
    from .evaluation import Judge
    from .interrupt import Interrupt
    from .loop import Training, train
    from .networks import ARCHITECTURES
    from .objectives.wgan_gp import WGANGP, PlainWGANGP
    from .results import Results, prepare, save, save_metrics, summary
    from .verification import Verifier
except ModuleNotFoundError as error:
    if error.name not in ("matplotlib", "numpy", "sklearn", "tqdm"):
        raise
    sys.exit(f"wgan-train needs {error.name}: install the package with its [trainer] extra")

EXIT_CODES = {"finished": 0, "verification failed": 1, "diverged": 1, "interrupted": 130}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 finished, 1 failed, 2 could not start, 130 interrupted."""
    config = parse(arguments)
    try:
        prepare(config.out)
    except OSError as error:
        wanted = f"must be a writable folder, got {str(config.out)!r}: {error.strerror}"
        print(f"wgan-train: error: argument --out: {wanted}", file=sys.stderr)
        return 2
    with wk.use_backend(config.backend), Interrupt() as interrupt:
        return run(config, interrupt)


def run(config: Config, interrupt: Interrupt) -> int:
    """Trains, saves, compares and reports."""
    torch.set_num_threads(config.threads)
    data = load_digits(ARCHITECTURES[config.architecture].side)
    training, judge = Training(config, data, WGANGP()), Judge(data)
    verifier = Verifier(config.verify, WGANGP(), PlainWGANGP())
    record = train(training, judge, verifier, interrupt)
    results = Results(config, data, training, judge, verifier, record)
    save(results)
    if config.compare and record.outcome == "finished" and not interrupt.requested:
        print("timing the same run on plain PyTorch ...", file=sys.stderr)
        results.comparison = compare(config, data, interrupt)
        save_metrics(results)
    print(summary(results))
    if record.explanation:
        print(f"wgan-train: {record.outcome}: {record.explanation}", file=sys.stderr)
    same = results.comparison is None or results.comparison.same_curve
    return EXIT_CODES[record.outcome] if same else 1


if __name__ == "__main__":
    sys.exit(main())
