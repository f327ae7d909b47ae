"""What the operators on Triton launch: every kernel, with the arguments and settings of every dtype and pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton

from wgan_kernels._triton import (
    _channel_sums,
    _layer_products,
    bias_leaky_relu,
    group_norm,
    interpolate,
    kernel_matvec,
    kernel_sums,
    minibatch_discrimination,
    minibatch_stddev,
    mlp_critic_loss,
    norm_penalty,
    rmsprop_clip,
    weight_clip,
)

DTYPES = {torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
          torch.int64: "i64", torch.int32: "i32"}  # fmt: skip
_FLOATING = [dtype for dtype in DTYPES if dtype.is_floating_point]


@dataclass(frozen=True)
class Launch:
    name: str
    family: str  # its name without the configuration
    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, int]

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices of float32, or goes over pairs of points by products of these."""
        if self.kernel in (_layer_products.layer_kernel.fn, _layer_products.weight_gradient_kernel.fn):
            return self.arguments["z"].dtype == torch.float32
        return self.arguments.get("EXACT") is False

    @property
    def adds_up(self) -> bool:
        """Whether its results depend on the order in which it adds."""
        return "STAGES" in self.arguments

    @property
    def rounds_every_step(self) -> bool:
        """Whether its results are those of the reference to a unit in the last place."""
        return self.kernel is interpolate.interpolate_kernel.fn


class Recorder:
    """Stands for a kernel, tuned or not: what it is launched with is written down."""

    def __init__(self, kernel: Any, case: str, seen: dict[str, Launch]) -> None:
        tuned = hasattr(kernel, "configs")
        self.configs = kernel.configs if tuned else [triton.Config({}, num_warps=4, num_stages=3)]
        self.kernel, self.case, self.seen = kernel.fn if tuned else kernel, case, seen

    def __getitem__(self, grid: Any) -> Any:
        return self.launch

    def launch(self, *values: Any, **named: Any) -> None:
        for config in self.configs:
            arguments = {**dict(zip(self.kernel.arg_names, values)), **named, **config.kwargs}
            options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
            if config.maxnreg is not None:
                options["maxnreg"] = config.maxnreg
            what = [self.kernel.__name__, self.case]
            if "EXACT" in arguments:
                what.append("differences" if arguments["EXACT"] else arguments["PRECISION"])
            elif "PRECISION" in arguments:
                what += [arguments["PRECISION"]]
                what += [f"{key}={arguments[key]}" for key in ("BENDS", "TRANSPOSED", "TILE") if key in arguments]
            configuration = [f"{key}={value}" for key, value in {**config.kwargs, **options}.items()]
            name = " ".join(what + configuration)
            self.seen.setdefault(name, Launch(name, " ".join(what), self.kernel, arguments, options))


@contextmanager
def recorded(case: str, seen: dict[str, Launch]) -> Iterator[None]:
    modules = [bias_leaky_relu, group_norm, interpolate, kernel_matvec, kernel_sums, minibatch_discrimination]
    modules += [minibatch_stddev, mlp_critic_loss, norm_penalty, _channel_sums, _layer_products]
    wrap, clip = norm_penalty.wrap_triton, weight_clip.clip_weights_kernel
    for module in modules:
        module.wrap_triton = lambda kernel: Recorder(kernel, case, seen)
    weight_clip.clip_weights_kernel = Recorder(clip, case, seen)
    steps = {name: getattr(rmsprop_clip, name) for name in ("rmsprop_clip_kernel", "rmsprop_clip_one_kernel")}
    table = rmsprop_clip._table
    for name, kernel in steps.items():
        setattr(rmsprop_clip, name, Recorder(kernel, case, seen))
    if "in a graph" in case:
        rmsprop_clip._table = lambda *_: None
    try:
        yield
    finally:
        for module in modules:
            module.wrap_triton = wrap
        weight_clip.clip_weights_kernel = clip
        rmsprop_clip._table = table
        for name, kernel in steps.items():
            setattr(rmsprop_clip, name, kernel)


# Codes of kinds and shapes of mixtures, and dtypes and passes of which kernels are looked at.
_ALL = ("value", "gradient", "tangent", "k", "k_tt")
_MIXTURES = {
    "": ([0, 1], [1.0, 1.0], dict.fromkeys(_FLOATING, _ALL)),
    "of both": (
        [2, 4, 5, 7],
        [0.5, 1.0, 1.0, 3.0],
        {torch.float64: ("gradient", "tangent", "k_tt"), torch.float32: ("gradient", "k")},
    ),
    "of products": ([7], [3.0], {torch.float32: ("gradient", "tangent")}),
    "with a cusp": ([3, 6], [1.0, 1.0], {torch.float32: ("gradient", "k")}),
}


def _pair_calls(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """The sums alone, with their gradients, and the derivatives of these; products."""
    x, y = torch.zeros(300, 64, dtype=dtype), torch.zeros(200, 64, dtype=dtype)
    v = torch.zeros(200, 32, dtype=torch.promote_types(dtype, torch.float32))
    for name, (kinds, shapes, passes) in _MIXTURES.items():
        C, rows = len(kinds), (0, -1, True)
        weights, params = torch.ones(3, C, dtype=torch.float64), torch.ones(C, 1, dtype=torch.float64)
        for allow_tf32 in (False, True) if dtype == torch.float32 and not name else (False,):
            known = (params, kinds, shapes, allow_tf32)
            calls = {
                "value": ("kernel_sums", (x, y, weights, *known, *rows, 0)),
                "gradient": ("kernel_sums", (x, y, weights, *known, *rows, 7)),
                "tangent": ("kernel_sums_double_backward", (x, y, params, weights, x, y, *known, *rows, 7)),
                "k": ("kernel_matvec", (x, y, v, weights[0], *known, 0, *rows)),
            }
            if dtype == torch.float64:
                calls["k_tt"] = ("kernel_matvec", (x, y, v, weights[0], *known, 5, *rows))
            for case, call in calls.items():
                if case in passes.get(dtype, ()):
                    yield f"{case} {name}".strip(), *call


def _steps(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """The step as it is by default, with all there is to it, and the clip alone."""
    x, number, stats = [torch.zeros(5000, dtype=dtype)], torch.ones(()), torch.zeros(2, dtype=torch.int64)
    plain = (0.1, 0.9, 1e-8, 0.0, 0.0, False, -1.0, 1.0)
    everything = (0.1, 0.9, 1e-8, 0.1, 0.9, True, -1.0, 1.0)
    nothing = (None, None, None, None)
    yield "plain", "rmsprop_clip_", (x, x, x, [], [], [], *nothing, *plain)
    yield "plain in a graph", "rmsprop_clip_", (x, x, x, [], [], [], *nothing, *plain)
    yield "all", "rmsprop_clip_", (x, x, x, x, x, [], stats, number, number, number, *everything)
    yield "clip alone", "rmsprop_clip_", (x, [], [], [], [], [], stats, None, None, None, *plain)


def _rectified(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Rows of channels and of samples; with bounds and without."""
    wide = torch.promote_types(dtype, torch.float32)
    for case, shape, clamp in (("of rows", (6, 16, 256), 1.0), ("of columns", (6, 1024), None)):
        x, bias = torch.zeros(shape, dtype=dtype), torch.zeros(shape[1], dtype=wide)
        settings = 0.2, 1.0, clamp
        yield case, "bias_leaky_relu", (x, bias, *settings)
        yield f"{case}, first", "bias_leaky_relu_backward", (x, x, *settings, True)
        yield f"{case}, second", "bias_leaky_relu_double_backward", (x, bias, x, *settings)


def _of_minibatches(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    m, o = torch.zeros(40, 3, 16, dtype=dtype), torch.zeros(40, 3, dtype=dtype)
    yield "value", "minibatch_discrimination", (m, 0, -1)
    yield "backward", "minibatch_discrimination_backward", (o, m, 0, -1)
    yield "double backward", "minibatch_discrimination_double_backward", (m, o, m, 0, -1)
    x, value = torch.zeros(8, 3, 40, dtype=dtype), torch.zeros(2, 1, dtype=dtype)
    yield "value", "minibatch_stddev", (x, 4, 1)
    yield "backward", "minibatch_stddev_backward", (value, x, 4, 1)
    yield "double backward", "minibatch_stddev_double_backward", (x, value, x, 4, 1)


def _critics(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """A small critic, and one that fills a GPU with large tiles; with TF32 and without."""
    before = torch.backends.cuda.matmul.fp32_precision
    for B, sizes in ((40, (16, 48, 32)), (2048, (512, 1024, 1024))):
        x = torch.zeros(B, sizes[0], dtype=dtype)
        weights = [torch.zeros(out, n, dtype=dtype) for n, out in itertools.pairwise(sizes)]
        layers = weights, [weight[:, 0].contiguous() for weight in weights], [0.2, 1.0]
        for torch.backends.cuda.matmul.fp32_precision in ("ieee", "tf32"):
            yield "", "mlp_critic_loss", (x, x, x, *layers, 1.0, True, 1, 10.0, True)
    torch.backends.cuda.matmul.fp32_precision = before


def _norms(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """A layer, whose channels lie side by side, and groups of channels, with parameters and without."""
    wide = torch.promote_types(dtype, torch.float32)
    for case, shape, groups, layer_dims in (("layer", (40, 48), 1, 1), ("groups", (3, 48, 16), 4, 0)):
        x, w, known = torch.zeros(shape, dtype=dtype), torch.zeros(48, dtype=wide), torch.zeros(120, dtype=wide)
        known = known[: x.shape[0] * groups].view(-1, groups)
        yield case, "group_norm", (x, w, w, groups, layer_dims, 1e-5)
        yield case, "group_norm_backward", (x, x, w, w, known, known, groups, layer_dims, True)
        yield (
            f"second {case}",
            "group_norm_double_backward",
            (x, w, w, x, x, w, known, known, groups, layer_dims, True, True),
        )


def _calls(dtype: torch.dtype) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """A word on the case, the operator, and its arguments."""
    x, mix = torch.zeros(6, 5000, dtype=dtype), torch.zeros(6, dtype=torch.promote_types(dtype, torch.float32))
    settings, norms = (1.0, True, 1, 10.0), torch.ones(6, dtype=torch.float64)
    yield "", "clip_weights_", ([x], -1.0, 1.0)
    yield from _steps(dtype)
    yield from _rectified(dtype)
    yield from _norms(dtype)
    yield "", "interpolate", (x, x, mix)
    yield from _of_minibatches(dtype)
    if dtype in (torch.float64, torch.float32):
        yield from _critics(dtype)
    yield "mean", "norm_penalty", (x, *settings)
    yield "mean", "norm_penalty_backward", (mix[0], x, norms, *settings)
    yield "mean", "norm_penalty_double_backward", (x, mix[0], x, norms, *settings)
    yield from _pair_calls(dtype)


def launches() -> list[Launch]:
    seen: dict[str, Launch] = {}
    for dtype in _FLOATING:
        for case, operator, arguments in _calls(dtype):
            with recorded(" ".join(filter(None, [DTYPES[dtype], case])), seen):
                getattr(torch.ops.wgan_kernels, f"{operator}_triton").default(*arguments)
    return list(seen.values())
