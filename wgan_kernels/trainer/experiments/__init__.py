"""Small experiments that put claims of the literature to the test; each is one file, and docs/experiments.md tells all.

`python -m wgan_kernels.trainer.experiments --list`.
"""

from __future__ import annotations

from . import (
    autoencoders,
    four_piles,
    generators,
    gradient_norms,
    kl_fits,
    loss_and_quality,
    optimal_discriminator,
    optimisers,
    overfitting,
    robustness,
    segments,
    surfaces,
    text,
    vanishing_gradient,
    xy_game,
)

_MODULES = (four_piles, xy_game, segments, optimal_discriminator, vanishing_gradient, kl_fits, gradient_norms, surfaces)
_MODULES += (loss_and_quality, overfitting, optimisers, generators, text)
_MODULES += (robustness, autoencoders)
EXPERIMENTS = {module.EXPERIMENT.name: module.EXPERIMENT for module in _MODULES}
