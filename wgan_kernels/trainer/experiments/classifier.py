"""A small classifier of the data's classes, and how samples are judged by what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import data, files

CLASSES = 10
LABELS = "-labels-idx1-ubyte"


def labels(name: str) -> tuple[Tensor, Tensor]:
    """Those of the training and held-out samples of data.load(name): the digits, or IDX files that keep both parts.

    Raises:
        files.FileError: says which file is missing or wrong.
    """
    if name == "digits":
        _, _, train, held_out = data.digit_parts()
        return train, held_out
    folder = data.FASHION_MNIST if name == "fashion-mnist" else Path(name)
    return read_labels(folder, "train"), read_labels(folder, "t10k")


def read_labels(folder: Path, part: str) -> Tensor:
    """(N,) numbers below CLASSES, as MNIST's are kept: big-endian 0x801 and the number of labels, then a byte each."""
    places = [folder / f"{part}{LABELS}{end}" for end in ("", ".gz")]
    path = next((each for each in places if each.is_file()), places[0])
    content = files.contents(path)
    found = np.frombuffer(content[8:], np.uint8)
    if content[:8] != (0x801).to_bytes(4, "big") + len(found).to_bytes(4, "big") or (found >= CLASSES).any():
        raise files.FileError(f"{path}: must be a whole IDX file of labels below {CLASSES}")
    return torch.from_numpy(found.astype(np.int64))


def train_classifier(
    make: Callable[[], nn.Module], samples: Tensor, targets: Tensor, steps: int, seed: int, batch_size: int = 100
) -> nn.Module:
    """By cross-entropy, with Adam(1e-3); the network that is made maps samples (B, P) to logits (B, CLASSES)."""
    with torch.random.fork_rng(devices=[]):  # torch.nn draws initial weights from the global generator only
        torch.manual_seed(seed)
        network = make()
    optimizer = torch.optim.Adam(network.parameters())
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        which = torch.randint(len(samples), (batch_size,), generator=random)
        optimizer.zero_grad()
        functional.cross_entropy(network(samples[which]), targets[which]).backward()
        optimizer.step()
    return network.requires_grad_(False)


def accuracy(logits: Tensor, targets: Tensor) -> float:
    return (logits.argmax(1) == targets).float().mean().item()


def inception_score(logits: Tensor) -> float:
    """exp(mean KL(p(y|x) || p(y))), from 1 to the number of classes, p(y) the mean of p(y|x) = softmax(logits).

    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4, there with the Inception network.
    """
    log_p = logits.double().log_softmax(1)
    log_mean = log_p.logsumexp(0) - np.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(1).mean().exp().item()


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """||mean x - mean y||^2 + tr(X + Y - 2 (X Y)^(1/2)), X and Y the covariances of features (N, D) and (M, D).

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", section 4, there with Inception's.
    """
    (mean_x, cov_x), (mean_y, cov_y) = ((each.double().mean(0), each.double().T.cov()) for each in (x, y))
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # X^(1/2) Y X^(1/2) is symmetric, and has the eigenvalues of X Y.
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return ((mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross).item()
