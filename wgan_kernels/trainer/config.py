"""The settings of a run, and the command line that is made of them."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

import wgan_kernels as wk

from .networks import ARCHITECTURES

# What torch takes for a size or a seed.
LARGEST = 2**63 - 1


def _integer(least: int, most: int = LARGEST) -> Callable[[str], int]:
    def parse(text: str) -> int:
        limits = f"at least {least}" if most == LARGEST else f"from {least} to {most}"
        wanted = f"must be an integer, {limits}, got {text!r}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(wanted) from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(wanted)
        return value

    return parse


def _positive(text: str) -> float:
    wanted = f"must be a finite number greater than 0, got {text!r}"
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(wanted) from None
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(wanted)
    return value


def _backend(name: str) -> str:
    """The library says which back ends there are, and which serve the tensors of a run."""
    try:
        with wk.use_backend(name):
            wk.norm_penalty(torch.ones(1, 1))
    except (RuntimeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def _option(default: Any, help: str, **settings: Any) -> Any:
    """A field of Config together with what argparse is told of it."""
    return field(default=default, metadata={"help": help, **settings})


@dataclass(frozen=True)
class Config:
    """One run; every field is an option of the command line."""

    architecture: str = _option(
        "mlp", "both networks; those of dcgan work on 16x16 pixels", choices=tuple(ARCHITECTURES)
    )
    steps: int = _option(5000, "generator steps", type=_integer(1))
    batch_size: int = _option(64, "samples per step", type=_integer(1))
    lr: float = _option(5e-4, "learning rate of both networks at the start; it falls linearly to 0", type=_positive)
    seed: int = _option(0, "the same seed gives the same run, bit for bit, on the same machine", type=_integer(0))
    out: Path = _option(
        Path("runs/wgan-gp"), "folder for the results; those of an earlier run there are replaced", type=Path
    )
    backend: str = _option(
        os.environ.get("WGAN_KERNELS_BACKEND", "auto"),
        "what serves the library's functions, as wgan_kernels.use_backend takes it",
        type=_backend,
    )
    threads: int = _option(
        1,
        "threads of torch; networks this small gain little from more, and lose on a busy machine",
        type=_integer(1, 1024),
    )
    verify: int = _option(
        50, "every so many steps check the critic's step against plain PyTorch in float64; 0 never", type=_integer(0)
    )
    compare: bool = _option(
        True, "afterwards, time the same run on plain PyTorch", action=argparse.BooleanOptionalAction
    )


def parse(arguments: Sequence[str] | None = None) -> Config:
    """The configuration that a command line asks for; exits with a message that names the option when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="wgan-train",
        description="Trains a WGAN-GP on scikit-learn's handwritten digits, checking its steps against plain PyTorch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    for entry in fields(Config):
        parser.add_argument(f"--{entry.name.replace('_', '-')}", default=entry.default, **entry.metadata)
    return Config(**vars(parser.parse_args(arguments)))
