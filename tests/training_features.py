"""Ways in which people train, each tried with each route of gradient_penalty.

`python tests/training_features.py` prints the README's table of what it finds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import samples
from eager import eager_penalty, mixed
from tolerances import EAGER_FLOAT64, FACTOR, largest
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wgan_kernels import gradient_penalty

ROUTES = ("auto", "closed_form", "functional", "double_backward")
DOUBLE = torch.float64
REAL, FAKE = samples((8, 5), DOUBLE, seed=1), samples((8, 5), DOUBLE, seed=2)
MIX = torch.linspace(0.1, 0.9, 8, dtype=DOUBLE)


def critic(dtype: torch.dtype = DOUBLE) -> nn.Sequential:
    torch.manual_seed(4)
    layers = [nn.Linear(5, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 1)]
    return nn.Sequential(*layers).to(dtype)


def loss(
    critic: Callable[[Tensor], Tensor], part: slice = slice(None), dtype: torch.dtype = DOUBLE, **settings: Any
) -> Tensor:
    """The whole loss of a WGAN-GP critic on a part of the batch."""
    real, fake, mix = (x[part].to(dtype) for x in (REAL, FAKE, MIX))
    value = critic(fake).to(dtype).mean() - critic(real).to(dtype).mean()
    return value + gradient_penalty(critic, real, fake, mix=mix, **settings)


def by_hand(dtype: torch.dtype = DOUBLE) -> list[Tensor]:
    """The parameter gradients by the eager function that people write."""
    model = critic(dtype)
    real, fake, mix = (x.to(dtype) for x in (REAL, FAKE, MIX))
    penalty, _ = eager_penalty(model, mixed(real, fake, mix))
    (model(fake).mean() - model(real).mean() + penalty).backward()
    return gradients(model)


def gradients(model: nn.Module) -> list[Tensor]:
    return [param.grad for param in model.parameters()]


def check(model: nn.Module, expected: list[Tensor] | None = None) -> None:
    for ours, theirs in zip(gradients(model), expected or by_hand(), strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64 * max(1, largest(theirs))


def one_backward(route: str) -> None:
    model = critic()
    loss(model, route=route).backward()
    check(model)


def gradient_accumulation(route: str) -> None:
    model = critic()
    for part in (slice(0, 4), slice(4, 8)):
        (loss(model, part, route=route) / 2).backward()
    check(model)


def activation_checkpointing(route: str) -> None:
    model = critic()

    def checkpointed(x: Tensor) -> Tensor:
        return model[4:](checkpoint(model[:4], x, use_reentrant=False))

    loss(checkpointed, route=route).backward()
    check(model)


def functional_call(route: str) -> None:
    model = critic()
    params = {name: param.detach().clone().requires_grad_() for name, param in model.named_parameters()}
    loss(lambda x: torch.func.functional_call(model, params, (x,)), route=route).backward()
    for ours, theirs in zip(params.values(), by_hand(), strict=True):
        assert largest(ours.grad - theirs) <= EAGER_FLOAT64


def torch_func_grad(route: str) -> None:
    model = critic()
    params = {name: param.detach() for name, param in model.named_parameters()}

    def of_params(params: dict[str, Tensor]) -> Tensor:
        return loss(lambda x: torch.func.functional_call(model, params, (x,)), route=route)

    for ours, theirs in zip(torch.func.grad(of_params)(params).values(), by_hand(), strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64


def compiled_step(route: str) -> None:
    model = critic()
    torch.compile(lambda: loss(model, route=route), backend="aot_eager", fullgraph=True)().backward()
    check(model)


def compiled_critic(route: str) -> None:
    """Compiled by a wrapper, in place, and in parts."""
    wrapped, in_place, in_parts = critic(), critic(), critic()
    in_place.compile(backend="aot_eager")
    in_parts[2] = torch.compile(in_parts[2], backend="aot_eager")
    for model, called in ((wrapped, torch.compile(wrapped, backend="aot_eager")), (in_place,) * 2, (in_parts,) * 2):
        called(REAL)  # compiled before the penalty meets it
        gradient_penalty(called, REAL, FAKE, mix=MIX, route=route).backward()
        assert model is not wrapped or called(REAL).requires_grad
        plain = critic()
        gradient_penalty(plain, REAL, FAKE, mix=MIX, route="double_backward").backward()
        for ours, theirs in zip(gradients(model), gradients(plain), strict=True):
            assert (ours is None) == (theirs is None) and (ours is None or largest(ours - theirs) <= EAGER_FLOAT64)


def autocast_bfloat16(route: str) -> None:
    """The gradients are as good as those of the eager function under autocast."""
    model = critic(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        total = loss(model, route=route, dtype=torch.float32)
    total.backward()
    with torch.autocast("cpu", torch.bfloat16):
        eager = by_hand(torch.float32)
    found = gradients(model), eager
    for ours, theirs, exact in zip(*found, by_hand(), strict=True):
        floor = 4 * torch.finfo(torch.bfloat16).eps * max(largest(exact), 0.1)
        assert largest(ours - exact) <= FACTOR * largest(theirs - exact) + floor


def float16_and_grad_scaler(route: str) -> None:
    """The penalty alone: a mean of WGAN scores has a last bias whose gradient, times 65536, is no float16."""
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    # Elsewhere than in closed form the gradients pass through float16 with the scale on: they must be below 1.
    weight = 10.0 if route in ("auto", "closed_form") else 1.0
    found = []
    for dtype in (torch.float16, DOUBLE):
        model = critic(torch.float32 if dtype == torch.float16 else dtype)
        points = [x.to(model[0].weight.dtype) for x in (REAL, FAKE, MIX)]
        with torch.autocast("cpu", torch.float16, enabled=dtype == torch.float16):
            penalty = gradient_penalty(model, *points[:2], mix=points[2], weight=weight, route=route, scaler=scaler)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        scaler.scale(penalty).backward()
        scaler.unscale_(optimizer)
        found.append(gradients(model))
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 65536.0, "a gradient overflowed"
    for half, exact in zip(*found, strict=True):
        if exact is not None:
            assert largest(half - exact) <= 0.02 * max(1, largest(exact))


def second_derivative(route: str) -> None:
    """The gradient of a gradient through the penalty, which the closed form refuses to get wrong."""
    model = critic()
    first = torch.autograd.grad(loss(model, route=route), model[0].weight, create_graph=True)[0]
    torch.autograd.grad(first.square().sum(), model[2].weight)


def derivative_by_samples(route: str) -> None:
    fake = FAKE.clone().requires_grad_()
    gradient_penalty(critic(), REAL, fake, mix=MIX, route=route, detach=False).backward()
    ours, fake.grad = fake.grad, None
    eager_penalty(critic(), mixed(REAL, fake, MIX))[0].backward()
    assert largest(ours - fake.grad) <= EAGER_FLOAT64 and largest(ours) > 0


def one_penalty_for_each_sample(route: str) -> None:
    model = critic()
    each = gradient_penalty(model, REAL, FAKE, mix=MIX, route=route, reduction="none")
    assert each.shape == (8,)
    (each.mean() + model(FAKE).mean() - model(REAL).mean()).backward()
    check(model)


def in_processes(feature: str) -> Callable[[str], None]:
    """Run by two processes (tests/distributed_features.py)."""

    def run(route: str) -> None:
        here = Path(__file__).parent
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}:{here.parent}"}
        done = subprocess.run(
            [*command, str(here / "distributed_features.py"), feature, route],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run


FEATURES: dict[str, Callable[[str], None]] = {
    "one backward with the critic's loss": one_backward,
    "gradient accumulation": gradient_accumulation,
    "activation checkpointing": activation_checkpointing,
    "torch.func.functional_call": functional_call,
    "torch.func.grad by the parameters": torch_func_grad,
    "torch.compile of the step, fullgraph": compiled_step,
    "a critic that is compiled itself": compiled_critic,
    "autocast bfloat16": autocast_bfloat16,
    "autocast float16 with GradScaler": float16_and_grad_scaler,
    "DistributedDataParallel": in_processes("ddp"),
    "FSDP2 around the step": in_processes("fsdp"),
    "a second derivative by the parameters": second_derivative,
    "a derivative by the samples, detach=False": derivative_by_samples,
    "reduction='none'": one_penalty_for_each_sample,
}
# What a route refuses, with an error that says so.
REFUSED = {
    ("activation checkpointing", "functional"),
    ("torch.func.grad by the parameters", "closed_form"),
    ("torch.func.grad by the parameters", "double_backward"),
    ("torch.compile of the step, fullgraph", "closed_form"),
    ("torch.compile of the step, fullgraph", "double_backward"),
    ("a second derivative by the parameters", "auto"),
    ("a second derivative by the parameters", "closed_form"),
    ("a derivative by the samples, detach=False", "closed_form"),
    ("reduction='none'", "closed_form"),
}


REFUSALS = (ValueError, NotImplementedError, RuntimeError, torch._dynamo.exc.TorchDynamoException)


def table() -> list[str]:
    """The README's table, found by running everything."""
    lines = [f"| torch {torch.__version__.partition('+')[0]} | {' | '.join(ROUTES)} |", "|---|" + "---|" * len(ROUTES)]
    for name, feature in FEATURES.items():
        cells = []
        for route in ROUTES:
            torch._dynamo.reset()
            try:
                feature(route)
            except REFUSALS:
                cells.append("refused")
            else:
                cells.append("yes")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
