"""What a call of a critic moves, so that it can be put back."""

from __future__ import annotations

import warnings
import weakref
from types import CellType
from typing import Any

import torch
from torch import Tensor, nn

# Whether a module's call moved a buffer, by the buffer's name and by whether the module was in training mode.
_moved: weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, bool], bool]] = weakref.WeakKeyDictionary()


class State:
    """Buffers and random numbers, of torch's CPU and of the samples' GPU, from before a critic was called.

    The buffers are those of the modules that are the critic, whose method it is, or that it is a closure over. Of those
    that an earlier call in the same mode left alone no copies are made.
    """

    def __init__(self, critic: Any, x: Tensor, given: Any = ()) -> None:
        """given: what the critic is called with beside x."""
        tensors = tensors_in([given, [each for each in _enclosed(critic) if isinstance(each, Tensor)]])
        self._given = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]
        self._copies: list[tuple[nn.Module, str, Tensor, Tensor]] = []
        self._constants: list[tuple[nn.Module, str, Tensor, int]] = []
        for module in modules_of(critic):
            known = _moved.get(module) if module._buffers else None
            for name, buffer in module._buffers.items():
                if buffer is None or isinstance(buffer, nn.parameter.UninitializedTensorMixin):
                    continue
                if known is None or known.get((name, module.training), True):
                    self._copies.append((module, name, buffer, buffer.clone()))
                else:
                    self._constants.append((module, name, buffer, buffer._version))
        self._random = torch.get_rng_state()
        self._device = x.device if x.is_cuda and not torch.cuda.is_current_stream_capturing() else None
        if self._device is not None:
            self._device_random = torch.cuda.get_rng_state(self._device)

    def learn(self) -> None:
        """Finds out, once for each buffer, whether the call that was made wrote into it."""
        for module, name, buffer, value in self._copies:
            known, key = _moved.setdefault(module, {}), (name, module.training)
            # Where values cannot be read, or not without waiting for a GPU, it is copied every time.
            if key not in known and type(buffer) is Tensor and buffer.is_cpu and not buffer.is_inference():
                known[key] = not torch.equal(buffer, value)

    def is_lost(self) -> bool:
        """Whether the critic wrote into what it was given, of which there is no copy."""
        return any([tensor._version != version for tensor, version in self._given])

    def restore(self) -> None:
        with torch.no_grad():
            for module, name, buffer, value in self._copies:
                module._buffers[name] = buffer.copy_(value)
        for module, name, buffer, version in self._constants:
            module._buffers[name] = buffer
            if buffer._version != version:
                warnings.warn(
                    f"critic wrote into its buffer {name!r}, which earlier calls left alone, and then needed its whole "
                    "graph: it was called twice, and wrote twice. Use route='double_backward' for this critic",
                    UserWarning,
                    stacklevel=5,
                )
        torch.set_rng_state(self._random)
        if self._device is not None:
            torch.cuda.set_rng_state(self._device_random, self._device)


def _enclosed(critic: Any) -> list[Any]:
    cells = getattr(critic, "__closure__", None) or ()
    return [cell.cell_contents for cell in cells if cell != CellType()]


def modules_of(critic: Any) -> list[nn.Module]:
    candidates = (critic, getattr(critic, "__self__", None), *_enclosed(critic))
    roots = [each for each in candidates if isinstance(each, nn.Module)]
    return list(dict.fromkeys(module for root in roots for module in root.modules()))


def tensors_in(value: Any) -> list[Tensor]:
    """Those in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors_in(part)] if isinstance(value, (tuple, list)) else []
