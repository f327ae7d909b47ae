"""Samples from files: IDX, NumPy, images, and torch Datasets; what is wrong with a file is said with its name."""

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


class FileError(Exception):
    """Which file or folder is wrong, and how."""


def read(where: str | Path) -> tuple[Tensor, Tensor | None]:
    """Samples (N, ...), float32, and held-out ones where the files keep them apart; images are (N, C, H, W) in [-1, 1].

    where: a folder with IDX files, or with images in it or below; a .npy or .npz file; package.module:name of a torch
    Dataset, or of a function that makes one.
    """
    path = Path(where)
    train, test = (next(path.glob(f"{part}{IDX}*"), None) for part in ("train", "t10k"))
    if train:
        return read_idx(train), test and read_idx(test)
    if path.is_dir():
        return read_images(path), None
    if path.suffix in (".npy", ".npz"):
        return read_numpy(path), None
    if ":" in str(where) and not path.exists():
        return read_dataset(str(where)), None
    raise FileError(f"{where}: {'no folder and no .npy or .npz file' if path.exists() else 'no such file or folder'}")


def read_idx(path: Path) -> Tensor:
    """Images of bytes, as MNIST's are kept: big-endian 0x803, number, height and width, then the pixels."""
    content = contents(path)
    if len(content) < 16 or content[:4] != b"\0\0\x08\x03":
        raise FileError(f"{path}: is no IDX file of images, which start with the bytes 00 00 08 03")
    count, height, width = np.frombuffer(content, ">u4", count=3, offset=4).tolist()
    wanted, got = count * height * width, len(content) - 16
    if got != wanted:
        raise FileError(f"{path}: cut off or too long: {count} {height}x{width} images are {wanted} bytes, got {got}")
    return checked(path, np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width))


def contents(path: Path) -> bytes:
    """Of a file that may be gzipped."""
    with naming(path):
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


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
    images: list[Image.Image] = []
    for path in (paths := sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)):
        with naming(path), Image.open(path) as image:
            images.append(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        if images[-1].size != images[0].size:
            raise FileError(f"{path}: must be as large as {paths[0]}, {images[0].size}, got {images[-1].size}")
    if not images:
        raise FileError(f"{folder}: holds no train{IDX} and no image ({', '.join(IMAGES)})")
    mode = max(image.mode for image in images)  # "RGB" where one is
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
def naming(where: str | Path, problem: str = "cannot be read") -> Iterator[None]:
    """Whatever is raised in here, by libraries of all kinds, is said of this file, by its first lines."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split("\n")[:2]) or type(error).__name__
        raise FileError(f"{where}: {problem}: {reason}") from error


def checked(where: str | Path, samples: np.ndarray) -> Tensor:
    """Rows as they are, images as (N, C, H, W) in [-1, 1]."""
    shape, dtype = samples.shape, samples.dtype
    if dtype.kind not in "buif":
        raise FileError(f"{where}: must hold numbers, got {dtype}")
    if samples.ndim == 3:
        samples = samples[:, None]
    elif samples.ndim == 4 and shape[1] not in COLOURS:
        samples = samples.transpose(0, 3, 1, 2)
    is_image = samples.ndim == 4 and samples.shape[1] in COLOURS
    if not (is_image or samples.ndim == 2) or 0 in shape:
        raise FileError(f"{where}: must hold rows (N, P), or images (N, H, W) or with 1, 3 or 4 channels, got {shape}")
    values = torch.tensor(samples, dtype=torch.float32).contiguous()
    if is_image and dtype == np.uint8:
        values = values / 127.5 - 1
    low, high = values.aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise FileError(f"{where}: holds numbers that are not finite")
    if is_image and not -1 <= low <= high <= 1:
        raise FileError(f"{where}: images must be bytes or numbers in [-1, 1], got numbers from {low:g} to {high:g}")
    return values
