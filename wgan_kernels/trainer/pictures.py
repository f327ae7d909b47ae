"""The pictures of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from .checkpoint import replacing
from .data import Data
from .evaluation import Judge
from .loop import Training
from .record import Record

GRID = 10  # images per side
GAP = 1  # pixels between images
SMOOTHING = 50  # steps in a running mean
POINTS = 1000
RESOLUTION = 128  # of the critic's surface


def save_pictures(folder: Path, training: Training, record: Record, judge: Judge) -> None:
    _save(folder / "samples.png", (12, 6.3), lambda figure: _samples(figure, training))
    _save(folder / "curves.png", (12, 8), lambda figure: _curves(figure, record, judge))
    _save(folder / "weights.png", (12, 8), lambda figure: _weights(figure, training.networks))
    if training.data.shape == (2,) and "critic" in training.networks and training.objective.critic_outputs == 1:
        _save(folder / "surface.png", (7, 6), lambda figure: _surface(figure, training))
    else:
        (folder / "surface.png").unlink(missing_ok=True)  # of an earlier run


def save_comparison(path: Path, curves: dict[str, list[float]], figures: dict[str, str]) -> None:
    """Both runs' losses in one plot, by what each took."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, values), style in zip(curves.items(), ("-", "--"), strict=True):
            axes.plot(range(1, len(values) + 1), values, style, label=f"{name}: {figures[name]}")
        axes.set_xlabel("steps")
        axes.set_title("loss of the first update, same seed, float32")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)

    _save(path, (9, 5), draw)


def _save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _samples(figure: Figure, training: Training) -> None:
    """Generated samples beside held-out ones."""
    data: Data = training.data
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
    images = (samples[: GRID * GRID].unflatten(1, shape).mean(1) + 1) / 2
    height, width = (side + GAP for side in shape[1:])
    ground = torch.full((GRID * height + GAP, GRID * width + GAP), 0.3)  # a grey that shows where each of them ends
    for index, image in enumerate(images):
        top, left = index // GRID * height + GAP, index % GRID * width + GAP
        ground[top : top + shape[1], left : left + shape[2]] = image
    return ground.clamp(0, 1)


def _frame(axes: Axes, data: Data) -> tuple[Tensor, Tensor]:
    """As much of the plane as the data covers, and a half more."""
    low, high = data.held_out[:, :2].amin(0), data.held_out[:, :2].amax(0)
    margin = (high - low).clamp(min=1) / 4
    low, high = low - margin, high + margin
    axes.set_xlim(low[0].item(), high[0].item())
    axes.set_ylim(low[1].item(), high[1].item())
    return low, high


@torch.no_grad()
def _surface(figure: Figure, training: Training) -> None:
    """The critic's values around the data, which are the dots."""
    axes = figure.subplots()
    low, high = _frame(axes, training.data)
    lines = [torch.linspace(float(a), float(b), RESOLUTION) for a, b in zip(low, high, strict=True)]
    across, up = torch.meshgrid(*lines, indexing="xy")
    points = torch.stack([across.flatten(), up.flatten()], 1).to(training.device, training.dtype)
    values = training.networks.critic(points).reshape(across.shape).float().cpu()
    figure.colorbar(axes.contourf(*[each.numpy() for each in (across, up, values)], levels=24), ax=axes)
    axes.scatter(*training.data.held_out[:POINTS].T.numpy(), s=2, color="black", alpha=0.4)
    axes.set_title("value of the critic")


def _weights(figure: Figure, networks: nn.ModuleDict) -> None:
    """Above, the norm of the last gradient by layer; below, the histogram of all weights."""
    panels = figure.subplots(2, len(networks), squeeze=False)
    for (name, network), above, below in zip(networks.items(), *panels, strict=True):
        layers = [param for param in network.parameters() if param.dim() > 1]
        norms = [math.nan if param.grad is None else param.grad.norm().item() for param in layers]
        above.plot(range(1, len(norms) + 1), norms, marker="o")
        if any(norm > 0 for norm in norms):
            above.set_yscale("log")
        above.set(title=f"{name}: norm of the last gradient", xlabel="layer")
        weights = torch.cat([param.detach().flatten() for param in layers]).float().cpu()
        below.hist(weights[weights.isfinite()].numpy(), bins=100, log=True)
        below.set(title=f"{name}: weights")


def _curves(figure: Figure, record: Record, judge: Judge) -> None:
    """All that a step reports, and MMD^2."""
    number = len(record.history) + 1
    panels = figure.subplots(-(-number // 3), 3, squeeze=False).flatten()
    for axes, (name, values) in zip(panels, record.history.items()):
        _curve(axes, np.array(values))
        axes.set_title(name.replace("_", " "))
    axes = panels[number - 1]
    axes.plot(list(record.mmd2), list(record.mmd2.values()), marker=".", label="generated")
    axes.axhline(judge.train_mmd2, color="black", linewidth=1, linestyle="--", label="training samples")
    axes.axhline(judge.gaussian_mmd2, color="C1", linewidth=1, linestyle=":", label="Gaussian fitted to them")
    axes.set_yscale("symlog", linthresh=1e-3)  # unbiased estimates go below 0, where a logarithmic axis ends
    axes.set_title("MMD\N{SUPERSCRIPT TWO} to held-out samples")
    axes.legend(frameon=False)
    for axes in panels[:number]:
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    for axes in panels[number:]:
        axes.set_axis_off()


def _curve(axes: Axes, values: np.ndarray) -> None:
    """Every step faintly, and their running mean."""
    axes.plot(np.arange(1, len(values) + 1), values, alpha=0.25, linewidth=0.8, color="C0")
    if len(values) >= SMOOTHING:
        mean = np.convolve(values, np.full(SMOOTHING, 1 / SMOOTHING), mode="valid")
        axes.plot(np.arange(SMOOTHING, len(values) + 1), mean, color="C0")
