"""Ctrl-C as a wish that is met between two steps, so that what is saved is never half a step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupt:
    """Within a `with` block, the first Ctrl-C sets `requested`; the second one raises KeyboardInterrupt as usual."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._previous: Any = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._previous)
