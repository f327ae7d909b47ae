"""Which implementation serves a call: 'auto', 'native' (the compiled library), 'triton' or 'reference'."""

from __future__ import annotations

import os
from types import TracebackType

import torch
from torch import Tensor

from . import _checks, _extension, _toolchain

NAMES = ("auto", "native", "triton", "reference")
_MAY_BE_NATIVE = ("auto", "native")

# The operators that 'auto' gives to Triton on CUDA devices that both serve. None: not measured on hardware yet.
TRITON_FIRST: frozenset[str] = frozenset()

# kMaxComponents in csrc/core/kernel_pairs.h, and kMostMlpLayersOnCuda in mlp_critic_loss.h.
_MOST_COMPONENTS_ON_CUDA = 32

_WHY_NO_TRITON = _toolchain.WHY_NOT
_INTERPRETED = _toolchain.INTERPRETED

# Any string at first: that of the environment, which the first call judges.
_current = os.environ.get("WGAN_KERNELS_BACKEND", "auto")


class use_backend:  # noqa: N801 - used like a function, as torch.set_grad_enabled is
    """Selects the back end for every call of the process, from now on or for the length of a `with` block.

    Args:
        name: 'auto' takes the compiled library where it serves the tensors' device, Triton on other CUDA devices where
            it is installed and finds what it needs to compile, and the reference elsewhere; 'native' takes the
            compiled library or raises; 'triton' takes the Triton kernels or raises; 'reference' takes the plain-PyTorch
            specification.

    Raises:
        ValueError: for another name.
        RuntimeError: for 'native' when the compiled library is not there, and for 'triton' when triton is not
            installed or finds no C compiler or Python.h; says why.

    The environment variable WGAN_KERNELS_BACKEND sets the name a process starts with; what is wrong with it is said by
    the first call. Triton serves CUDA tensors, and CPU tensors where its interpreter is on (TRITON_INTERPRET=1).
    """

    def __init__(self, name: str) -> None:
        global _current
        _checks.choice("name", name, NAMES)
        if name == "native":
            _extension.require()
        elif name == "triton":
            _require_triton()
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


def is_reference_only() -> bool:
    """A registered operator raises under torch.func, and loses the tangents of forward-mode differentiation; the
    reference can be transformed like any torch function."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def is_native(tensor: Tensor, operator: str = "", components: int = 1) -> bool:
    """Whether the compiled library serves a call of this operator on tensors like this one.

    components: how many kernel functions, or layers, it is given; where they are too many for CUDA, 'native' raises
    when called.
    """
    if (
        _current not in _MAY_BE_NATIVE
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    ):
        if _current not in NAMES:
            raise ValueError(f"WGAN_KERNELS_BACKEND must be one of {', '.join(NAMES)}, got {_current!r}")
        return False
    if tensor.is_cpu and _extension.LOAD_ERROR is None:
        return True
    if tensor.is_cuda and _extension.serves_cuda(tensor.device):
        if _current == "native":
            return True
        triton_first = _WHY_NO_TRITON is None and operator in TRITON_FIRST
        return components <= _MOST_COMPONENTS_ON_CUDA and not triton_first
    if _current == "native":
        _extension.require()
        why = f": {_extension.why_not_cuda(tensor.device)}" if tensor.is_cuda else " in this build"
        raise RuntimeError(f"the 'native' back end does not serve {tensor.device} tensors{why}")
    return False


def is_triton(tensor: Tensor) -> bool:
    """Whether Triton serves a call, on tensors like this one, that the compiled library does not."""
    if _current == "reference" or is_reference_only():
        return False
    if _current == "triton":
        _require_triton()
        if not (tensor.is_cpu if _INTERPRETED else tensor.is_cuda):
            served = "CPU tensors while TRITON_INTERPRET is set" if _INTERPRETED else "CUDA tensors"
            raise RuntimeError(f"the 'triton' back end serves {served}, got a tensor on {tensor.device}")
        return True
    return tensor.is_cuda and _WHY_NO_TRITON is None and not _INTERPRETED


def _require_triton() -> None:
    if _WHY_NO_TRITON is not None:
        raise RuntimeError(f"the 'triton' back end is not available: {_WHY_NO_TRITON}")
