"""What a run leaves behind, and its summary for people."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

import wgan_kernels as wk

from .checkpoint import replacing
from .comparison import CURVE_TOLERANCE, Comparison
from .config import Config
from .evaluation import Judge
from .loop import Training
from .pictures import save_comparison, save_pictures
from .record import Record
from .verification import TOLERANCE, Verifier, float32_tolerance


@dataclass
class Results:
    """Everything that the files and the summary tell."""

    config: Config
    training: Training
    judge: Judge
    verifier: Verifier
    record: Record
    comparison: Comparison | None = None

    @property
    def mmd2(self) -> dict[str, float]:
        """MMD^2 to the held-out samples."""
        return {
            "generated": self.judge.mmd2(self.training.evaluation_samples()),
            "train": self.judge.train_mmd2,
            "gaussian": self.judge.gaussian_mmd2,
            "untrained": self.record.mmd2[0],
        }


def save(results: Results) -> None:
    """Writes pictures and metrics."""
    save_pictures(results.config.out, results.training, results.record, results.judge)
    save_metrics(results)


def save_metrics(results: Results) -> None:
    (results.config.out / "comparison.png").unlink(missing_ok=True)  # of an earlier run
    if results.comparison is not None:
        figures = {name: f"{rate:.1f} steps/s, {size}" for name, rate, size in _speeds(results.comparison)}
        save_comparison(results.config.out / "comparison.png", results.comparison.curves, figures)
    with replacing(results.config.out / "metrics.json") as path:
        path.write_text(json.dumps(_finite(_metrics(results)), indent=1, allow_nan=False) + "\n")


def _speeds(comparison: Comparison) -> list[tuple[str, float, str]]:
    sizes = [f"{number / 2**20:.1f} MiB a step" for number in (comparison.library_bytes, comparison.plain_bytes)]
    return list(zip(comparison.curves, (comparison.library, comparison.plain), sizes, strict=True))


def _finite(value: Any) -> Any:
    """JSON has no NaN, which is what a diverged generator comes to."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _metrics(results: Results) -> dict[str, Any]:
    record, verifier, training = results.record, results.verifier, results.training
    return {
        "config": results.config.plain(),
        "versions": {"wgan_kernels": wk.__version__, "torch": torch.__version__},
        "backend": backend(results.config),
        "outcome": record.outcome,
        "explanation": record.explanation,
        "steps": training.step_count,
        "seconds": record.seconds,
        "bandwidth": results.judge.bandwidth,
        "mmd2": results.mmd2,
        "modes": results.judge.modes(training.evaluation_samples()),
        "verification": {"checks": verifier.checks, "tolerance": TOLERANCE, "worst": asdict(verifier.worst)},
        "comparison": None if results.comparison is None else asdict(results.comparison),
        "history": record.history,
        "mmd2_history": [[step, _finite(value)] for step, value in record.mmd2.items()],
    }


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
    record, training, config = results.record, results.training, results.config
    rate = record.steps_timed / record.seconds if record.seconds else 0.0
    mmd2 = results.mmd2
    lines = [
        f"{config.objective} ({config.architecture}) on {config.data}: {len(training.data.train)} samples to learn "
        f"from, {len(training.data.held_out)} held out; {record.outcome}",
        f"  back end      {backend(config)}",
        f"  training      {training.step_count} of {config.steps} steps; {record.steps_timed} in {record.seconds:.1f} "
        f"s: {rate:.1f} steps/s with checks and evaluations",
        f"  MMD\N{SUPERSCRIPT TWO} to held-out samples, unbiased, RBF of bandwidth {results.judge.bandwidth:.2f} "
        "(about 0 for equal distributions)",
        f"    generated samples    {mmd2['generated']: .5f}",
        f"    training samples     {mmd2['train']: .5f}",
        f"    Gaussian fitted      {mmd2['gaussian']: .5f}",
        f"    untrained generator  {mmd2['untrained']: .5f}",
        *_mode_lines(results),
        *_verification_lines(results),
        *_comparison_lines(results),
        f"  files         {config.out}/: {', '.join(sorted(each.name for each in config.out.iterdir()))}",
    ]
    return "\n".join(lines)


def _mode_lines(results: Results) -> list[str]:
    modes = results.judge.modes(results.training.evaluation_samples())
    if modes is None:
        return []
    return [f"  modes         {modes['found']} of {modes['modes']}; {modes['near']:.1%} of the samples within "
            "4 \N{GREEK SMALL LETTER SIGMA} of one"]  # fmt: skip


def _verification_lines(results: Results) -> list[str]:
    verifier, worst = results.verifier, results.verifier.worst
    if not verifier.interval:
        return ["  verification  off"]
    if results.record.outcome == "verification failed":
        return [f"  verification  FAILED, as reported below; {verifier.checks} checked updates before it agreed"]
    rows = results.training.objective.batch_size
    return [
        f"  verification  {verifier.checks} checked updates agree with plain PyTorch: largest relative error in "
        f"float64 {worst.loss:.0e} (loss),",
        f"    {worst.gradient:.0e} (gradients), {worst.weights:.0e} (weights after the step), tolerance {TOLERANCE:.0e};",
        f"    the loss that was trained on is off from float64 by {worst.float32_loss:.0e} at most, "
        + ("not held to anything with --amp" if results.config.amp else f"tolerance {float32_tolerance(rows):.0e}"),
    ]


def _comparison_lines(results: Results) -> list[str]:
    comparison = results.comparison
    if comparison is None:
        return ["  speed         not compared"]
    low, high = comparison.speedup_range
    return [
        f"  speed         same seed, same steps, in turns: {comparison.rounds} rounds of "
        f"{comparison.steps_per_round} steps each, no checks or evaluations",
        *[f"    {name:<36} {rate:7.1f} steps/s, {size}" for name, rate, size in _speeds(comparison)],
        f"    ratio {comparison.speedup:.2f} ({low:.2f} to {high:.2f} by round)",
        f"  loss curves   {'the same' if comparison.same_curve else 'DIFFERENT'} over {comparison.curve_steps} steps: "
        f"largest relative difference {comparison.curve_difference:.0e} in float64, tolerance {CURVE_TOLERANCE:.0e},",
        f"    and {comparison.curve_difference_float32:.0e} in float32, where one rounding can set two runs apart",
    ]
