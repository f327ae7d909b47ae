"""Optimisers for clipped critics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from . import _checks
from .ops.weight_clip import clip_weights_


class ClippedRMSprop(torch.optim.RMSprop):
    """RMSProp followed by weight clipping to [-clip, clip]: lines 6 and 7 of the WGAN algorithm.

    Args:
        params: parameters or parameter groups; a group may set its own `clip`.
        lr: step size.
        clip: the bound c > 0.
        settings: the other keyword arguments of `torch.optim.RMSprop`.

    Source: Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", Algorithm 1 (alpha = 5e-5, c = 0.01).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 5e-5,
        *,
        clip: float = 0.01,
        **settings: Any,
    ) -> None:
        _checks.positive("clip", clip)
        super().__init__(params, lr=lr, **settings)
        self.defaults["clip"] = clip
        for group in self.param_groups:
            group.setdefault("clip", clip)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # those of a torch.optim.RMSprop have no clip
            group.setdefault("clip", self.defaults["clip"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "clip" in param_group:
            _checks.positive("clip", param_group["clip"])
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        # The first RMSprop of a process wraps RMSprop.step with the step hooks; this step has its own wrapper already.
        step = torch.optim.RMSprop.step
        loss = (step.__wrapped__ if getattr(step, "hooked", False) else step)(self, closure)
        for group in self.param_groups:
            if group["params"]:
                clip_weights_(group["params"], group["clip"])
        return loss
