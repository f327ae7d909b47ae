"""What a run leaves behind, and its summary for people."""

from __future__ import annotations

import csv
import json
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
    config, samples = training.config, training.evaluation_samples()
    checks = {"checks": verifier.checks, "tolerance": TOLERANCE, "largest_errors": verifier.worst._asdict()}
    return {
        "run": f"{config.objective} ({config.architecture}) on {config.data}",
        "config": config.plain(),
        "versions": {"wgan_kernels": wk.__version__, "torch": str(torch.__version__)},
        "backend": backend(config),
        "outcome": record.outcome,
        "explanation": record.explanation,
        "steps": training.step_count,
        "seconds": record.seconds,
        "steps_per_second": training.step_count / record.seconds if record.seconds else 0.0,
        "bandwidth": judge.bandwidth,
        "mmd2": {"generated": judge.mmd2(samples), **judge.baselines, "untrained": record.mmd2[0]},
        "modes": judge.modes(samples),
        "verification": checks,
        "comparison": None,
        "history": record.history,
        "mmd2_history": [list(each) for each in record.mmd2.items()],
    }


def save_metrics(config: Config, metrics: dict[str, Any]) -> None:
    """metrics.json with everything, and metrics.csv with a line for each step."""
    finite = json.loads(json.dumps(metrics), parse_constant=lambda name: None)  # JSON has no NaN
    with replacing(config.out / "metrics.json") as path:
        path.write_text(json.dumps(finite, indent=1, allow_nan=False) + "\n")
    curves, mmd2 = metrics["history"], dict(metrics["mmd2_history"])
    with replacing(config.out / "metrics.csv") as path, path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["step", *curves, "mmd2"])
        lines.writerow([0, *[""] * len(curves), mmd2[0]])
        lines.writerows([step, *values, mmd2.get(step, "")] for step, values in enumerate(zip(*curves.values()), 1))


def backend(config: Config) -> str:
    """What really serves the run, in words."""
    info = wk.build_info()
    if config.backend in ("reference", "triton"):
        return config.backend
    if info["native"]:
        return f"native, {info['cpu_instruction_set']}"
    return f"reference, because the compiled library is not available: {info['reason']}"


def summary(metrics: dict[str, Any]) -> str:
    """What the run came to, for people: without curves, and with four digits."""
    shown = {name: value for name, value in metrics.items() if value and name not in ("config", "history", "mmd2_history")}
    if metrics["comparison"]:
        shown["comparison"] = {name: value for name, value in metrics["comparison"].items() if name != "curves"}
    rounded = json.loads(json.dumps(shown), parse_float=lambda digits: float(f"{float(digits):.4g}"))
    return yaml.safe_dump(rounded, sort_keys=False).strip()
