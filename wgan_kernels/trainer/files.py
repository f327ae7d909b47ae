"""Samples from files: IDX, NumPy, images, and torch Datasets; what is wrong with a file is said with its name."""

from __future__ import annotations

import gzip
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    parts = {part: each for part in ("train", "t10k") for each in path.glob(f"{part}{IDX}*")}
    if "train" in parts:
        return read_idx(parts["train"]), read_idx(parts["t10k"]) if "t10k" in parts else None
    if path.is_dir():
        return read_images(path), None
    if path.suffix in (".npy", ".npz"):
        return read_numpy(path), None
    if path.exists():
        raise DataError(f"{where}: is no folder and no .npy or .npz file")
    if ":" in str(where):
        return read_dataset(str(where)), None
    raise DataError(f"{where}: no such file or folder")


def read_idx(path: Path) -> Tensor:
    """Images of bytes, as MNIST's are kept: big-endian 0x803, number, height and width, then the pixels."""
    with naming(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 16 or content[:4] != b"\0\0\x08\x03":
        raise DataError(f"{path}: is no IDX file of images, which start with the bytes 00 00 08 03")
    number, height, width = np.frombuffer(content, ">u4", count=3, offset=4).tolist()
    wanted, got = number * height * width, len(content) - 16
    if got != wanted:
        words = f"{number} images of {height}x{width} are {wanted} bytes, got {got}"
        raise DataError(f"{path}: is cut off or too long: {words}")
    return checked(path, np.frombuffer(content, np.uint8, offset=16).reshape(number, height, width))


def read_numpy(path: Path) -> Tensor:
    """(N, P) rows as they are; (N, H, W), (N, C, H, W) or (N, H, W, C) images of bytes, or of numbers in [-1, 1]."""
    with naming(path):
        content = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            if len(content.files) != 1:
                raise ValueError(f"it must hold one array, got {', '.join(content.files) or 'none'}")
            content = content[content.files[0]]
    return checked(path, content)


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
    return checked(folder, np.stack([image.convert(mode) for image in images]))


def read_dataset(name: str) -> Tensor:
    """All samples of package.module:name; of tuples, such as (image, label), the first."""
    with naming(name):
        dataset = pkgutil.resolve_name(name)
        dataset = dataset if hasattr(dataset, "__getitem__") and not isinstance(dataset, type) else dataset()
        samples = [dataset[index] for index in range(len(dataset))]
        rows = torch.stack([sample[0] if isinstance(sample, (tuple, list)) else sample for sample in samples]).numpy()
    return checked(name, rows)


@contextmanager
def naming(where: str | Path) -> Iterator[None]:
    """Whatever is raised in here, by libraries of all kinds, is said of this file."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{where}: cannot be read: {error}") from error


def checked(where: str | Path, samples: np.ndarray) -> Tensor:
    """Rows as they are, images as (N, C, H, W) in [-1, 1]."""
    shape = samples.shape
    if samples.dtype.kind not in "buif":
        raise DataError(f"{where}: must hold numbers, got {samples.dtype}")
    if samples.ndim == 3:
        samples = samples[:, None]
    elif samples.ndim == 4 and shape[1] not in COLOURS:
        samples = samples.transpose(0, 3, 1, 2)
    is_image = samples.ndim == 4 and samples.shape[1] in COLOURS
    if not (is_image or samples.ndim == 2) or 0 in shape:
        raise DataError(f"{where}: must hold rows (N, P), or images (N, H, W) or with 1, 3 or 4 channels, got {shape}")
    values = torch.tensor(samples, dtype=torch.float32).contiguous()
    if is_image and samples.dtype == np.uint8:
        values = values / 127.5 - 1
    if not values.isfinite().all():
        raise DataError(f"{where}: holds numbers that are not finite")
    low, high = values.min(), values.max()
    if is_image and not -1 <= low <= high <= 1:
        raise DataError(f"{where}: images must be bytes or numbers in [-1, 1], got numbers from {low:g} to {high:g}")
    return values
