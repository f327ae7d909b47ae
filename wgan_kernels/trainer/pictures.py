"""The pictures of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d
from torch import Tensor, nn

from .checkpoint import replacing
from .data import Data
from .loop import Training
from .objectives.base import Adversarial

GAP = 1  # pixels between images


def save_pictures(training: Training, metrics: dict[str, Any]) -> None:
    folder, objective = training.config.out, training.objective
    for name in ("surface.png", "comparison.png"):
        (folder / name).unlink(missing_ok=True)  # of an earlier run
    save(folder / "samples.png", (12, 6.3), draw_samples, training)
    save(folder / "curves.png", (12, 8), draw_curves, metrics)
    save(folder / "weights.png", (12, 8), draw_weights, training.networks)
    if training.data.shape == (2,) and isinstance(objective, Adversarial) and objective.critic_outputs == 1:
        save(folder / "surface.png", (7, 6), draw_surface, training)


def save(path: Path, size: tuple[float, float], draw: Callable[[Figure, Any], None], what: Any) -> None:
    figure = Figure(figsize=size, layout="constrained")
    draw(figure, what)
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
            scatter(axes, samples, data)


def sample_grid(samples: Tensor, shape: tuple[int, ...], side: int = 10) -> Tensor:
    """The first side * side images as one (height, width) in [0, 1], of colours their mean, with lines between them."""
    grey = (samples[: side**2].unflatten(1, shape).mean(1) + 1) / 2
    images = nn.functional.pad(grey, (0, GAP, 0, GAP, 0, side**2 - len(grey)), value=0.3)
    return images.unflatten(0, (side, side)).transpose(1, 2).flatten(2).flatten(0, 1).clamp(0, 1)


def scatter(axes: Axes, samples: Tensor, data: Data, **style: Any) -> None:
    """The first ones, on as much of the plane as the data covers, and a half more."""
    axes.scatter(*samples[:1000, :2].T.numpy(), **{"s": 4, "alpha": 0.5, **style})
    low, high = data.held_out[:, :2].aminmax(dim=0)
    margin = (high - low).clamp(min=1) / 4
    axes.axis(torch.stack([low - margin, high + margin], 1).flatten().tolist())


@torch.no_grad()
def draw_surface(figure: Figure, training: Training, resolution: int = 128) -> None:
    """The critic's values around the data, which are the dots."""
    axes = figure.subplots()
    scatter(axes, training.data.held_out, training.data, s=2, color="black", zorder=2)
    across, up = (torch.linspace(*limits, resolution) for limits in (axes.get_xlim(), axes.get_ylim()))
    points = torch.cartesian_prod(across, up).to(training.device, training.dtype)
    values = training.networks.critic(points).float().cpu().view(resolution, resolution)
    figure.colorbar(axes.contourf(across.numpy(), up.numpy(), values.T.numpy(), levels=24), ax=axes)
    axes.set_title("value of the critic")


def draw_weights(figure: Figure, networks: nn.ModuleDict) -> None:
    """Above, the norm of the last gradient by layer; below, the histogram of all weights."""
    panels = figure.subplots(2, len(networks), squeeze=False)
    for (name, network), above, below in zip(networks.items(), *panels, strict=True):
        layers = [param for param in network.parameters() if param.dim() > 1]
        norms = [math.nan if param.grad is None else param.grad.norm().item() for param in layers]
        plot = above.semilogy if any(norm > 0 for norm in norms) else above.plot
        plot(range(1, len(norms) + 1), norms, marker="o")
        above.set(title=f"{name}: norm of the last gradient", xlabel="layer")
        weights = nn.utils.parameters_to_vector(layers).detach().float().cpu()
        below.hist(weights[weights.isfinite()].numpy(), bins=100)
        below.set(title=f"{name}: weights", yscale="symlog")  # a run that diverged has none, nor a logarithm of it


def draw_curves(figure: Figure, metrics: dict[str, Any]) -> None:
    """All that a step reports, faintly and as a running mean, and MMD^2."""
    history, mmd2 = metrics["history"], metrics["mmd2"]
    first, *panels = figure.subplots(math.ceil((len(history) + 1) / 3), 3, squeeze=False).flatten()
    first.plot(*zip(*metrics["mmd2_history"]), marker=".", label="generated")
    for name, style in (("train", "--"), ("gaussian", ":")):
        first.axhline(mmd2[name], color="black", linewidth=1, linestyle=style, label=name)
    first.set_yscale("symlog", linthresh=1e-3)  # unbiased estimates go below 0, where a logarithmic axis ends
    first.set_title("MMD\N{SUPERSCRIPT TWO} to held-out samples")
    first.legend(frameon=False)
    for axes, (name, values) in zip(panels, history.items()):
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, alpha=0.25, linewidth=0.8)
        axes.plot(steps, uniform_filter1d(values, size=50, output=float), color="C0")
        axes.set_title(name.replace("_", " "))
    for axes in panels[len(history) :]:
        axes.remove()
    figure.supxlabel("steps")


def draw_comparison(figure: Figure, found: dict[str, Any]) -> None:
    """Both runs' losses in one plot, by what each took."""
    axes = figure.subplots()
    for (name, values), style in zip(found["curves"].items(), ("-", "--"), strict=True):
        label = f"{name}: {found['rates'][name]:.1f} steps/s, {found['bytes'][name] / 2**20:.1f} MiB a step"
        axes.plot(range(1, len(values) + 1), values, style, label=label)
    axes.set(title="loss of the first update, same seed, float32", xlabel="steps")
    axes.legend(frameon=False)
