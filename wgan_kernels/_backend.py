"""Which implementation serves a call: 'auto', 'native' (the compiled library) or 'reference' (plain torch)."""

from __future__ import annotations

import os
from types import TracebackType

import torch
from torch import Tensor

from . import _checks, _extension

NAMES = ("auto", "native", "reference")

_current = "auto"


class use_backend:  # noqa: N801 - used like a function, as torch.set_grad_enabled is
    """Selects the back end for every call of the process, from now on or for the length of a `with` block.

    Args:
        name: 'auto' takes the compiled library where it serves the tensors' device and the reference elsewhere;
            'native' takes the compiled library or raises; 'reference' takes the plain-PyTorch specification.

    Raises:
        ValueError: for another name.
        RuntimeError: for 'native' when the compiled library is not there; says why.

    The environment variable WGAN_KERNELS_BACKEND sets the name a process starts with.
    """

    def __init__(self, name: str) -> None:
        global _current
        _checks.choice("name", name, NAMES)
        if name == "native":
            _extension.require()
        self._name = name
        self._before: str | None = _current
        self._entered: list[str] = []
        _current = name

    def __enter__(self) -> None:
        global _current
        # Entered at once, as with statements do, it goes back to what was set before it was made; entered later, or
        # again, to what is set then.
        at_once = self._before is not None and _current == self._name
        self._entered.append(self._before if at_once else _current)
        self._before, _current = None, self._name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        _current = self._entered.pop()


def is_transformed() -> bool:
    """Whether the call is being compiled, or differentiated or batched by torch.func."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def is_native(tensor: Tensor) -> bool:
    """Whether the compiled library serves a call on tensors like this one."""
    if (
        _current == "reference"
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    ):
        # A registered operator raises under torch.func, and loses the tangents of forward-mode differentiation; the
        # reference can be transformed like any torch function.
        return False
    if tensor.is_cpu and _extension.LOAD_ERROR is None:
        return True
    if _current == "native":
        _extension.require()
        raise RuntimeError(f"the 'native' back end serves CPU tensors in this build, got a tensor on {tensor.device}")
    return False


def _from_environment() -> None:
    name = os.environ.get("WGAN_KERNELS_BACKEND", "auto")
    if name not in NAMES:
        raise ValueError(f"WGAN_KERNELS_BACKEND must be one of {', '.join(NAMES)}, got {name!r}")
    global _current
    _current = name


_from_environment()
