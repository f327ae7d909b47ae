"""Updates as CUDA graphs. Not run on hardware yet."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .objectives.base import Batch, Terms

WARM_UP = 3


class GraphedUpdate:
    """One update, captured and replayed; its first steps run as ever, on a stream of their own, as a capture asks."""

    def __init__(self, run: Callable[[Batch], Terms]) -> None:
        self._run, self._stream, self._warm = run, torch.cuda.Stream(), 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Terms:
        if self._warm < WARM_UP:
            self._warm += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                terms = self._run(batch)
            torch.cuda.current_stream().wait_stream(self._stream)
            return terms
        if self._graph is None:
            self._graph, self._batch = torch.cuda.CUDAGraph(), batch.each(torch.clone)
            with torch.cuda.graph(self._graph):
                self._terms = self._run(self._batch)
        for place, value in zip(self._batch, batch, strict=True):
            if place is not None:
                place.copy_(value)  # to where the graph reads
        self._graph.replay()
        return self._terms
