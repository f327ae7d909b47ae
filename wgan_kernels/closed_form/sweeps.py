"""The sweeps over a recorded pass: the gradient by the samples, then that of a function of it by the parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .recorder import Recorder
from .steps import Grads


class Pass:
    """One forward pass of a critic, ending in a slot of scores, whose sum is differentiated."""

    def __init__(self, recorder: Recorder, scores: Tensor, slot: int, seed: float) -> None:
        self.steps, self.results, self.dtypes = recorder.steps, recorder.results, recorder.dtypes
        self.deltas = _Slots(self.dtypes)
        self.deltas.add([slot], [torch.full_like(scores.detach(), seed)])
        self.tangents = _Slots(self.dtypes)
        self.reached: set[int] = set()  # slots that the scores depend on

    def needs_params(self) -> bool:
        return any([len(step.params()) > 0 for step in self.steps])

    def input_gradient(self) -> Tensor | None:
        """The adjoint sweep: seed times the gradient of the scores' sum by the samples."""
        for step, result in zip(reversed(self.steps), reversed(self.results)):
            if result in self.deltas:
                self.reached.add(result)
                delta, step.owns = self.deltas.pop(result)
                self.deltas.add(step.sources, step.adjoint(delta), step.fresh)
        return self.deltas.pop(0)[0]

    def start_tangents(self, v: Tensor) -> None:
        """v: a constant of the shape of the samples, which nobody else need hold."""
        self.tangents.add([0], [v])

    def param_grads(self) -> Grads:
        """The gradient of <v, input_gradient()> by each parameter."""
        grads = _Sums()
        curvatures = self._tangent_sweep(grads)
        self._curvature_sweep(curvatures, grads)
        return grads.pairs()

    def _tangent_sweep(self, grads: _Sums) -> list[Sequence[Tensor | None] | None]:
        tangents, last_use = self.tangents, {}
        for at, (step, result) in enumerate(zip(self.steps, self.results)):
            if result in self.reached:
                last_use.update(dict.fromkeys(step.sources, at))
        curvatures: list[Sequence[Tensor | None] | None] = []
        for at, (step, result) in enumerate(zip(self.steps, self.results)):
            if result not in self.reached:
                curvatures.append(None)
                continue
            last = [last_use[source] == at for source in step.sources]
            taken = [tangents.pop(source) if pop else tangents.get(source) for source, pop in zip(step.sources, last)]
            along, (step.owns, *_) = [t for t, _ in taken], [owned for _, owned in taken]
            if all([t is None for t in along]):
                curvatures.append(None)
                continue
            out, found, curvature = step.tangent(along, result in last_use)
            grads.add(found)
            curvatures.append(curvature)
            tangents.add([result], [out], step.fresh)
        return curvatures

    def _curvature_sweep(self, curvatures: list[Sequence[Tensor | None] | None], grads: _Sums) -> None:
        """What the parameters below a layer with curvature owe to it."""
        lambdas = _Slots(self.dtypes)
        zeros: set[int] = set()  # slots with a lambda of zero
        for step, result, curvature in zip(reversed(self.steps), reversed(self.results), reversed(curvatures)):
            if curvature is None:
                continue
            if result in lambdas:
                lam, step.owns = lambdas.pop(result)
                pulled, found = step.pull(lam, any([source != 0 for source in step.sources]))
                grads.add(found)
                lambdas.add(step.sources, pulled, step.fresh)
            elif result in zeros:
                grads.add_zeros(step.zero_grads())
            lambdas.add(step.sources, curvature)
            if step.defines_zero or result in zeros:
                zeros.update(step.sources)


class _Slots:
    """Tensors by slot, each with whether nobody else holds its memory."""

    def __init__(self, dtypes: Sequence[torch.dtype]) -> None:
        self._dtypes = dtypes
        self._held: dict[int, tuple[Tensor, bool]] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._held

    def add(self, slots: Sequence[int], values: Sequence[Tensor | None], fresh: bool = False) -> None:
        for slot, value in zip(slots, values):
            if value is not None:
                value = value.to(self._dtypes[slot])
                self._held[slot] = (self._held[slot][0] + value, True) if slot in self._held else (value, fresh)

    def get(self, slot: int) -> tuple[Tensor | None, bool]:
        """For reading."""
        return self._held.get(slot, (None, False))[0], False

    def pop(self, slot: int) -> tuple[Tensor | None, bool]:
        return self._held.pop(slot, (None, False))


class _Sums:
    """Gradients by parameter, added up in float32 at least."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, grads: Grads) -> None:
        for param, grad in grads:
            grad = grad.to(torch.promote_types(param.dtype, torch.float32))
            if id(param) in self._sums:
                grad = self._sums[id(param)][1] + grad
            self._sums[id(param)] = param, grad

    def add_zeros(self, grads: Grads) -> None:
        self.add([(param, grad) for param, grad in grads if id(param) not in self._sums])

    def pairs(self) -> Grads:
        return list(self._sums.values())
