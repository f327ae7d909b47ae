"""The pictures of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from .checkpoint import replacing
from .data import Data
from .loop import Training

GRID = 10  # images per side
GAP = 1  # pixels between images
SMOOTHING = 50  # steps in a running mean
POINTS = 1000
RESOLUTION = 128  # of the critic's surface


def save_pictures(folder: Path, training: Training, record: Any, judge: Any) -> None:
    """record and judge are those of the run: a run.Record and an evaluation.Judge."""
    for name in ("surface.png", "comparison.png"):
        (folder / name).unlink(missing_ok=True)  # of an earlier run
    _save(folder / "samples.png", (12, 6.3), lambda figure: _samples(figure, training))
    _save(folder / "curves.png", (12, 8), lambda figure: _curves(figure, record, judge.baselines))
    _save(folder / "weights.png", (12, 8), lambda figure: _weights(figure, training.networks))
    if training.data.shape == (2,) and "critic" in training.networks and training.objective.critic_outputs == 1:
        _save(folder / "surface.png", (7, 6), lambda figure: _surface(figure.subplots(), training))


def save_comparison(path: Path, found: dict[str, Any]) -> None:
    """Both runs' losses in one plot, by what each took."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), style in zip(found["curves"].items(), ("-", "--"), strict=True):
            label = f"{name}: {found['rates'][name]:.1f} steps/s, {found['bytes'][name] / 2**20:.1f} MiB a step"
            axes.plot(range(1, len(values) + 1), values, style, label=label)
        axes.set(title="loss of the first update, same seed, float32", xlabel="steps")
        axes.legend(frameon=False)

    _save(path, (9, 5), draw)


def _save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _samples(figure: Figure, training: Training) -> None:
    """Generated samples beside held-out ones."""
    data = training.data
    panels = {"generated": training.evaluation_samples(), "held out": data.held_out}
    for axes, (title, samples) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.set_title(title)
        if data.is_image:
            axes.imshow(sample_grid(samples, data.shape).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
        else:
            axes.scatter(*samples[:POINTS, :2].T.numpy(), s=4, alpha=0.5)
            _frame(axes, data)


def sample_grid(samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first GRID * GRID images as one (height, width) of numbers in [0, 1], of colours their mean."""
    grey = (samples[: GRID * GRID].unflatten(1, shape).mean(1) + 1) / 2
    images = nn.functional.pad(grey, (0, GAP, 0, GAP), value=0.3)
    blank = images.new_full((GRID * GRID - len(images), *images.shape[1:]), 0.3)
    rows = torch.cat([images, blank]).unflatten(0, (GRID, GRID))
    return rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1).clamp(0, 1)


def _frame(axes: Axes, data: Data) -> list[np.ndarray]:
    """As much of the plane as the data covers, and a half more: lines across and up."""
    low, high = data.held_out[:, :2].amin(0), data.held_out[:, :2].amax(0)
    margin = (high - low).clamp(min=1) / 4
    across, up = np.linspace((low - margin).numpy(), (high + margin).numpy(), RESOLUTION).T
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]))
    return [across, up]


@torch.no_grad()
def _surface(axes: Axes, training: Training) -> None:
    """The critic's values around the data, which are the dots."""
    across, up = np.meshgrid(*_frame(axes, training.data))
    points = torch.from_numpy(np.stack([across.ravel(), up.ravel()], 1)).to(training.device, training.dtype)
    values = training.networks.critic(points).reshape(across.shape).float().cpu().numpy()
    axes.figure.colorbar(axes.contourf(across, up, values, levels=24), ax=axes)
    axes.scatter(*training.data.held_out[:POINTS].T.numpy(), s=2, color="black", alpha=0.4)
    axes.set_title("value of the critic")


def _weights(figure: Figure, networks: nn.ModuleDict) -> None:
    """Above, the norm of the last gradient by layer; below, the histogram of all weights."""
    panels = figure.subplots(2, len(networks), squeeze=False)
    for (name, network), above, below in zip(networks.items(), *panels, strict=True):
        layers = [param for param in network.parameters() if param.dim() > 1]
        norms = [math.nan if param.grad is None else param.grad.norm().item() for param in layers]
        above.plot(range(1, len(norms) + 1), norms, marker="o")
        scale = "log" if any(norm > 0 for norm in norms) else "linear"
        above.set(title=f"{name}: norm of the last gradient", xlabel="layer", yscale=scale)
        weights = torch.cat([param.detach().flatten() for param in layers]).float().cpu()
        below.hist(weights[weights.isfinite()].numpy(), bins=100, log=True)
        below.set_title(f"{name}: weights")


def _curves(figure: Figure, record: Any, baselines: dict[str, float]) -> None:
    """All that a step reports, faintly and as a running mean, and MMD^2."""
    panels = figure.subplots(-(-(len(record.history) + 1) // 3), 3, squeeze=False).flatten()
    for axes, (name, values) in zip(panels[1:], record.history.items()):
        axes.plot(np.arange(1, len(values) + 1), values, alpha=0.25, linewidth=0.8, color="C0")
        if len(values) >= SMOOTHING:
            mean = np.convolve(values, np.full(SMOOTHING, 1 / SMOOTHING), mode="valid")
            axes.plot(np.arange(SMOOTHING, len(values) + 1), mean, color="C0")
        axes.set(title=name.replace("_", " "), xlabel="steps")
    panels[0].plot(list(record.mmd2), list(record.mmd2.values()), marker=".", label="generated")
    for style, (name, value) in zip(("--", ":"), baselines.items(), strict=True):
        panels[0].axhline(value, color="black", linewidth=1, linestyle=style, label=name)
    panels[0].set_yscale("symlog", linthresh=1e-3)  # unbiased estimates go below 0, where a logarithmic axis ends
    panels[0].set(title="MMD\N{SUPERSCRIPT TWO} to held-out samples", xlabel="steps")
    panels[0].legend(frameon=False)
    for axes in panels[len(record.history) + 1 :]:
        axes.set_axis_off()
