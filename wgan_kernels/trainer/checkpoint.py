"""Checkpoints and other files of a run: each whole or not there, whenever the process or the machine stops."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from .config import Config
from .files import FileError, naming

FORMAT = "wgan_kernels.trainer 3"


def prepare(folder: Path) -> None:
    """Makes the folder and proves that files can be written there, before any time is spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FileError(f"argument --out: must be a writable folder, got {str(folder)!r}: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` once it is on the disk, so that that never holds half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        kept = "; the one from before is still there" if path.exists() else ""
        raise FileError(f"{path}: cannot be written: {error.strerror or error}{kept}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(config: Config, state: dict[str, Any]) -> None:
    """state: plain containers of tensors and numbers, which torch.load(weights_only=True) takes."""
    buffer = io.BytesIO()  # torch.save explains a full disk badly
    torch.save({"format": FORMAT, "config": config.plain(), **state}, buffer)
    with replacing(config.out / "checkpoint.pt") as path:
        path.write_bytes(buffer.getbuffer())


def load_checkpoint(config: Config) -> dict[str, Any] | None:
    """The one in the run's folder, or None where there is none; raises FileError for what does not continue the run."""
    path = config.out / "checkpoint.pt"
    if not path.exists():
        return None
    with naming(path, "cannot be read as a checkpoint, and was left as it is"):
        state = torch.load(path, weights_only=True, map_location=config.device)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FileError(f"{path}: is no checkpoint of this trainer, of format {FORMAT!r}; left as it is")
    had, wanted = state["config"], config.plain()
    for name in [each.name for each in fields(Config) if not each.metadata.get("free")]:
        if wanted[name] != had.get(name):
            wrong = f"argument --{name.replace('_', '-')}: must be that of the run in {path}, {had.get(name)!r}"
            raise FileError(f"{wrong}, got {wanted[name]!r}; its config.yaml has all of them, for --config")
    return state
