"""The data that the trainer learns from, and the judge of how far generated samples are from it."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn import datasets, model_selection
from torch import Tensor, nn

import wgan_kernels as wk

from . import files

HELD_OUT = 0.2
SAMPLES = 2000  # to judge by
TOY_SIZE = 25_000
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it


class Data(NamedTuple):
    """Samples, flattened; images have pixels in [-1, 1]."""

    train: Tensor  # (N, P)
    held_out: Tensor  # (M, P)
    shape: tuple[int, ...]  # (P,), or (channels, height, width)
    is_image: bool = False  # whose pixels lie in [-1, 1]
    modes: tuple[Tensor, float] | None = None  # centres (M, P) of the Gaussians of a mixture, their standard deviation


def load(name: str, least_side: int = 0) -> Data:
    """The data of this name, always split alike: runs of different seeds are to be judged by the same samples.

    least_side: makes images square, of the next power of 2 that is at least this; 0 leaves them as they are.

    Raises:
        files.FileError: says which file is wrong, and how.
    """
    known = {"digits": load_digits, "fashion-mnist": load_fashion_mnist, **TOYS}
    data = known[name]() if name in known else load_files(name)
    if not least_side:
        return data
    if not data.is_image:
        raise files.FileError(f"{name}: samples are of shape {data.shape}, and this --architecture convolves images")
    sides = (max(least_side, 1 << math.ceil(math.log2(max(data.shape[1:])))),) * 2
    images = (samples.unflatten(1, data.shape) for samples in (data.train, data.held_out))
    train, held_out = (nn.functional.interpolate(each, sides, mode="bilinear").flatten(1) for each in images)
    return Data(train, held_out, (data.shape[0], *sides), is_image=True)


def load_digits() -> Data:
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

    Source: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    images, held_out, _, _ = digit_parts()
    # A pixel counts the ink in a block of 4x4 points.
    return Data(images.float() / 8 - 1, held_out.float() / 8 - 1, (1, 8, 8), is_image=True)


def digit_parts() -> list[Tensor]:
    """Pixels of the digits to train on and of the held-out ones, and the numbers that both show."""
    pixels, shown = datasets.load_digits(return_X_y=True)
    parts = model_selection.train_test_split(pixels, shown, test_size=HELD_OUT, random_state=0, stratify=shown)
    return [torch.as_tensor(part) for part in parts]


def load_fashion_mnist() -> Data:
    if not FASHION_MNIST.is_dir():
        raise files.FileError(f"{FASHION_MNIST}: no such folder: install dataset-fashion-mnist, or name one")
    return load_files(FASHION_MNIST)


def load_files(where: str | Path) -> Data:
    train, held_out = files.read(where)
    if held_out is None:
        train, held_out = split(train[torch.randperm(len(train), generator=seeded())])
    if len(held_out) < 2:
        raise files.FileError(f"{where}: needs more samples, got {len(train) + len(held_out)}")
    shape = tuple(train.shape[1:])
    return Data(train.flatten(1), held_out.flatten(1), shape, is_image=len(shape) == 3)


def split(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Those to train on, and the first ones, which are held out."""
    return samples.tensor_split([round(HELD_OUT * len(samples))])[::-1]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def mixture(centres: Tensor, sigma: float) -> Data:
    random = seeded()
    which = torch.randint(len(centres), (TOY_SIZE,), generator=random)
    points = centres[which] + sigma * torch.randn(TOY_SIZE, 2, generator=random)
    return Data(*split(points), (2,), modes=(centres, sigma))


def eight_gaussians() -> Data:
    """On a circle of radius 2, of standard deviation 0.1."""
    angles = torch.arange(8) * (math.tau / 8)
    return mixture(2 * torch.stack([angles.cos(), angles.sin()], 1), 0.1)


def twenty_five_gaussians() -> Data:
    """On a grid of 5x5, with the figures of the code of Gulrajani et al. 2017."""
    line = torch.linspace(-2, 2, 5) / math.sqrt(2)
    return mixture(torch.cartesian_prod(line, line), 0.05 / math.sqrt(2))


def swiss_roll() -> Data:
    """That of scikit-learn without its second coordinate, with the figures of that code."""
    points, _ = datasets.make_swiss_roll(TOY_SIZE, noise=0.25, random_state=0)
    return Data(*split(torch.as_tensor(points[:, [0, 2]]).float() / 7.5), (2,))


def parallel_segments(theta: float = 1.0) -> Data:
    """(theta, Z), Z ~ U[0, 1] (Arjovsky et al. 2017, example 1)."""
    points = torch.rand(TOY_SIZE, 2, generator=seeded())
    points[:, 0] = theta
    return Data(*split(points), (2,))


TOYS = {"8gaussians": eight_gaussians, "25gaussians": twenty_five_gaussians, "swissroll": swiss_roll}
TOYS["segments"] = parallel_segments


class Judge:
    """Unbiased MMD^2 to held-out samples, with an RBF kernel as wide as the median distance of training samples.

    About 0, and often below, for samples of the same distribution.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6, and section 8 for the median heuristic.
    """

    def __init__(self, data: Data) -> None:
        train = data.train[:SAMPLES]
        self._held_out, self._modes = data.held_out[:SAMPLES], data.modes
        self.bandwidth = wk.median_bandwidth(train)
        self.baselines = {"train": self.mmd2(train), "gaussian": self.mmd2(fitted_gaussian(train))}

    def mmd2(self, samples: Tensor) -> float:
        return wk.mmd2(samples, self._held_out, wk.kernels.RBF(self.bandwidth)).item()

    def modes(self, samples: Tensor) -> dict[str, Any] | None:
        """Of a mixture: how many modes have 1 % of the samples within 4 sigma, and what part of all is that near."""
        if self._modes is None:
            return None
        centres, sigma = self._modes
        distances, nearest = torch.cdist(samples, centres).min(dim=1)
        shares = torch.bincount(nearest[distances < 4 * sigma], minlength=len(centres)) / len(samples)
        return {"modes": len(centres), "found": int((shares >= 0.01).sum()), "near": shares.sum().item()}


def fitted_gaussian(samples: Tensor) -> Tensor:
    """Draws from the normal distribution with the mean and covariance of samples (N, P)."""
    n, mean = len(samples), samples.mean(0)
    normal = torch.randn(SAMPLES, n, generator=torch.Generator().manual_seed(0))
    # Sums of centred samples with normal weights have their covariance.
    return mean + normal @ (samples - mean) / (n - 1) ** 0.5
