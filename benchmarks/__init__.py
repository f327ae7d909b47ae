"""Times of the kernels; what was measured on a GPU is kept under its name."""

from __future__ import annotations

import re
from pathlib import Path


def results_of(gpu: str) -> Path:
    """The folder for what was measured on a GPU of this name."""
    return Path(__file__).parent / "results" / re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
