"""What a run leaves behind, and its summary for people."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from typing import Any

import torch

import wgan_kernels as wk

from .checkpoint import replacing
from .comparison import CURVE_TOLERANCE
from .config import Config
from .evaluation import Judge
from .loop import Training
from .run import Record
from .verification import TOLERANCE, Verifier, float32_tolerance


def metrics_of(training: Training, judge: Judge, verifier: Verifier, record: Record) -> dict[str, Any]:
    """All figures; `comparison` is for whoever makes one."""
    samples = training.evaluation_samples()
    return {
        "config": training.config.plain(),
        "versions": {"wgan_kernels": wk.__version__, "torch": torch.__version__},
        "backend": backend(training.config),
        "outcome": record.outcome,
        "explanation": record.explanation,
        "steps": training.step_count,
        "seconds": record.seconds,
        "bandwidth": judge.bandwidth,
        "mmd2": {"generated": judge.mmd2(samples), **judge.baselines, "untrained": record.mmd2[0]},
        "modes": judge.modes(samples),
        "verification": {"checks": verifier.checks, "tolerance": TOLERANCE, "worst": asdict(verifier.worst)},
        "comparison": None,
        "history": record.history,
        "mmd2_history": [list(each) for each in record.mmd2.items()],
    }


def save_metrics(config: Config, metrics: dict[str, Any]) -> None:
    """metrics.json with everything, and metrics.csv with a line for each step."""
    with replacing(config.out / "metrics.json") as path:
        path.write_text(json.dumps(_finite(metrics), indent=1, allow_nan=False) + "\n")
    curves, mmd2 = metrics["history"], dict(metrics["mmd2_history"])
    with replacing(config.out / "metrics.csv") as path, path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["step", *curves, "mmd2"])
        lines.writerow([0, *[""] * len(curves), mmd2[0]])
        for step, values in enumerate(zip(*curves.values(), strict=True), start=1):
            lines.writerow([step, *values, mmd2.get(step, "")])


def _finite(value: Any) -> Any:
    """JSON has no NaN, which is what a diverged generator comes to."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def backend(config: Config) -> str:
    """What really serves the run, in words."""
    info = wk.build_info()
    if config.backend in ("reference", "triton"):
        return config.backend
    if info["native"]:
        return f"native, {info['cpu_instruction_set']}"
    return f"reference, because the compiled library is not available: {info['reason']}"


def summary(training: Training, metrics: dict[str, Any]) -> str:
    """What the run came to, for people."""
    config, data, mmd2, seconds = training.config, training.data, metrics["mmd2"], metrics["seconds"]
    rate = metrics["steps"] / seconds if seconds else 0.0
    lines = [
        f"{config.objective} ({config.architecture}) on {config.data}: {len(data.train)} samples to learn from, "
        f"{len(data.held_out)} held out; {metrics['outcome']}",
        f"  back end      {metrics['backend']}",
        f"  training      {metrics['steps']} of {config.steps} steps in {seconds:.1f} s: {rate:.1f} steps/s with checks "
        "and evaluations",
        f"  MMD\N{SUPERSCRIPT TWO} to held-out samples, unbiased, RBF of bandwidth {metrics['bandwidth']:.2f} "
        "(about 0 for equal distributions)",
        *[f"    {label:<20} {mmd2[name]: .5f}" for name, label in MMD2_LABELS.items()],
    ]
    if modes := metrics["modes"]:
        near = f"{modes['near']:.1%} of the samples within 4 \N{GREEK SMALL LETTER SIGMA} of one"
        lines.append(f"  modes         {modes['found']} of {modes['modes']}; {near}")
    lines += [*_verification(training, metrics), *_comparison(metrics["comparison"])]
    files = ", ".join(sorted(each.name for each in config.out.iterdir()))
    return "\n".join([*lines, f"  files         {config.out}/: {files}"])


MMD2_LABELS = {"generated": "generated samples", "train": "training samples", "gaussian": "Gaussian fitted",
               "untrained": "untrained generator"}  # fmt: skip


def _verification(training: Training, metrics: dict[str, Any]) -> list[str]:
    checks, worst = metrics["verification"]["checks"], metrics["verification"]["worst"]
    if not training.config.verify:
        return ["  verification  off"]
    if metrics["outcome"] == "verification failed":
        return [f"  verification  FAILED, as reported below; {checks} checked updates before it agreed"]
    limit = f"tolerance {float32_tolerance(training.objective.batch_size):.0e}"
    return [
        f"  verification  {checks} checked updates agree with plain PyTorch in float64: largest relative error "
        f"{worst['loss']:.0e} (loss),",
        f"    {worst['gradient']:.0e} (gradients), {worst['weights']:.0e} (weights after a step), tolerance "
        f"{TOLERANCE:.0e}; of the loss trained on",
        f"    {worst['float32_loss']:.0e} at most, {'not held to anything with --amp' if training.config.amp else limit}",
    ]


def _comparison(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["  speed         not compared"]
    low, high = found["speedup_range"]
    return [
        f"  speed         same seed, same steps, in turns: {found['rounds']} rounds of {found['steps_per_round']} steps "
        "each, no checks or evaluations",
        *[f"    {name:<15} {found['rates'][name]:8.1f} steps/s, {found['bytes'][name] / 2**20:.1f} MiB a step"
          for name in found["rates"]],
        f"    ratio {found['speedup']:.2f} ({low:.2f} to {high:.2f} by round)",
        f"  loss curves   {'the same' if found['same_curve'] else 'DIFFERENT'} over {found['curve_steps']} steps: "
        f"largest relative difference {found['curve_difference']:.0e} in float64, tolerance {CURVE_TOLERANCE:.0e}",
    ]  # fmt: skip
