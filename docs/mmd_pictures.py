"""Draws the pictures of docs/mmd.md into docs/images: python docs/mmd_pictures.py, with matplotlib, in a minute or two.

Everything but the times, which docs/mmd_scaling.py measured, is computed here, from fixed seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

import wgan_kernels as wk
from wgan_kernels import kernels

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

HERE = Path(__file__).parent
LEVEL, TRIALS, PERMUTATIONS = 0.05, 100, 199
Sampler = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def normal_and_laplace(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two independent features of mean 0 and variance 1: normal ones, and Laplace distributed ones."""
    x, uniform = torch.randn(n, 2, generator=generator), torch.rand(n, 2, generator=generator) - 0.5
    return x, -uniform.sign() * torch.log1p(-2 * uniform.abs()) / 2**0.5


def blobs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Nine blobs in the plane, far apart; those of y are longer in one direction."""
    centres = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)) * 5
    x, y = (
        centres[torch.randint(9, (n,), generator=generator)] + 0.5 * torch.randn(n, 2, generator=generator)
        for _ in range(2)
    )
    return x, y + 0.6 * torch.randn(n, 1, generator=generator)


def ring_and_blob(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    angle = 6.2832 * torch.rand(n, generator=generator)
    ring = 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.2 * torch.randn(n, 2, generator=generator)
    return ring, torch.randn(n, 2, generator=generator) + torch.tensor([0.6, 0.0])


def power(sampler: Sampler, n: int, kernels_of: Callable[[float], Sequence[wk.kernels.Kernel]]) -> list[float]:
    """The share of trials in which the test with each of some kernels rejects, and the aggregated one of them all."""
    generator, rejected = torch.Generator().manual_seed(n), []
    for _ in range(TRIALS):
        x, y = sampler(n, generator)
        some = kernels_of(wk.median_bandwidth(x, y))
        test = wk.mmd_aggregated_test(x, y, some, permutations=PERMUTATIONS, generator=generator)
        rejected.append(torch.cat([test.p_values, test.p_value[None]]) <= LEVEL)
    return torch.stack(rejected).double().mean(0).tolist()


def draw_sample_size(axes: plt.Axes) -> None:
    sizes = (25, 50, 100, 200, 400, 800)
    makers: dict[str, Callable[[float], wk.kernels.Kernel]] = {
        "RBF": kernels.RBF,
        "RBF, median / 4": lambda median: kernels.RBF(median / 4),
        "Laplacian": kernels.Laplacian,
        "InverseMultiquadric": lambda median: kernels.InverseMultiquadric(median**2),
        "Energy": lambda median: kernels.Energy(),
        "Polynomial, degree 3": lambda median: kernels.Polynomial(),
        "Linear": lambda median: kernels.Linear(),
    }
    curves = zip(
        *(power(normal_and_laplace, n, lambda median: [make(median) for make in makers.values()]) for n in sizes)
    )
    for name, curve, marker in zip([*makers, "aggregated over all"], curves, "osP^Dvx*"):
        axes.plot(sizes, curve, marker=marker, markersize=4, label=name, color="black" if marker == "*" else None)
    axes.set(xscale="log", xlabel="points in each sample", title="normal against Laplace, 2 features", xticks=sizes)
    axes.set_xticklabels([str(n) for n in sizes])
    axes.minorticks_off()


def draw_bandwidth(axes: plt.Axes) -> None:
    n, factors = 300, [2.0**k for k in range(-7, 3)]
    *single, aggregated = power(blobs, n, lambda median: [kernels.RBF(factor * median) for factor in factors])
    axes.plot(factors, single, marker="o", markersize=4, label="RBF of one bandwidth")
    axes.axhline(aggregated, color="black", label="aggregated over all of these")
    axes.axvline(1, color="grey", linestyle=":", label="the median distance")
    axes.set(xscale="log", xlabel="bandwidth / median distance", title=f"nine blobs in the plane, {n} points each")


def draw_power() -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained", sharey=True)
    draw_sample_size(left)
    draw_bandwidth(right)
    for axes in (left, right):
        axes.axhline(LEVEL, color="grey", linewidth=0.8, linestyle="--")
        axes.set_ylim(-0.03, 1.03)
        axes.legend(fontsize=8)
    left.set_ylabel(f"power at level {LEVEL}")
    return figure


def draw_witness() -> plt.Figure:
    x, y = ring_and_blob(300, torch.Generator().manual_seed(0))
    axis = torch.linspace(-4, 4, 200)
    grid = torch.cartesian_prod(axis, axis)
    median = wk.median_bandwidth(x, y)
    levels = torch.linspace(-0.25, 0.25, 26).tolist()  # the one around 0 is white
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.5), layout="constrained", sharey=True)
    for axes, factor, what in zip(panels, (1.0, 0.25), ("the median distance", "a quarter of it")):
        values = wk.witness(grid, x, y, kernels.RBF(factor * median)).reshape(200, 200).T
        image = axes.contourf(axis, axis, values, levels=levels, cmap="RdBu_r", extend="both")
        axes.scatter(*x.T, s=5, color="darkred", label="x, a ring")
        axes.scatter(*y.T, s=5, color="navy", label="y, a blob")
        axes.set(title=f"bandwidth {factor * median:.2f}: {what}", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
    figure.colorbar(image, ax=panels, shrink=0.8, ticks=[-0.2, -0.1, 0, 0.1, 0.2], label="mean k(z, x) - mean k(z, y)")
    panels[0].legend(loc="upper left", fontsize=8)
    return figure


def draw_scaling() -> plt.Figure:
    kept = json.loads((HERE / "mmd_scaling.json").read_text())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
    for name, marker in (("wgan_kernels", "o"), ("eager PyTorch", "s"), ("KeOps", "^")):
        rows = [row for row in kept["rows"] if row["name"] == name]
        if rows:
            sizes = [row["n"] for row in rows]
            left.plot(sizes, [row["seconds"] for row in rows], marker=marker, markersize=4, label=name)
            held = [row for row in rows if row["bytes"] is not None]
            memory = [max(row["bytes"] / 1e6, 0.1) for row in held]
            right.plot([row["n"] for row in held], memory, marker=marker, markersize=4, label=name)
    for axes, what in ((left, "seconds"), (right, "memory beyond the samples, MB")):
        axes.set(xscale="log", yscale="log", xlabel="points in each sample", ylabel=what)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    machine = kept["machine"]
    conditions = (
        f"{machine['cpu']}, threads: {machine['threads']}, torch {machine['torch']}, {machine['date']}, "
        f"load before the run {machine['load']}"
    )
    figure.suptitle(f"mmd2 with RBF and its gradient, {kept['features']} features\n{conditions}", fontsize=9)
    return figure


def main() -> None:
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    for name, draw in (("power", draw_power), ("witness", draw_witness), ("scaling", draw_scaling)):
        figure = draw()
        # No version of matplotlib inside, so that the same picture is the same file.
        figure.savefig(folder / f"mmd_{name}.png", dpi=100, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
