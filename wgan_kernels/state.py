"""What a call of a critic moves, so that it can be put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class State:
    """Buffers and random numbers: after restore(), a critic that is called again does not notice the first call."""

    def __init__(self, critic: Any, x: Tensor) -> None:
        buffers = critic.buffers() if isinstance(critic, nn.Module) else ()
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]
        self._random = torch.get_rng_state()
        self._device = x.device if x.is_cuda and not torch.cuda.is_current_stream_capturing() else None
        if self._device is not None:
            self._device_random = torch.cuda.get_rng_state(self._device)

    def restore(self) -> None:
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        torch.set_rng_state(self._random)
        if self._device is not None:
            torch.cuda.set_rng_state(self._device_random, self._device)
