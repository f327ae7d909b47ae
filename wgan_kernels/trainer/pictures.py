"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .data import Data
from .evaluation import Judge
from .loop import Record

GRID = 10  # images per side
GAP = 1  # pixels between images
SMOOTHING = 50  # steps in a running mean


def draw_samples(path: Path, generated: Tensor, data: Data) -> None:
    """Generated images beside held-out ones; generated is (B, P) with pixels in [-1, 1]."""
    figure = Figure(figsize=(12, 6.3), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, title, images in zip(panels, ("generated", "held-out digits"), (generated, data.held_out), strict=True):
        axes.imshow(_grid(images, data.shape), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(path, format="png", dpi=100)


def _grid(images: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """The first GRID * GRID images as one, on a grey ground that shows where each of them ends."""
    height, width = (side + GAP for side in shape)
    ground = torch.full((GRID * height + GAP, GRID * width + GAP), -0.4)
    for index, image in enumerate(images[: GRID * GRID]):
        top, left = index // GRID * height + GAP, index % GRID * width + GAP
        ground[top : top + shape[0], left : left + shape[1]] = image.reshape(shape)
    return ground.numpy()


def draw_curves(path: Path, record: Record, judge: Judge) -> None:
    """Wasserstein estimate, penalty, gradient norm and MMD^2 over the steps."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    _curve(top_left, record, "wasserstein", "Wasserstein estimate (critic loss = penalty \N{MINUS SIGN} this)")
    _curve(top_right, record, "penalty", "gradient penalty")
    top_right.set_yscale("log")
    _curve(bottom_left, record, "gradient_norm", "mean gradient norm at mixed samples")
    bottom_left.axhline(1, color="black", linewidth=1, linestyle="--", label="target")
    bottom_left.legend(frameon=False)
    bottom_right.plot(list(record.mmd2), list(record.mmd2.values()), marker=".", label="generated")
    bottom_right.axhline(judge.train_mmd2, color="black", linewidth=1, linestyle="--", label="training digits")
    # Unbiased estimates go below 0, where a logarithmic axis ends.
    bottom_right.set_yscale("symlog", linthresh=1e-3)
    bottom_right.set_ylim(top=1)
    bottom_right.set_title("MMD\N{SUPERSCRIPT TWO} to held-out digits")
    bottom_right.legend(frameon=False)
    for axes in figure.axes:
        axes.set_xlabel("generator steps")
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=100)


def _curve(axes: Axes, record: Record, name: str, title: str) -> None:
    """Every step faintly, and their running mean."""
    values = np.array(record.history.get(name, []))
    axes.set_title(title)
    axes.plot(np.arange(1, len(values) + 1), values, alpha=0.25, linewidth=0.8, color="C0")
    if len(values) >= SMOOTHING:
        mean = np.convolve(values, np.full(SMOOTHING, 1 / SMOOTHING), mode="valid")
        axes.plot(np.arange(SMOOTHING, len(values) + 1), mean, color="C0")
