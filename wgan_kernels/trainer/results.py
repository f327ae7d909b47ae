"""What a run leaves behind, and its summary for people."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from typing import Any

import torch
import yaml

import wgan_kernels as wk

from .checkpoint import replacing
from .config import Config
from .evaluation import Judge
from .loop import Training
from .run import Record
from .verification import TOLERANCE, Verifier


def metrics_of(training: Training, judge: Judge, verifier: Verifier, record: Record) -> dict[str, Any]:
    """All figures; `comparison` is for whoever makes one."""
    samples, seconds = training.evaluation_samples(), record.seconds
    return {
        "run": f"{training.config.objective} ({training.config.architecture}) on {training.config.data}",
        "config": training.config.plain(),
        "versions": {"wgan_kernels": wk.__version__, "torch": str(torch.__version__)},
        "backend": backend(training.config),
        "outcome": record.outcome,
        "explanation": record.explanation,
        "steps": training.step_count,
        "seconds": seconds,
        "steps_per_second": training.step_count / seconds if seconds else 0.0,
        "bandwidth": judge.bandwidth,
        "mmd2": {"generated": judge.mmd2(samples), **judge.baselines, "untrained": record.mmd2[0]},
        "modes": judge.modes(samples),
        "verification": {"checks": verifier.checks, "tolerance": TOLERANCE, "largest_errors": asdict(verifier.worst)},
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


def summary(metrics: dict[str, Any]) -> str:
    """What the run came to, for people."""
    shown = {name: value for name, value in metrics.items() if name not in ("config", "history", "mmd2_history")}
    return yaml.safe_dump(_rounded({name: value for name, value in shown.items() if value}), sort_keys=False).strip()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items() if name != "curves"}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
