"""Samples from files: IDX, NumPy, images, and torch Datasets; what is wrong with a file is said with its name."""

from __future__ import annotations

import gzip
import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
IDX = "-images-idx3-ubyte"
COLOURS = (1, 3, 4)


class DataError(ValueError):
    """What is wrong with which file."""


def read(where: str | Path) -> tuple[Tensor, Tensor | None]:
    """Samples (N, ...), float32, and held-out ones where the files keep them apart; images are (N, C, H, W) in [-1, 1].

    where: a folder with IDX files, or with images in it or below; a .npy or .npz file; package.module:name of a torch
    Dataset, or of a function that makes one.
    """
    path = Path(where)
    if path.is_dir():
        if found := idx_file(path, "train"):
            other = idx_file(path, "t10k")
            return read_idx(found), read_idx(other) if other else None
        return read_images(path), None
    if path.suffix in (".npy", ".npz"):
        return read_numpy(path), None
    if ":" in str(where) and not path.exists():
        return read_dataset(str(where)), None
    problem = "is no folder and no .npy or .npz file" if path.exists() else "no such file or folder"
    raise DataError(f"{where}: {problem}")


def idx_file(folder: Path, part: str) -> Path | None:
    return next((path for end in ("", ".gz") if (path := folder / f"{part}{IDX}{end}").is_file()), None)


def read_idx(path: Path) -> Tensor:
    """Images of bytes, as MNIST's are kept: big-endian 0x803, number, height and width, then the pixels."""
    with naming(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 16 or int.from_bytes(content[:4], "big") != 0x803:
        raise DataError(f"{path}: is no IDX file of images, which start with the bytes 00 00 08 03")
    number, height, width = (int(each) for each in np.frombuffer(content, ">u4", count=3, offset=4))
    if len(content) != 16 + number * height * width:
        wanted = f"{number} images of {height}x{width} are {number * height * width} bytes"
        raise DataError(f"{path}: is cut off or too long: {wanted}, got {len(content) - 16}")
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(number, 1, height, width)
    return _checked(path, torch.from_numpy(pixels.copy()))


def read_numpy(path: Path) -> Tensor:
    """(N, P) rows as they are; (N, H, W), (N, C, H, W) or (N, H, W, C) images of bytes, or of numbers in [-1, 1]."""
    with naming(path):
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            if len(content.files) != 1:
                raise ValueError(f"it must hold one array, got {', '.join(content.files) or 'none'}")
            content = content[content.files[0]]
    if content.dtype.kind not in "uif":
        raise DataError(f"{path}: must hold numbers, got {content.dtype}")
    if content.dtype != np.uint8:
        content = content.astype(np.float32)
    return _checked(path, torch.from_numpy(np.ascontiguousarray(content)))


def read_images(folder: Path) -> Tensor:
    """Those of a folder and of the folders in it, all of one size; in grey where all are."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    if not paths:
        raise DataError(f"{folder}: holds no train{IDX} and no image ({', '.join(IMAGES)})")
    images: list[Image.Image] = []
    for path in paths:
        with naming(path), Image.open(path) as image:
            images.append(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        if images[-1].size != images[0].size:
            raise DataError(f"{path}: must be as large as {paths[0]}, {images[0].size}, got {images[-1].size}")
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    return _checked(folder, torch.from_numpy(np.stack([np.asarray(image.convert(mode)) for image in images])))


def read_dataset(name: str) -> Tensor:
    """All samples of package.module:name; of tuples, such as (image, label), the first."""
    module, _, attribute = name.partition(":")
    with naming(name):
        dataset: Any = getattr(importlib.import_module(module), attribute)
        dataset = dataset if hasattr(dataset, "__getitem__") and not isinstance(dataset, type) else dataset()
        samples = [dataset[index] for index in range(len(dataset))]
        samples = torch.stack([sample[0] if isinstance(sample, (tuple, list)) else sample for sample in samples])
    return _checked(name, samples)


@contextmanager
def naming(where: str | Path) -> Iterator[None]:
    """Whatever is raised in here, by libraries of all kinds, is said of this file."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{where}: cannot be read: {error}") from error


def _checked(where: str | Path, samples: Tensor) -> Tensor:
    """Rows as they are, images as (N, C, H, W) in [-1, 1]."""
    shape = tuple(samples.shape)
    if samples.dim() == 3:
        samples = samples.unsqueeze(1)
    elif samples.dim() == 4 and samples.size(1) not in COLOURS:
        samples = samples.permute(0, 3, 1, 2)
    if samples.dim() not in (2, 4) or 0 in shape or (samples.dim() == 4 and samples.size(1) not in COLOURS):
        raise DataError(f"{where}: must hold rows (N, P), or images (N, H, W) or with 1, 3 or 4 channels, got {shape}")
    scaled = samples.float() / 127.5 - 1 if samples.dtype == torch.uint8 and samples.dim() == 4 else samples.float()
    low, high = (each.item() for each in scaled.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(f"{where}: holds numbers that are not finite")
    if samples.dim() == 4 and not -1 <= low <= high <= 1:
        raise DataError(f"{where}: images must be bytes or numbers in [-1, 1], got numbers from {low:g} to {high:g}")
    return scaled.contiguous()
