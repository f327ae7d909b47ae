"""How close each sample of a batch is to the others (Salimans et al. 2016, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def minibatch_discrimination(m: Tensor, begin: int, end: int) -> Tensor:
    """o_if = sum over j != i of exp(-sum_k |m_ifk - m_jfk|), in float32 or float64, for the rows i in [begin, end).

    m: (B, F, K) -> (end - begin, F) in the dtype of m; end -1 means to the last.
    """
    end = len(m) if end < 0 else end
    wide = m.to(torch.promote_types(m.dtype, torch.float32))
    closeness = torch.exp(-(wide[begin:end, None] - wide).abs().sum(-1))
    itself = torch.arange(begin, end, device=m.device)[:, None] == torch.arange(len(m), device=m.device)
    return closeness.masked_fill(itself[..., None], 0).sum(1).to(m.dtype)
