"""The operators: their schemas, derivative formulas and public functions."""

from . import _schemas as _schemas
from . import group_norm as group_norm
from . import kernel_matvec as kernel_matvec
from . import mlp_critic_loss as mlp_critic_loss
