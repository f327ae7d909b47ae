"""Every operator, dtype and pass on a GPU: the tests of the CPU kernels, on functions that go through the GPU."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import DTYPES, SHAPES, assert_same_bits, lay_out, samples
from tolerances import assert_as_good_as_torch
from torch import Tensor

import wgan_kernels as wk
from wgan_kernels.ops._weighted_kernel_sum import weighted_kernel_sum
from wgan_kernels.ops.bias_leaky_relu import bias_leaky_relu
from wgan_kernels.ops.group_norm import group_norm, layer_norm
from wgan_kernels.ops.kernel_matvec import kernel_matvec
from wgan_kernels.ops.kernel_sums import kernel_sums
from wgan_kernels.ops.minibatch_discrimination import minibatch_discrimination
from wgan_kernels.ops.minibatch_stddev import minibatch_stddev
from wgan_kernels.ops.mlp_critic_loss import mlp_critic_loss

if os.environ.get("WGAN_KERNELS_TEST_GPU") != "1":  # where they are asked for, none may be left out quietly
    pytest.importorskip("hypothesis", reason="the tests that are used here need hypothesis")

import test_bias_leaky_relu as of_bias_leaky_relu  # noqa: E402
import test_group_norm as of_group_norm  # noqa: E402
import test_interpolate as of_interpolate  # noqa: E402
import test_kernel_matvec as of_kernel_matvec  # noqa: E402
import test_kernel_sums as of_kernel_sums  # noqa: E402
import test_minibatch_discrimination as of_minibatch_discrimination  # noqa: E402
import test_minibatch_stddev as of_minibatch_stddev  # noqa: E402
import test_mlp_critic_loss as of_mlp_critic_loss  # noqa: E402
import test_norm_penalty as of_norm_penalty  # noqa: E402
import test_rmsprop_clip as of_rmsprop_clip  # noqa: E402
import test_weight_clip as of_weight_clip  # noqa: E402

# As the tensors lie on the GPU; those that repeat memory are made contiguous on the way there.
LAYOUTS = ("contiguous", "offset", "columns", "rows", "transposed", "permuted")


def moved(value: Any, device: str, layout: str = "contiguous") -> Any:
    if isinstance(value, (tuple, list)):
        each = [moved(item, device, layout) for item in value]
        return type(value)(*each) if hasattr(value, "_fields") else type(value)(each)
    if not isinstance(value, Tensor):
        return value
    value = value.to(device)
    return lay_out(value, layout) if layout != "contiguous" and value.dim() > 0 else value


def on_gpu(function: Callable[..., Any], layout: str = "contiguous") -> Callable[..., Any]:
    """The function on copies of its tensors on the GPU; differentiable, and its results are on the CPU again."""

    def call(*args: Any, **settings: Any) -> Any:
        settings = {name: moved(value, "cuda") for name, value in settings.items()}
        # The points and samples come first; weights and parameters are small and stay as they are.
        args = [moved(value, "cuda", layout if at < 2 else "contiguous") for at, value in enumerate(args)]
        return moved(function(*args, **settings), "cpu")

    return call


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_clip(back_end: str, dtype: torch.dtype, layout: str) -> None:
    for shape in [*SHAPES, (2, 33_003)]:
        for low, high in of_weight_clip.BOUNDS:
            values = of_weight_clip.weights(shape, dtype)
            ours = lay_out(values.cuda(), layout)
            around = ours.untyped_storage().cpu()
            wk.clip_weights_([ours], low, high)
            assert_same_bits(ours.cpu(), values.clamp(low, high), f"{shape} to [{low}, {high}]")
            memory = torch.empty(0, dtype=dtype).set_(around)
            memory.as_strided(ours.shape, ours.stride(), ours.storage_offset()).copy_(ours.cpu())
            assert_same_bits(torch.empty(0, dtype=dtype).set_(ours.untyped_storage().cpu()), memory, "around it")


def test_weight_clip_of_very_many_tensors(back_end: str) -> None:
    """More than fit into the arguments of one launch."""
    values = [of_weight_clip.weights((1 + 37 * k % 301,), DTYPES[k % 4]) for k in range(1500)]
    params = [value.cuda() for value in values]
    wk.clip_weights_(params, -0.2, 0.3)
    for k, (param, value) in enumerate(zip(params, values, strict=True)):
        assert_same_bits(param.cpu(), value.clamp(-0.2, 0.3), f"tensor {k}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rmsprop_clip(back_end: str, dtype: torch.dtype, layout: str) -> None:
    for settings in of_rmsprop_clip.SETTINGS:
        of_rmsprop_clip.assert_is_rmsprop(dtype, settings, [*SHAPES, (), (2, 33_003)], layout, device="cuda")


def test_rmsprop_clip_of_very_many_tensors(back_end: str) -> None:
    shapes = [(1 + 37 * k % 301,) for k in range(500)]
    of_rmsprop_clip.assert_is_rmsprop(torch.float32, of_rmsprop_clip.SETTINGS[3], shapes, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_stats_and_numbers_on_the_device(back_end: str, dtype: torch.dtype) -> None:
    """As on the CPU, whose steps stay there or go along."""
    for move_steps in (True, False):
        here, there = of_rmsprop_clip.arguments(dtype, [(5000,), (7, 3), ()]), {}
        here["found_inf"] = None
        for name, value in here.items():
            if name == "steps" and not move_steps:
                there[name] = [step.clone() for step in value]
            else:
                there[name] = [x.cuda() for x in value] if isinstance(value, list) else moved(value, "cuda")
        for a, b in zip(of_rmsprop_clip.call(there), of_rmsprop_clip.call(here), strict=True):
            assert torch.allclose(a.cpu().double(), b.double(), rtol=2 * torch.finfo(dtype).eps, atol=0), dtype


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_leaky_relu(back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(x: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        at_layout = on_gpu(lambda x: bias_leaky_relu(x, moved(bias, "cuda"), *settings), layout)
        return at_layout(x)

    monkeypatch.setattr(of_bias_leaky_relu, "bias_leaky_relu", call)
    shapes = [*of_bias_leaky_relu.SHAPES, *of_bias_leaky_relu.LARGE, (3, 4, 1030), (257, 33), (2, 3, 130), (5, 3, 600)]
    monkeypatch.setattr(of_bias_leaky_relu, "SHAPES", shapes)
    of_bias_leaky_relu.test_value_and_derivatives_are_as_good_as_torch(back_end, dtype, "contiguous")


@pytest.mark.parametrize("clamp", [None, 0.25])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kinks_of_bias_leaky_relu(
    back_end: str, dtype: torch.dtype, clamp: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_bias_leaky_relu, "bias_leaky_relu", on_gpu(bias_leaky_relu))
    for negative_slope in (0.0, 0.5):
        of_bias_leaky_relu.test_the_kinks_are_torchs(back_end, dtype, negative_slope, clamp)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolate(back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_interpolate, "interpolate", on_gpu(wk.interpolate, layout))
    of_interpolate.test_value_and_gradients_are_as_good_as_torch(back_end, dtype, "contiguous")
    of_interpolate.test_native_is_within_one_ulp_of_the_reference(None, dtype, "contiguous")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm(back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in (("group_norm", group_norm), ("layer_norm", layer_norm)):
        monkeypatch.setattr(of_group_norm, name, on_gpu(function, layout))
    of_group_norm.test_value_and_derivatives_are_as_good_as_torch(back_end, dtype, "contiguous")
    for shape, groups, layer_dims in (((1, 70_001), 1, 1), ((2, 6, 200, 150), 2, 0), ((700, 3, 5), 3, 0)):
        params = of_group_norm.params_for(shape, layer_dims, dtype)
        of_group_norm.assert_parity(samples(shape, dtype, seed=1), params, groups, layer_dims, str(shape))


def test_group_norm_at_its_edges(back_end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in (("group_norm", group_norm), ("layer_norm", layer_norm)):
        monkeypatch.setattr(of_group_norm, name, on_gpu(function))
    for shape in ((0, 4, 3), (2, 4, 0)):
        of_group_norm.test_no_samples_and_no_positions(back_end, shape)
    for dtype in DTYPES:
        of_group_norm.test_numbers_that_are_all_alike(back_end, dtype)
    for dtype in (torch.float64, torch.float32):
        of_group_norm.test_far_from_zero(back_end, dtype, (3, 6, 20, 20), 3, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_penalty(back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_norm_penalty, "norm_penalty", on_gpu(wk.norm_penalty, layout))
    of_norm_penalty.test_value_and_derivatives_are_as_good_as_torch(back_end, dtype, "contiguous")


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_penalty_of_every_size_and_setting(
    back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_norm_penalty, "norm_penalty", on_gpu(wk.norm_penalty))
    settings = list(itertools.product(of_norm_penalty.SETTINGS, of_norm_penalty.REDUCTIONS))
    for (target, one_sided), reduction in settings:
        chosen = {"target": target, "one_sided": one_sided, "reduction": reduction}
        grad, direction = samples((6, 14), dtype, seed=3), samples((6, 14), dtype, seed=4)
        of_norm_penalty.assert_parity(grad, direction, chosen, str(chosen))
    chosen = {"target": 1.0, "one_sided": False, "reduction": "mean"}
    for shape in [(3, 5), (3, 8), (2, 1023), (2, 1025), (1, 300_001), (257, 3072), (5000, 3)]:
        grad, direction = samples(shape, dtype, seed=1), samples(shape, dtype, seed=2)
        of_norm_penalty.assert_parity(grad, direction, chosen, str(shape))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_penalty_at_its_edges(back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_norm_penalty, "norm_penalty", on_gpu(wk.norm_penalty))
    of_norm_penalty.test_known_answer(back_end, dtype)
    of_norm_penalty.test_a_norm_of_exactly_the_target(back_end, dtype)
    of_norm_penalty.test_no_samples_and_no_features(back_end)
    for bad in (torch.nan, torch.inf, -torch.inf):
        of_norm_penalty.test_nan_and_infinity_propagate(back_end, dtype, bad)
    for target, one_sided in of_norm_penalty.SETTINGS:
        of_norm_penalty.test_at_zero_gradient(back_end, dtype, target, one_sided, "mean")


@pytest.mark.parametrize("kind", of_kernel_sums.KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_sums(back_end: str, dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_kernel_sums, "kernel_sums", on_gpu(kernel_sums))
    of_kernel_sums.test_value_and_derivatives_are_as_good_as_torch(back_end, dtype, kind)
    x, y = samples((700, 64), dtype, seed=1), samples((515, 64), dtype, seed=2) + 0.3
    of_kernel_sums.assert_parity(x, y, (kind,), "many points")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_sums_of_any_layout(
    back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_kernel_sums, "kernel_sums", on_gpu(kernel_sums, layout))
    of_kernel_sums.assert_parity(
        samples((37, 11), dtype, seed=1), samples((101, 11), dtype, seed=2), of_kernel_sums.KINDS, layout
    )


@pytest.mark.parametrize(
    "name",
    [
        "test_known_sums_of_four_points",
        "test_no_points",
        "test_ranges_of_rows_add_up",
        "test_each_range_equals_the_reference",
        "test_batches_are_their_problems",
        "test_distances_survive_far_from_the_origin",
        "test_tight_clusters_far_apart",
        "test_kernels_of_far_points_vanish",
        "test_half_width_gradients_are_scaled_before_they_are_rounded",
    ],
)
def test_kernel_sums_at_its_edges(back_end: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_minibatch_discrimination, "minibatch_discrimination", on_gpu(minibatch_discrimination))
    of_minibatch_discrimination.test_gradcheck_and_gradgradcheck(back_end)
    monkeypatch.setattr(of_minibatch_stddev, "minibatch_stddev", on_gpu(minibatch_stddev))
    of_minibatch_stddev.test_gradcheck_and_gradgradcheck(back_end, 2, 1)
    monkeypatch.setattr(of_kernel_sums, "kernel_sums", on_gpu(kernel_sums))
    monkeypatch.setattr(of_kernel_sums, "weighted_kernel_sum", on_gpu(weighted_kernel_sum))
    getattr(of_kernel_sums, name)(back_end)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_propagate_through_kernel_sums(
    back_end: str, dtype: torch.dtype, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_kernel_sums, "kernel_sums", on_gpu(kernel_sums))
    of_kernel_sums.test_nan_and_infinity_propagate(back_end, dtype, bad)


@pytest.mark.parametrize("problems", [(), (2,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kernel_sums_of_very_many_points(back_end: str, dtype: torch.dtype, problems: tuple[int, ...]) -> None:
    """So many that a block's gradients leave its registers again and again. Torch's matrices would not fit everywhere:
    exact is what the CPU says in float64."""
    N, M, D, every = 8192 if problems == () else 4200, 70, 3, 16
    x, y = samples((*problems, N, D), dtype, seed=1), samples((*problems, M, D), dtype, seed=2) + 0.3
    along = [samples(t.shape, dtype, seed=20 + k) for k, t in enumerate((x, y))]
    params, weights = of_kernel_sums.mixture(of_kernel_sums.KINDS, D)

    def value(x: Tensor, y: Tensor) -> Tensor:
        return kernel_sums(x, y, of_kernel_sums.KINDS, params, weights)[0]

    _, first, second = of_kernel_sums.derivatives(on_gpu(value), (x, y), along)
    swept = of_kernel_sums.one_sweep(on_gpu(value), (x, y))
    with wk.use_backend("auto"):
        _, *exact = of_kernel_sums.derivatives(value, (x.double(), y.double()), along)
    few = [t.reshape(-1, t.shape[-2], D)[0, ::every] for t in (x, y)]
    sizes = [every * size for size in of_kernel_sums.magnitudes(*few, of_kernel_sums.KINDS, params, weights)]
    for order, result in ((1, first), (1, swept), (2, second)):
        for ours, good in zip(result, exact[order - 1], strict=True):
            assert_as_good_as_torch(ours, good, good, f"derivative {order}", sizes[order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_sums_of_coincident_points(back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_kernel_sums, "kernel_sums", on_gpu(kernel_sums))
    of_kernel_sums.test_coincident_points(back_end, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_matvec(back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_kernel_matvec, "kernel_matvec", on_gpu(kernel_matvec))
    of_kernel_matvec.test_product_and_gradients_are_as_good_as_torch(back_end, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kernel_matvec_of_very_many_points(back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_kernel_matvec, "kernel_matvec", on_gpu(kernel_matvec))
    monkeypatch.setattr(of_kernel_matvec, "SIZES", [(2048, 8192, 5, 3)])
    of_kernel_matvec.test_product_and_gradients_are_as_good_as_torch(back_end, dtype)


@pytest.mark.parametrize("name", ["test_no_points", "test_far_from_the_origin", "test_nan_and_infinity_propagate"])
def test_kernel_matvec_at_its_edges(back_end: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_kernel_matvec, "kernel_matvec", on_gpu(kernel_matvec))
    getattr(of_kernel_matvec, name)(back_end)


@pytest.mark.parametrize("layout", ("contiguous", "offset", "transposed"))
@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("dtype", of_mlp_critic_loss.DTYPES)
def test_mlp_critic_loss(
    back_end: str, dtype: torch.dtype, judged: bool, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_mlp_critic_loss, "mlp_critic_loss", on_gpu(mlp_critic_loss, layout))
    for biased in (True, False):
        of_mlp_critic_loss.test_as_good_as_autograd(back_end, dtype, biased, judged)


# A critic in whole packs of 16 bytes; groups of eight samples; panels in global memory.
@pytest.mark.parametrize("case", [(64, (64, 256, 256, 1)), (190, (9, 20, 6, 1)), (9, (3, 2600, 4, 1))], ids=str)
@pytest.mark.parametrize("dtype", of_mlp_critic_loss.DTYPES)
def test_mlp_critic_loss_of_every_kernel(
    back_end: str, dtype: torch.dtype, case: tuple[int, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_mlp_critic_loss, "mlp_critic_loss", on_gpu(mlp_critic_loss))
    monkeypatch.setattr(of_mlp_critic_loss, "CRITICS", [case])
    of_mlp_critic_loss.test_as_good_as_autograd(back_end, dtype, True, True)


@pytest.mark.parametrize("dtype", of_mlp_critic_loss.DTYPES)
def test_mlp_critic_loss_of_large_tiles(back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a linear critic: among so many activations some are near their kinks."""
    monkeypatch.setattr(of_mlp_critic_loss, "mlp_critic_loss", on_gpu(mlp_critic_loss))
    critic = of_mlp_critic_loss.draw(700, (520, 1030, 1), dtype, [1.0, 1.0])
    of_mlp_critic_loss.assert_parity(critic, of_mlp_critic_loss.SETTINGS[0], "large")


@pytest.mark.parametrize("dtype", of_mlp_critic_loss.DTYPES)
def test_mlp_critic_loss_at_its_edges(back_end: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_mlp_critic_loss, "mlp_critic_loss", on_gpu(mlp_critic_loss))
    of_mlp_critic_loss.test_no_samples(back_end)
    of_mlp_critic_loss.test_the_penalty_is_that_of_the_mixed_samples_alone(back_end, dtype)
    for target in (0.0, 1.0):
        of_mlp_critic_loss.test_zero_gradient(back_end, dtype, target)
    for slope in (0.0, 0.2):
        of_mlp_critic_loss.test_the_kinks_are_torchs(back_end, dtype, slope)
    for bad, slope in itertools.product((torch.nan, torch.inf, -torch.inf), (0.0, 0.2)):
        of_mlp_critic_loss.test_nan_and_infinity_go_where_torch_has_them(back_end, dtype, bad, slope)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_minibatch_discrimination(
    back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = of_minibatch_discrimination
    monkeypatch.setattr(module, "minibatch_discrimination", on_gpu(minibatch_discrimination, layout))
    module.test_value_and_derivatives_are_as_good_as_torch(back_end, dtype, "contiguous")
    for begin, end in ((0, 5), (3, 20), (19, None), (20, 20)):
        module.test_some_rows_against_all(back_end, dtype, begin, end)
    module.test_coincident_samples_have_derivatives_of_zero(back_end, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_minibatch_stddev(back_end: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_minibatch_stddev, "minibatch_stddev", on_gpu(minibatch_stddev, layout))
    of_minibatch_stddev.test_value_and_derivatives_are_as_good_as_torch(back_end, dtype, "contiguous")
    of_minibatch_stddev.test_equal_samples_have_derivatives_of_zero(back_end, dtype)


@pytest.mark.parametrize("points", ["real", "mixed"])
def test_penalty_of_a_fully_connected_critic(back_end: str, points: str) -> None:
    """By the operator, which holds no graph, and as on the CPU."""
    layers = [torch.nn.Linear(7, 40), torch.nn.LeakyReLU(0.2), torch.nn.Linear(40, 1)]
    critic = torch.nn.Sequential(*layers).double()
    real, fake = samples((33, 7), torch.float64, seed=1), samples((33, 7), torch.float64, seed=2)
    mix = samples((33,), torch.float64, seed=3).sigmoid() if points == "mixed" else None
    results = []
    for device in ("cpu", "cuda"):
        critic.to(device)
        tensors = [None if each is None else each.to(device) for each in (real, fake, mix)]
        with wk.use_backend("reference" if device == "cpu" else back_end):
            value = wk.gradient_penalty(critic, *tensors[:2], points=points, mix=tensors[2])
            grads = torch.autograd.grad(value, [layers[0].weight, layers[2].weight])
        results.append([value.detach().cpu(), *[grad.cpu() for grad in grads]])
    assert "one operator" in wk.explain_route(critic, real.cuda()).reason
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradcheck_and_gradgradcheck(back_end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_norm_penalty, "norm_penalty", on_gpu(wk.norm_penalty))
    monkeypatch.setattr(of_kernel_sums, "kernel_sums", on_gpu(kernel_sums))
    monkeypatch.setattr(of_kernel_sums, "weighted_kernel_sum", on_gpu(weighted_kernel_sum))
    monkeypatch.setattr(of_kernel_matvec, "kernel_matvec", on_gpu(kernel_matvec))
    for (target, one_sided), reduction in zip(of_norm_penalty.SETTINGS, itertools.cycle(of_norm_penalty.REDUCTIONS)):
        of_norm_penalty.test_gradcheck_and_gradgradcheck(back_end, target, one_sided, reduction)
    for problems, kinds in of_kernel_sums.CASES:
        of_kernel_sums.test_gradcheck_and_gradgradcheck(back_end, problems, kinds, (0, -1))
    of_kernel_sums.test_gradcheck_of_the_shortest_way(back_end)
    of_kernel_matvec.test_gradcheck_and_gradgradcheck(back_end, (), (0, -1), False)
