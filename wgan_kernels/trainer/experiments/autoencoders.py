"""WAE-MMD, WAE-GAN and a variational autoencoder, of the same encoder and decoder, on Fashion-MNIST.

Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4, there with CelebA.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

import wgan_kernels as wk

from ..config import Config
from ..data import Data, load
from ..loop import Training
from ..networks import Architecture, Sizes, dcgan_critic
from ..objectives.base import Batch, Terms, Update
from ..objectives.wae import WAE, WAEGAN, WAEMMD
from ..pictures import sample_grid
from .classifier import CLASSES, accuracy, frechet_distance, labels, train_classifier
from .experiment import Experiment, Found

LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class Settings:
    data: str = "fashion-mnist"  # or a folder of IDX files with labels, or digits
    steps: int = 1500
    width: int = 16
    mmd_weight: float = 100.0  # lambda of WAE-MMD, as the paper has it for CelebA
    judged: int = 5000  # samples of each kind
    subset_size: int = 1000  # of those, for KID
    classifier_steps: int = 1000
    features: int = 64
    seed: int = 0


class VAE(WAE):
    """The encoder gives means and logarithms of variances, the decoder the mean of p(x|z) = N(G(z), s^2).

    s^2, one number, is the likeliest for each batch, so that there is no weight to choose.
    Source: Kingma, Welling 2014, "Auto-Encoding Variational Bayes", section 3 and appendix B; Rybkin et al. 2021,
    "Simple and Effective VAE Training with Calibrated Decoders", section 3.2, for s^2.
    """

    name = "vae"
    penalty_weight = None

    def make_networks(self, architecture: Architecture, sizes: Sizes) -> nn.ModuleDict:
        encoder = architecture.make_critic(sizes, 2 * sizes.latent)
        return nn.ModuleDict({"encoder": encoder, "generator": architecture.make_generator(sizes)})

    def updates(self) -> list[Update]:
        return [Update("autoencoder", ("encoder", "generator"), ("real", "latent"), self.loss)]

    def loss(self, networks: nn.ModuleDict, batch: Batch) -> Terms:
        """KL(q(z|x) || p(z)) - log p(x|z), but for a constant; z = mean + deviation * latent."""
        mean, log_variance = networks.encoder(batch.real).chunk(2, dim=1)
        codes = mean + (log_variance / 2).exp() * batch.latent
        error = (batch.real - networks.generator(codes)).square().mean()
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
        return {"loss": divergence + batch.real.size(1) / 2 * error.log(), "error": error, "divergence": divergence}


def trained(settings: Settings, data: Data, objective: WAE) -> nn.ModuleDict:
    config = Config(architecture="dcgan", width=settings.width, steps=settings.steps, seed=settings.seed)
    training = Training(config, data, objective)
    for _ in range(settings.steps):
        training.step()
    return training.networks.eval().requires_grad_(False)


def make_classifier(settings: Settings, data: Data, targets: Tensor) -> nn.Sequential:
    """All but the last layer give the features."""

    def make() -> nn.Sequential:
        body = dcgan_critic(Sizes(data.shape, 1, settings.width, True), settings.features)
        return nn.Sequential(body, nn.ReLU(), nn.Linear(settings.features, CLASSES))

    return train_classifier(make, data.train, targets, settings.classifier_steps, settings.seed)


def sharpness(images: Tensor, shape: tuple[int, ...]) -> float:
    """Variance of an image's Laplacian, pixels in [0, 1], in the mean over images (N, P); the blurrier, the smaller."""
    channels = ((images + 1) / 2).unflatten(1, shape).flatten(0, 1).unsqueeze(1)
    return functional.conv2d(channels, LAPLACIAN[None, None]).flatten(1).var(1).mean().item()


class Judge:
    """What is said of images (N, P), beside held-out ones; features are in units of their own root mean square."""

    def __init__(self, settings: Settings, data: Data, classifier: nn.Sequential) -> None:
        self.settings, self.data, self.network = settings, data, classifier[:-1]
        self.of_held_out = self.network(data.held_out)
        self.unit = self.of_held_out.square().mean().sqrt()
        self.of_held_out /= self.unit

    def __call__(self, images: Tensor) -> dict[str, float]:
        features, random = self.network(images) / self.unit, torch.Generator().manual_seed(self.settings.seed)
        subset = {"subset_size": self.settings.subset_size, "generator": random}
        return {
            "sharpness": sharpness(images, self.data.shape),
            "Frechet distance": frechet_distance(features, self.of_held_out),
            "KID": wk.kernel_inception_distance(self.of_held_out, features, **subset).mean.item(),
        }


def examined(networks: nn.ModuleDict, judge: Judge, latent: int) -> tuple[dict[str, Any], Tensor, Tensor]:
    """The numbers, reconstructions of held-out images, and samples."""
    held_out, random = judge.data.held_out, torch.Generator().manual_seed(judge.settings.seed + 1)
    prior, noise = (torch.randn(number, latent, generator=random) for number in (judge.settings.judged, len(held_out)))
    means, *log_variances = networks.encoder(held_out).split(latent, dim=1)
    codes = means + (log_variances[0] / 2).exp() * noise if log_variances else means
    reconstructions, samples = networks.generator(means), networks.generator(prior)
    kernel = wk.kernels.InverseMultiquadric.for_prior(latent, scales=(1.0,))
    numbers = {
        "squared error of a pixel": (held_out - reconstructions).square().mean().item() / 4,  # of pixels in [0, 1]
        "MMD^2 of codes and prior": wk.mmd2(codes, prior, kernel).item(),
        "sharpness of reconstructions": sharpness(reconstructions, judge.data.shape),
        "samples": judge(samples),
    }
    return numbers, reconstructions, samples


def run(settings: Settings) -> Found:
    data, (train, held_out) = load(settings.data, least_side=16), labels(settings.data)
    classifier = make_classifier(settings, data, train)
    judge = Judge(settings, data, classifier)
    objectives = [VAE(), WAEMMD(penalty_weight=settings.mmd_weight), WAEGAN()]
    found = {each.name: examined(trained(settings, data, each), judge, each.latent) for each in objectives}
    numbers = {
        "accuracy of the classifier": accuracy(classifier(data.held_out), held_out),
        "data": {"samples": judge(data.train[: settings.judged])},
        **{name: numbers for name, (numbers, _, _) in found.items()},
    }
    rows = {"held out": data.held_out[:10]}
    rows |= {f"{name}, the same": reconstructions[:10] for name, (_, reconstructions, _) in found.items()}
    rows |= {f"{name}, samples": samples[:10] for name, (_, _, samples) in found.items()}
    return Found(numbers, partial(draw, numbers, rows, data.shape), (12, 4.6))


def draw(numbers: dict[str, Any], rows: dict[str, Tensor], shape: tuple[int, ...], figure: Figure) -> None:
    left, right = figure.subfigures(1, 2)
    axes, grid = left.subplots(), sample_grid(torch.cat(list(rows.values())), shape)
    grid = grid[: len(grid) * len(rows) // 10]  # of 10 images a row, and as many rows
    axes.imshow(grid.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([(row + 0.5) * len(grid) / len(rows) for row in range(len(rows))], rows)
    axes.set_xticks([])
    panels = right.subplots(2, 2).flatten()
    of_all = {name: of for name, of in numbers.items() if isinstance(of, dict)}
    error = "squared error of a pixel"
    bars(panels[0], f"reconstructions: {error}", {name: of[error] for name, of in of_all.items() if error in of})
    for panel, judged in zip(panels[1:], numbers["data"]["samples"], strict=True):
        bars(panel, f"samples: {judged}", {name: of["samples"][judged] for name, of in of_all.items()})


def bars(axes: Axes, title: str, values: dict[str, float]) -> None:
    colours = ["grey" if name == "data" else "C0" for name in values]
    axes.bar_label(axes.bar(list(values), list(values.values()), color=colours), fmt="%.3g", fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(y=0.15)


EXPERIMENT = Experiment("autoencoders", "What do WAEs and a VAE of the same networks make of images?", Settings, run)
