"""The trainer's data: what is read from which files, how it is split, and what is said to files that are wrong."""

from __future__ import annotations

import gzip
import math
import sys
from pathlib import Path

import pytest

for needed in ("sklearn", "PIL", "numpy"):
    pytest.importorskip(needed)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from wgan_kernels.trainer import data, files  # noqa: E402
from wgan_kernels.trainer.data import load  # noqa: E402
from wgan_kernels.trainer.files import FileError  # noqa: E402

PIXELS = np.arange(10 * 6 * 5, dtype=np.uint8).reshape(10, 6, 5)


def idx(pixels: np.ndarray) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in (0x803, *pixels.shape)) + pixels.tobytes()


def test_digits_are_split_apart_and_always_alike() -> None:
    digits, again = load("digits"), load("digits")
    assert torch.equal(digits.train, again.train) and torch.equal(digits.held_out, again.held_out)
    assert digits.train.shape == (1437, 64) and digits.held_out.shape == (360, 64) and digits.shape == (1, 8, 8)
    everything = torch.cat([digits.train, digits.held_out])
    assert everything.min() == -1 and everything.max() == 1 and digits.is_image
    # No two of the 1,797 images are equal, so that disjoint images are disjoint rows.
    assert len(everything.unique(dim=0)) == len(everything) == 1797
    assert load("digits", 16).train.shape == (1437, 256) and load("digits", 16).shape == (1, 16, 16)


@pytest.mark.parametrize("name", data.TOYS)
def test_toys(name: str) -> None:
    toy = load(name)
    assert toy.train.shape == (20_000, 2) and toy.held_out.shape == (5_000, 2) and not toy.is_image
    assert torch.equal(toy.train, load(name).train)
    if toy.modes is not None:
        centres, sigma = toy.modes
        distances, nearest = torch.cdist(toy.train, centres).min(1)
        assert (distances < 4 * sigma).float().mean() > 0.999
        counts = torch.bincount(nearest) / len(toy.train)
        assert len(counts) == int(name.removesuffix("gaussians")) and (counts - 1 / len(counts)).abs().max() < 0.01
        assert math.isclose((distances**2).mean().item() / 2, sigma**2, rel_tol=0.05)
    if name == "segments":
        assert (toy.train[:, 0] == 1).all() and 0 <= toy.train[:, 1].min() < toy.train[:, 1].max() <= 1
    if name == "swissroll":
        assert 1.2 < toy.train.norm(dim=1).max() < 2.2


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("parts", [("train",), ("train", "t10k")])
def test_idx_files(tmp_path: Path, suffix: str, parts: tuple[str, ...]) -> None:
    for part in parts:
        content = idx(PIXELS)
        path = tmp_path / f"{part}-images-idx3-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    found = load(str(tmp_path))
    assert found.shape == (1, 6, 5) and found.is_image
    assert (len(found.train), len(found.held_out)) == ((10, 10) if len(parts) == 2 else (8, 2))
    everything = torch.cat([found.train, found.held_out]) if len(parts) == 1 else found.train
    expected = torch.from_numpy(PIXELS).float().flatten(1) / 127.5 - 1
    assert torch.equal(everything.sort(0).values, expected.sort(0).values)
    assert load(str(tmp_path), 8).shape == (1, 8, 8)


def test_missing_fashion_mnist_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "FASHION_MNIST", tmp_path / "none")
    with pytest.raises(FileError, match="dataset-fashion-mnist"):
        load("fashion-mnist")


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((12, 3), np.float64, (3,)),
        ((12, 3), np.int32, (3,)),
        ((12, 6, 5), np.uint8, (1, 6, 5)),
        ((12, 3, 6, 5), np.uint8, (3, 6, 5)),
        ((12, 6, 5, 3), np.uint8, (3, 6, 5)),
        ((12, 6, 5), np.float32, (1, 6, 5)),
    ],
)
def test_numpy_files(tmp_path: Path, shape: tuple[int, ...], dtype: type, found: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    one, other = load(str(tmp_path / "a.npy")), load(str(tmp_path / "a.npz"))
    assert one.shape == other.shape == found and torch.equal(one.train, other.train)
    assert one.is_image == (len(found) == 3) and len(one.train) == 10 and len(one.held_out) == 2


def test_image_folders(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    for index, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / ("class" if index % 2 else ".") / f"{index}.png")
    grey = load(str(tmp_path))
    assert grey.shape == (1, 6, 5) and len(grey.train) + len(grey.held_out) == 10
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(tmp_path / "colour.PNG")
    assert load(str(tmp_path)).shape == (3, 6, 5)


def test_datasets_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(
        "import torch\n"
        "class Pairs(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 10\n"
        "    def __getitem__(self, i): return torch.full((3,), float(i)), i\n"
        "rows = torch.utils.data.TensorDataset(torch.randn(10, 2))\n"
        "class Ragged(Pairs):\n"
        "    def __getitem__(self, i): return torch.zeros(i + 1)\n"
        "class Words(Pairs):\n"
        "    def __getitem__(self, i): return 'word'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    assert load("my_data:Pairs").shape == (3,) and load("my_data:rows").shape == (2,)
    wrong = {"my_data:Ragged": "equal size", "my_data:Words": "expected Tensor", "my_data:nothing": "nothing",
             "no_module:x": "no_module"}  # fmt: skip
    for name, words in wrong.items():
        with pytest.raises(FileError) as error:
            load(name)
        assert str(error.value).startswith(f"{name}: ") and words in str(error.value)


def make_bad_files(folder: Path) -> dict[str, str]:
    """Files that are wrong, or folders with one such file, and what is to be said of them."""
    content = idx(PIXELS)

    def in_folder(name: str, file: str, content: bytes) -> str:
        (folder / name).mkdir()
        (folder / name / file).write_bytes(content)
        return name

    train = "train-images-idx3-ubyte"
    said = {
        in_folder("cut", train, content[:-1]): f"{train}: cut off or too long: 10 6x5 images are 300 bytes",
        in_folder("labels", train, b"\0\0\x08\x01" + content[4:]): f"{train}: is no IDX file of images",
        in_folder("short", train, b"\0\0"): f"{train}: is no IDX file of images",
        in_folder("gz", f"{train}.gz", gzip.compress(content)[:-20]): f"{train}.gz: cannot be read",
        in_folder("not-gz", f"{train}.gz", content): f"{train}.gz: cannot be read",
        in_folder("no-image", "a.txt", b"text"): "no-image: holds no train",
        in_folder("bad-image", "a.png", b"\x89PNG\r\n"): "a.png: cannot be read",
    }
    (folder / "text.npy").write_text("not numpy")
    (folder / "text.npz").write_text("not numpy")
    np.savez(folder / "two.npz", a=PIXELS, b=PIXELS)
    np.save(folder / "words.npy", np.array(["a", "b"]))
    np.save(folder / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save(folder / "line.npy", np.zeros(7))
    np.save(folder / "nan.npy", np.full((9, 2), np.nan))
    np.save(folder / "loud.npy", np.full((9, 4, 4), 7.0))
    np.save(folder / "channels.npy", np.zeros((9, 5, 4, 2), np.uint8))
    np.save(folder / "few.npy", np.zeros((3, 2)))
    (folder / "data.csv").write_text("1,2\n")
    said |= {
        "text.npy": "text.npy: cannot be read",
        "text.npz": "text.npz: cannot be read",
        "two.npz": "two.npz: cannot be read: it must hold one array, got a, b",
        "words.npy": "words.npy: must hold numbers",
        "objects.npy": "objects.npy: cannot be read",
        "line.npy": "line.npy: must hold rows (N, P), or images",
        "nan.npy": "nan.npy: holds numbers that are not finite",
        "loud.npy": "loud.npy: images must be bytes or numbers in [-1, 1], got numbers from 7 to 7",
        "channels.npy": "channels.npy: must hold rows (N, P), or images (N, H, W) or with 1, 3 or 4 channels",
        "few.npy": "few.npy: needs more samples, got 3",
        "data.csv": "data.csv: no folder and no .npy or .npz file",
        "missing.npy": "missing.npy: cannot be read",
        "missing": "missing: no such file or folder",
    }
    return said


def test_bad_files_are_named(tmp_path: Path) -> None:
    for name, words in make_bad_files(tmp_path).items():
        with pytest.raises(FileError) as error:
            load(str(tmp_path / name))
        assert words in str(error.value) and str(tmp_path) in str(error.value), name


def test_images_of_two_sizes_are_named(tmp_path: Path) -> None:
    for name, size in (("a.png", (4, 4)), ("b.png", (4, 5))):
        Image.new("L", size).save(tmp_path / name)
    with pytest.raises(FileError, match=r"b\.png: must be as large as .*a\.png, \(4, 4\), got \(4, 5\)"):
        files.read(tmp_path)
