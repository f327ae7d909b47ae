"""Trains a little on the ranks of torchrun, or alone, and saves what became of it; for tests/test_trainer_resume.py.

torchrun --nproc-per-node 2 tests/distributed_training.py FOLDER
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import torch
from trainer_runs import small

from wgan_kernels.trainer import ranks
from wgan_kernels.trainer.__main__ import main
from wgan_kernels.trainer.loop import Training
from wgan_kernels.trainer.twin import Verifier

# Whatever couples the samples of a batch is in one of these: discrepancies, features' means, batch normalisation.
RUNS = {
    "wgan-gp": ["--architecture", "dcgan", "--width", "4"],
    "mmd-gan": ["--objective", "mmd-gan", "--critic-steps", "2"],
    "wae-mmd": ["--objective", "wae-mmd"],
    "wae-gan": ["--objective", "wae-gan"],
    "nsgan": ["--objective", "nsgan", "--feature-matching", "--instance-noise", "0.1", "--historical-averaging", "0.1"],
    "wgan": ["--objective", "wgan", "--ema", "0.5", "--minibatch-discrimination"],
}


def train(options: list[str]) -> dict[str, torch.Tensor]:
    training = small(*options)
    figures = [list(training.step().values()) for _ in range(2)]
    figures.append(list(training.step(Verifier(training.config)).values()))
    return {"figures": torch.tensor(figures, dtype=torch.float64), **training.networks.state_dict()}


def run(folder: Path) -> None:
    torch.set_num_threads(1)
    with ranks.process_group("cpu"):
        found = {name: train(options) for name, options in RUNS.items()}
        torch.save(found, folder / f"{ranks.count()}-{ranks.number()}.pt")
        if ranks.count() > 1:
            # The whole command line too: an interrupt of one rank ends the run of all, and the first one saves.
            if ranks.number() == 1:
                interrupt_at_step(20)
            status = main(["--out", str(folder / "run"), "--steps", "1000000", "--width", "4", "--data", "swissroll"])
            (folder / f"status-{ranks.number()}").write_text(str(status))


def interrupt_at_step(number: int) -> None:
    step = Training.step

    def interrupted_step(training: Training, check: Any = None) -> dict[str, float]:
        if training.step_count == number - 1:
            signal.raise_signal(signal.SIGTERM)
        return step(training, check)

    Training.step = interrupted_step


if __name__ == "__main__":
    run(Path(sys.argv[1]))
