"""A progress bar over the pairs of points that are done."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from .ops import _progress


def shown(name: str) -> AbstractContextManager[None]:
    """A block whose long sweeps, and those of the backward passes of what it computes, have a bar each.

    Raises:
        ImportError: tqdm is not installed.
    """
    return _progress.listening(functools.partial(_bar, _bar_class(), name))


@functools.cache
def _bar_class() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error

    class Bar(tqdm):
        monitor_interval = 0  # no thread that watches the bar and stays behind

    return Bar


@contextmanager
def _bar(bar_class: Any, name: str, what: str, pairs: float) -> Iterator[Callable[[float], object]]:
    with bar_class(total=pairs, desc=f"{name} {what}".strip(), unit=" pairs", unit_scale=True) as bar:
        yield bar.update
