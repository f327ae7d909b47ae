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
from scipy.ndimage import uniform_filter1d
from torch import Tensor, nn

from .checkpoint import replacing
from .data import Data
from .evaluation import Judge
from .loop import Training
from .run import Record

GRID = 10  # images per side
GAP = 1  # pixels between images
SMOOTHING = 50  # steps in a running mean
POINTS = 1000
RESOLUTION = 128  # of the critic's surface


def save_pictures(folder: Path, training: Training, record: Record, judge: Judge) -> None:
    for name in ("surface.png", "comparison.png"):
        (folder / name).unlink(missing_ok=True)  # of an earlier run
    save(folder / "samples.png", (12, 6.3), draw_samples, training)
    save(folder / "curves.png", (12, 8), draw_curves, record, judge.baselines)
    save(folder / "weights.png", (12, 8), draw_weights, training.networks)
    if training.data.shape == (2,) and "critic" in training.networks and training.objective.critic_outputs == 1:
        save(folder / "surface.png", (7, 6), draw_surface, training)


def save(path: Path, size: tuple[float, float], draw: Callable[..., None], *of: Any) -> None:
    figure = Figure(figsize=size, layout="constrained")
    draw(figure, *of)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def draw_samples(figure: Figure, training: Training) -> None:
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
            frame(axes, data)


def sample_grid(samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first GRID * GRID images as one (height, width) of numbers in [0, 1], of colours their mean."""
    grey = (samples[: GRID * GRID].unflatten(1, shape).mean(1) + 1) / 2
    images = nn.functional.pad(grey, (0, GAP, 0, GAP, 0, GRID * GRID - len(grey)), value=0.3)
    return images.unflatten(0, (GRID, GRID)).transpose(1, 2).flatten(2).flatten(0, 1).clamp(0, 1)


def frame(axes: Axes, data: Data) -> np.ndarray:
    """As much of the plane as the data covers, and a half more: lines across and up, (2, RESOLUTION)."""
    low, high = (each.numpy() for each in data.held_out[:, :2].aminmax(dim=0))
    margin = np.maximum(high - low, 1) / 4
    lines = np.linspace(low - margin, high + margin, RESOLUTION, axis=1)
    axes.set(xlim=lines[0, [0, -1]], ylim=lines[1, [0, -1]])
    return lines


@torch.no_grad()
def draw_surface(figure: Figure, training: Training) -> None:
    """The critic's values around the data, which are the dots."""
    axes = figure.subplots()
    across, up = np.meshgrid(*frame(axes, training.data))
    points = torch.tensor(np.stack([across.ravel(), up.ravel()], 1), device=training.device, dtype=training.dtype)
    values = training.networks.critic(points).reshape(across.shape).float().cpu().numpy()
    figure.colorbar(axes.contourf(across, up, values, levels=24), ax=axes)
    axes.scatter(*training.data.held_out[:POINTS].T.numpy(), s=2, color="black", alpha=0.4)
    axes.set_title("value of the critic")


def draw_weights(figure: Figure, networks: nn.ModuleDict) -> None:
    """Above, the norm of the last gradient by layer; below, the histogram of all weights."""
    panels = figure.subplots(2, len(networks), squeeze=False)
    for (name, network), above, below in zip(networks.items(), *panels, strict=True):
        layers = [param for param in network.parameters() if param.dim() > 1]
        norms = [math.nan if param.grad is None else param.grad.norm().item() for param in layers]
        above.plot(range(1, len(norms) + 1), norms, marker="o")
        scale = "log" if any(norm > 0 for norm in norms) else "linear"
        above.set(title=f"{name}: norm of the last gradient", xlabel="layer", yscale=scale)
        weights = nn.utils.parameters_to_vector(layers).detach().float().cpu()
        below.hist(weights[weights.isfinite()].numpy(), bins=100)
        below.set(title=f"{name}: weights", yscale="symlog")  # a run that diverged has none, nor a logarithm of it


def draw_curves(figure: Figure, record: Record, baselines: dict[str, float]) -> None:
    """All that a step reports, faintly and as a running mean, and MMD^2."""
    first, *panels = figure.subplots(math.ceil((len(record.history) + 1) / 3), 3, squeeze=False).flatten()
    first.plot(list(record.mmd2), list(record.mmd2.values()), marker=".", label="generated")
    for style, (name, value) in zip(("--", ":"), baselines.items(), strict=True):
        first.axhline(value, color="black", linewidth=1, linestyle=style, label=name)
    first.set_yscale("symlog", linthresh=1e-3)  # unbiased estimates go below 0, where a logarithmic axis ends
    first.set(title="MMD\N{SUPERSCRIPT TWO} to held-out samples", xlabel="steps")
    first.legend(frameon=False)
    for axes, (name, values) in zip(panels, record.history.items()):
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, alpha=0.25, linewidth=0.8, color="C0")
        axes.plot(steps, uniform_filter1d(values, SMOOTHING, output=float), color="C0")
        axes.set(title=name.replace("_", " "), xlabel="steps")
    for axes in panels[len(record.history) :]:
        axes.set_axis_off()


def draw_comparison(figure: Figure, found: dict[str, Any]) -> None:
    """Both runs' losses in one plot, by what each took."""
    axes = figure.subplots()
    for (name, values), style in zip(found["curves"].items(), ("-", "--"), strict=True):
        label = f"{name}: {found['rates'][name]:.1f} steps/s, {found['bytes'][name] / 2**20:.1f} MiB a step"
        axes.plot(range(1, len(values) + 1), values, style, label=label)
    axes.set(title="loss of the first update, same seed, float32", xlabel="steps")
    axes.legend(frameon=False)
