"""Updates as CUDA graphs. Not run on hardware yet."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from .objectives.base import Batch, Terms, Update

if TYPE_CHECKING:
    from .loop import Training

WARM_UP = 3


class GraphedUpdate:
    """One update, captured at first: draws are copied to where the graph reads them, and it is replayed."""

    def __init__(self, training: Training, update: Update, batch: Batch) -> None:
        self._training, self._update = training, update
        self._batch = Batch(*[None if each is None else each.clone() for each in batch])
        networks, optimizer = training.networks, training.optimizers[update.name]
        before = copy.deepcopy((networks.state_dict(), optimizer.state_dict()))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        networks.load_state_dict(before[0])
        self._restore(optimizer, before[1])
        optimizer.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._terms = self._run()

    def __call__(self, batch: Batch) -> Terms:
        for place, value in zip(self._batch, batch, strict=True):
            if place is not None:
                place.copy_(value)
        self._graph.replay()
        return self._terms

    def _run(self) -> Terms:
        terms = self._training.loss(self._update, self._batch)
        self._training.descend(self._update, terms["loss"])
        return terms

    @staticmethod
    def _restore(optimizer: torch.optim.Optimizer, state: dict) -> None:
        """Where the state is kept it stays: the first steps of all moments start from zeros."""
        fresh = not state["state"]
        for index, of_param in enumerate(optimizer.state.values()):
            for name, value in of_param.items():
                value.zero_() if fresh else value.copy_(state["state"][index][name])
