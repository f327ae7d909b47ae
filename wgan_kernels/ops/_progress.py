"""Long sweeps over pairs say how much of them is done, to whoever asked for it around the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

# (pass, pairs in all) -> what is open while the sweep runs, and takes the pairs done since it was told last.
Listener = Callable[[str, float], AbstractContextManager[Callable[[float], object]]]

# Of the thread, so that calls in others stay silent.
_listener: ContextVar[Listener | None] = ContextVar("wgan_kernels_progress", default=None)

current = _listener.get


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Sweeps in the block, and those of the backward passes of what it computes, report to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def sweep(what: str, pairs: float) -> AbstractContextManager[Callable[[float], object]]:
    """Open while a sweep runs; what: the pass, '', 'backward' or 'double backward'."""
    listener = current()
    return nullcontext(lambda done: None) if listener is None else listener(what, pairs)
