"""The operators: their schemas, derivative formulas and public functions."""

from . import _schemas as _schemas
from . import kernel_matvec as kernel_matvec  # no public function brings it in yet, and an operator needs its formulas
from . import mlp_critic_loss as mlp_critic_loss  # likewise
