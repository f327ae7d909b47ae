"""What an experiment is, and the one way in which its results are written: a picture and a JSON of all numbers."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import scipy
import torch
from matplotlib.figure import Figure
from torch import Tensor

import wgan_kernels as wk

from ..checkpoint import replacing


class Found(NamedTuple):
    """What came out."""

    numbers: dict[str, Any]  # numbers, strings, tensors and arrays, in dicts and lists
    draw: Callable[[Figure], None]
    size: tuple[float, float]  # of the picture, in inches


class Experiment(NamedTuple):
    """run is a pure function of the settings, a frozen dataclass whose defaults are the run that the guide tells of."""

    name: str
    question: str
    settings: type
    run: Callable[[Any], Found]


def perform(experiment: Experiment, settings: Any, out: Path) -> dict[str, Any]:
    """Runs it and writes NAME.png and NAME.json into the folder `out`; returns what the latter has.

    Raises:
        files.FileError: where one cannot be written.
    """
    start = time.perf_counter()
    found = experiment.run(settings)
    result = {
        "experiment": experiment.name,
        "question": experiment.question,
        "settings": asdict(settings),
        "numbers": found.numbers,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    figure = Figure(figsize=found.size, layout="constrained")
    found.draw(figure)
    with replacing(out / f"{experiment.name}.png") as path:
        # No version of matplotlib inside, so that the same picture is the same file.
        figure.savefig(path, format="png", dpi=90, metadata={"Software": None})
    result = plain(result)
    with replacing(out / f"{experiment.name}.json") as path:
        path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def versions() -> dict[str, str]:
    modules = {"torch": torch, "numpy": np, "scipy": scipy, "matplotlib": matplotlib, "wgan_kernels": wk}
    return {"python": platform.python_version(), **{name: str(each.__version__) for name, each in modules.items()}}


def plain(value: Any) -> Any:
    """What JSON takes: floats with 6 digits; infinity and NaN, for which it has no number, by name."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") + 0.0 if math.isfinite(value) else str(value)
    return value
