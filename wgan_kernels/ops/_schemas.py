"""Every operator schema of the library, on one page, so that it stands without the compiled library.

Letters: B batch, D features (all non-batch dimensions of a sample taken together).
reduction: 0 none, 1 mean, 2 sum.
"""

from __future__ import annotations

import torch

LIBRARY = torch.library.Library("wgan_kernels", "FRAGMENT")

_PENALTY = "float target, bool one_sided, int reduction, float weight"

_SCHEMAS = [
    # The instruction set the CPU kernels run on.
    "cpu_instruction_set() -> str",
    # params: any shapes and dtypes, one device.
    "clip_weights_(Tensor(a!)[] params, float low, float high) -> ()",
    # real, fake: [B, D...]; mix: [B] -> [B, D...]
    "interpolate(Tensor real, Tensor fake, Tensor mix) -> Tensor",
    # grad: [B, D...] -> value: [] or [B]; norms: [B] float64
    f"norm_penalty(Tensor grad, {_PENALTY}) -> (Tensor value, Tensor norms)",
    # grad_value: [] or [B] -> grad_x: [B, D...]
    f"norm_penalty_backward(Tensor grad_value, Tensor grad, Tensor norms, {_PENALTY}) -> Tensor",
    # grad_grad_x: [B, D...] -> grad_grad_value: [] or [B]; grad_x: [B, D...]
    "norm_penalty_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor grad, Tensor norms, "
    f"{_PENALTY}) -> (Tensor grad_grad_value, Tensor grad_x)",
]

for _schema in _SCHEMAS:
    LIBRARY.define(_schema)
