"""What happened in a run, step by step: in memory, in metrics.csv and, if wished, for TensorBoard."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from .checkpoint import FileError, replacing

NAME = "metrics.csv"


@dataclass
class Record:
    """The curves, and how the run ended."""

    outcome: str = "finished"  # or "interrupted", "diverged", "verification failed"
    explanation: str = ""
    seconds: float = 0.0
    steps_timed: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)  # one entry per step
    mmd2: dict[int, float] = field(default_factory=dict)  # step -> generated against held-out

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)


class Log:
    """metrics.csv: a line for each step, and `mmd2` where it was evaluated."""

    def __init__(self, folder: Path, record: Record, step: int, tensorboard: bool) -> None:
        """step: how many are kept of those that are there; what came after them is made again."""
        self._path, self._record = folder / NAME, record
        self._file: IO[str] | None = None
        self._fields: list[str] = []
        if step:
            self._keep(step)
        else:
            self._path.unlink(missing_ok=True)
        self._board = _summary_writer(folder, step) if tensorboard else None

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line; the first one says which columns there are."""
        if self._file is None:
            self._open(["step", *values, "mmd2"])
        row = {"step": step, **{name: repr(value) for name, value in values.items()}}
        if step in self._record.mmd2:
            row["mmd2"] = repr(self._record.mmd2[step])
        csv.DictWriter(self._file, self._fields).writerow(row)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            if "mmd2" in row:
                self._board.add_scalar("mmd2", self._record.mmd2[step], step)

    def show(self, picture: Tensor, step: int) -> None:
        """A picture (height, width) of numbers in [0, 1]."""
        if self._board is not None:
            self._board.add_image("samples", picture, step, dataformats="HW")

    def flush(self) -> None:
        """To the disk: a checkpoint counts on the lines up to its step."""
        if self._file is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise FileError(f"{self._path}: cannot be written: {error.strerror}") from error
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _open(self, names: list[str]) -> None:
        self._fields = names
        self._file = self._path.open("w", newline="")
        csv.writer(self._file).writerow(names)
        if 0 in self._record.mmd2:
            csv.DictWriter(self._file, names).writerow({"step": 0, "mmd2": repr(self._record.mmd2[0])})

    def _keep(self, step: int) -> None:
        """Takes up the lines of the steps that are kept, into the record too."""
        try:
            with self._path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
                names = list(rows[0])
            if int(rows[-1]["step"]) != step:
                raise ValueError(f"it ends with step {rows[-1]['step']}, and the checkpoint is of step {step}")
            for row in rows:
                if row["mmd2"]:
                    self._record.mmd2[int(row["step"])] = float(row["mmd2"])
                if row["step"] != "0":
                    self._record.add({name: float(row[name]) for name in names[1:-1]})
        except (OSError, KeyError, IndexError, ValueError, TypeError, csv.Error) as error:
            raise FileError(f"{self._path}: is not the log of the run's checkpoint: {error}") from error
        with replacing(self._path) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        self._fields, self._file = names, self._path.open("a", newline="")


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise FileError(f"argument --tensorboard: needs the package tensorboard: {error}") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
