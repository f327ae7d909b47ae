"""What a run leaves behind: files, each either whole or not there, and a summary."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import wgan_kernels as wk

from .comparison import CURVE_TOLERANCE, Comparison
from .config import Config
from .data import Data
from .evaluation import Judge
from .loop import Record, Training
from .pictures import draw_curves, draw_samples
from .verification import TOLERANCE, Verifier, float32_tolerance


@dataclass
class Results:
    """Everything that the files and the summary tell."""

    config: Config
    data: Data
    training: Training
    judge: Judge
    verifier: Verifier
    record: Record
    comparison: Comparison | None = None

    @property
    def mmd2(self) -> dict[str, float]:
        """MMD^2 to the held-out images."""
        generated = self.judge.mmd2(self.training.evaluation_samples())
        return {"generated": generated, "train": self.judge.train_mmd2, "untrained": self.record.mmd2[0]}


def prepare(folder: Path) -> None:
    """Makes the folder and proves that files can be written there, before any time is spent; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` once written, so that `path` never holds half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(results: Results) -> None:
    """Writes checkpoint, pictures and metrics."""
    folder = results.config.out
    with replacing(folder / "checkpoint.pt") as path:
        torch.save(_checkpoint(results), path)
    with replacing(folder / "samples.png") as path:
        draw_samples(path, results.training.evaluation_samples(), results.data)
    with replacing(folder / "curves.png") as path:
        draw_curves(path, results.record, results.judge)
    save_metrics(results)


def save_metrics(results: Results) -> None:
    with replacing(results.config.out / "metrics.json") as path:
        path.write_text(json.dumps(_metrics(results), indent=1, allow_nan=False) + "\n")


def _checkpoint(results: Results) -> dict[str, Any]:
    """Plain containers of tensors and numbers, which torch.load(weights_only=True) takes."""
    training = results.training
    return {
        "step": training.step_count,
        "config": _plain(results.config),
        "evaluation_latents": training.evaluation_latents,
        **{name: network.state_dict() for name, network in training.networks.items()},
        **{f"{name}_optimizer": optimizer.state_dict() for name, optimizer in training.optimizers.items()},
    }


def _plain(config: Config) -> dict[str, Any]:
    return {**asdict(config), "out": str(config.out)}


def _finite(value: float) -> float | None:
    """JSON has no NaN, which is what a diverged generator comes to."""
    return value if math.isfinite(value) else None


def _metrics(results: Results) -> dict[str, Any]:
    record, verifier = results.record, results.verifier
    return {
        "config": _plain(results.config),
        "objective": results.training.objective.name,
        "versions": {"wgan_kernels": wk.__version__, "torch": torch.__version__},
        "backend": backend(results.config),
        "outcome": record.outcome,
        "explanation": record.explanation,
        "steps": results.training.step_count,
        "seconds": record.seconds,
        "bandwidth": results.judge.bandwidth,
        "mmd2": {name: _finite(value) for name, value in results.mmd2.items()},
        "verification": {"checks": verifier.checks, "tolerance": TOLERANCE, "worst": asdict(verifier.worst)},
        "comparison": _comparison(results),
        "history": record.history,
        "mmd2_history": [[step, _finite(value)] for step, value in record.mmd2.items()],
    }


def _comparison(results: Results) -> dict[str, Any] | None:
    if results.comparison is None:
        return None
    values = asdict(results.comparison).items()
    return {name: _finite(value) if isinstance(value, float) else value for name, value in values}


def backend(config: Config) -> str:
    """What really serves the run, in words."""
    info = wk.build_info()
    if config.backend in ("reference", "triton"):
        return config.backend
    if info["native"]:
        return f"native, {info['cpu_instruction_set']}"
    return f"reference, because the compiled library is not available: {info['reason']}"


def summary(results: Results) -> str:
    """What the run came to, for people."""
    record, training, data = results.record, results.training, results.data
    steps = training.step_count
    rate = steps / record.seconds if record.seconds else 0.0
    mmd2 = results.mmd2
    lines = [
        f"{training.objective.name} ({results.config.architecture}) on digits: {len(data.train)} to learn from, "
        f"{len(data.held_out)} held out; {record.outcome}",
        f"  back end      {backend(results.config)}",
        f"  training      {steps} of {results.config.steps} steps in {record.seconds:.1f} s: "
        f"{rate:.1f} steps/s with checks and evaluations",
        f"  MMD\N{SUPERSCRIPT TWO} to the held-out digits, unbiased, RBF of bandwidth {results.judge.bandwidth:.2f} "
        "(about 0 for equal distributions)",
        f"    generated digits     {mmd2['generated']: .5f}",
        f"    training digits      {mmd2['train']: .5f}",
        f"    untrained generator  {mmd2['untrained']: .5f}",
        *_verification_lines(results),
        *_comparison_lines(results),
        f"  files         {results.config.out}/: samples.png, curves.png, metrics.json, checkpoint.pt",
    ]
    return "\n".join(lines)


def _verification_lines(results: Results) -> list[str]:
    verifier, worst = results.verifier, results.verifier.worst
    if not verifier.interval:
        return ["  verification  off"]
    if results.record.outcome == "verification failed":
        return [f"  verification  FAILED, as reported below; {verifier.checks} checked steps before it agreed"]
    return [
        f"  verification  {verifier.checks} checked steps agree with plain PyTorch: largest relative error in float64 "
        f"{worst.loss:.0e} (loss), {worst.gradient:.0e} (gradients), tolerance {TOLERANCE:.0e};",
        f"    the float32 loss that was trained on is off from float64 by {worst.float32_loss:.0e} at most, "
        f"tolerance {float32_tolerance(results.config.batch_size):.0e}",
    ]


def _comparison_lines(results: Results) -> list[str]:
    comparison = results.comparison
    if comparison is None:
        return ["  speed         not compared"]
    low, high = comparison.speedup_range
    ours = f"this library ({backend(results.config).split(',')[0]})"
    return [
        f"  speed         same seed, same steps, in turns: {comparison.rounds} rounds of "
        f"{comparison.steps_per_round} steps each, no checks or evaluations",
        f"    {ours:<36} {comparison.library:7.1f} steps/s",
        f"    {'plain PyTorch (autograd.grad, norm)':<36} {comparison.plain:7.1f} steps/s",
        f"    ratio {comparison.speedup:.2f} ({low:.2f} to {high:.2f} by round)",
        f"  loss curves   {'the same' if comparison.same_curve else 'DIFFERENT'} over {comparison.curve_steps} steps: "
        f"largest relative difference {comparison.curve_difference:.0e} in float64, tolerance {CURVE_TOLERANCE:.0e},",
        f"    and {comparison.curve_difference_float32:.0e} in float32, where one rounding can set two runs apart",
    ]
