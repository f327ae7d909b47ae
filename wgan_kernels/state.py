"""What a call of a critic moves, so that it can be put back."""

from __future__ import annotations

from types import CellType
from typing import Any

import torch
from torch import Tensor, nn


class State:
    """Buffers and random numbers, of torch's CPU and of the samples' GPU, from before a critic was called.

    The buffers are those of the modules that are the critic, whose method it is, or that it is a closure over.
    """

    def __init__(self, critic: Any, x: Tensor) -> None:
        self._buffers = [
            (module, name, buffer, buffer.clone())
            for module in modules_of(critic)
            for name, buffer in module._buffers.items()
            if buffer is not None and not isinstance(buffer, nn.parameter.UninitializedTensorMixin)
        ]
        self._random = torch.get_rng_state()
        self._device = x.device if x.is_cuda and not torch.cuda.is_current_stream_capturing() else None
        if self._device is not None:
            self._device_random = torch.cuda.get_rng_state(self._device)

    def restore(self) -> None:
        with torch.no_grad():
            for module, name, buffer, value in self._buffers:
                module._buffers[name] = buffer.copy_(value)
        torch.set_rng_state(self._random)
        if self._device is not None:
            torch.cuda.set_rng_state(self._device_random, self._device)


def modules_of(critic: Any) -> list[nn.Module]:
    cells = [cell.cell_contents for cell in getattr(critic, "__closure__", None) or () if cell != CellType()]
    roots = [each for each in (critic, getattr(critic, "__self__", None), *cells) if isinstance(each, nn.Module)]
    return list(dict.fromkeys(module for root in roots for module in root.modules()))
