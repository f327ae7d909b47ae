"""The data that the trainer learns from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn import datasets, model_selection
from torch import Tensor
from torch.nn import functional

HELD_OUT = 0.2
BRIGHTEST = 16  # a pixel counts the ink in a block of 4x4 points


class Data(NamedTuple):
    """Images with pixels in [-1, 1], flattened."""

    train: Tensor  # (N, P)
    held_out: Tensor  # (M, P)
    shape: tuple[int, int]  # height, width


def load_digits(side: int = 8) -> Data:
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, always split alike, as side x side.

    Source: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    digits = datasets.load_digits()
    # Not the run's seed: runs of different seeds are to be judged by the same held-out digits.
    train, held_out = model_selection.train_test_split(
        digits.data, test_size=HELD_OUT, random_state=0, stratify=digits.target
    )
    shape = digits.images.shape[1:]
    return Data(*[_scaled(pixels, shape, side) for pixels in (train, held_out)], (side, side))


def _scaled(pixels: object, shape: tuple[int, int], side: int) -> Tensor:
    images = torch.as_tensor(pixels, dtype=torch.float32).unflatten(1, (1, *shape)) / (BRIGHTEST / 2) - 1
    return functional.interpolate(images, size=(side, side), mode="bilinear").flatten(1)
