"""Weight clipping, w <- clip(w, low, high) (Arjovsky et al. 2017, Algorithm 1, line 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def clip_weights_(params: Sequence[Tensor], low: float, high: float) -> None:
    # No graph can hold a tensor made under inference mode: it may be clipped anywhere, though torch.no_grad() refuses.
    unrecorded = torch.no_grad if torch.compiler.is_compiling() else torch.inference_mode
    with unrecorded():
        for param in params:
            # Rounded to the tensor's dtype: to infinity where it does not reach as far as the bound.
            bounds = torch.tensor([low, high], dtype=torch.float64, device=param.device).to(param.dtype)
            param.clamp_(bounds[0], bounds[1])
