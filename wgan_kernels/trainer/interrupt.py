"""Ctrl-C and SIGTERM as a wish that is met between two steps, so that what is saved is never half a step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupt:
    """Within a `with` block, the first signal sets `requested`; a second one does what it did before."""

    def __init__(self) -> None:
        self.requested = False
        self.signal = signal.SIGINT  # the one that came

    def __enter__(self) -> Interrupt:
        self._previous: Any = {each: signal.signal(each, self._request) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.signal = True, signal.Signals(number)
        signal.signal(number, self._previous[number])
