"""mlp_critic_loss: a fully connected critic's loss with its derivatives, against autograd, differentiating twice."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from cases import assert_same_bits, lay_out
from mlp_draws import DTYPES, SETTINGS, Critic, by_autograd, draw, flat
from tolerances import PER_LAYER, assert_as_good_as_torch, largest

from wgan_kernels.ops.mlp_critic_loss import mlp_critic_loss

# Batches and features around the vectors of samples (2 to 16, one or two of them) and the blocks of 6 and 8 rows;
# depths 1 to 5; one score and more.
CRITICS = [
    (1, (1, 1)),
    (3, (5, 2)),
    (8, (1, 7, 1)),
    (16, (9, 8, 3)),
    (17, (16, 17, 6, 1)),
    (33, (33, 8, 31, 1)),
    (64, (7, 64, 15, 40, 1)),
    (70, (12, 33, 32, 9, 48, 2)),
    (1030, (3, 20, 1)),  # more samples than are summed at once
]
SLOPES = (0.0, 0.2, 1.0, 0.01)


def assert_parity(critic: Critic, settings: dict[str, Any], where: str) -> None:
    dtype, depth = critic.mixed.dtype, len(critic.weights)
    ours = flat(mlp_critic_loss(*critic.arguments(), **settings))
    plain, exact = by_autograd(critic, **settings), by_autograd(critic.to(torch.float64), **settings)
    assert [each.dtype for each in ours] == [dtype, dtype, torch.float64, *[dtype] * (len(ours) - 3)]
    names = ["penalty", "wasserstein", "norms", *[f"gradient {at}" for at in range(len(ours) - 3)]]
    largest_penalty = settings["weight"] * (largest(exact[2]) + settings["target"]) ** 2
    for name, mine, theirs, best in zip(names, ours, plain, exact, strict=True):
        terms = largest(best)
        if name == "penalty":  # a difference of norms and target
            terms = largest_penalty * (len(critic.mixed) if settings["reduction"] == "sum" else 1)
        elif name == "wasserstein" and critic.real is not None:  # of scores
            terms = max(largest(critic(critic.real)), largest(critic(critic.fake)))
        elif name.startswith("gradient"):  # the biases' derivatives of D(real) and D(fake) cancel
            terms = max(terms, *map(largest, exact[3 : 3 + depth]))
        terms *= PER_LAYER[dtype] * depth
        assert_as_good_as_torch(mine.to(dtype), theirs.to(dtype), best, f"{name} of {where}", terms)


@pytest.mark.parity
@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_good_as_autograd(backend: str, dtype: torch.dtype, biased: bool, judged: bool) -> None:
    slopes, settings = itertools.cycle(SLOPES), itertools.cycle(SETTINGS)
    for B, sizes in CRITICS:
        for chosen in itertools.islice(settings, 3):
            each = [*[next(slopes) for _ in sizes[2:]], next(slopes) or 0.5]  # a sample without a gradient is a kink
            critic = draw(B, sizes, dtype, each, biased, judged)
            assert_parity(critic, chosen, f"{B}, {sizes}, {each}, {chosen}")
        next(slopes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting(backend: str, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    assert_parity(draw(19, (6, 20, 9, 1), dtype, [0.0, 0.2, 1.0]), settings, str(settings))


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_alone_are_the_values_with_gradients(backend: str, dtype: torch.dtype, judged: bool) -> None:
    critic = draw(40, (5, 18, 1), dtype, [0.2, 1.0], judged=judged)
    terms = mlp_critic_loss(*critic.arguments(), **SETTINGS[0])
    alone = mlp_critic_loss(*critic.arguments(), **SETTINGS[0], needs_grads=False)
    for with_gradients, without in zip(terms[:3], alone[:3]):
        assert_same_bits(without, with_gradients)
    assert alone.grad_weights == alone.grad_biases == []
    assert (terms.grad_biases == []) != judged


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_penalty_is_that_of_the_mixed_samples_alone(backend: str, dtype: torch.dtype) -> None:
    """And the weights' derivatives add up."""
    critic = draw(40, (5, 18, 1), dtype, [0.2, 1.0])
    whole, parts = mlp_critic_loss(*critic.arguments(), **SETTINGS[0]), []
    for arguments, weight in (((critic.mixed, None, None), 10.0), (critic.arguments()[:3], 0.0)):
        parts.append(mlp_critic_loss(*arguments, *critic.arguments()[3:], **{**SETTINGS[0], "weight": weight}))
    assert_same_bits(whole.penalty, parts[0].penalty)
    assert_same_bits(whole.norms, parts[0].norms)
    assert parts[0].wasserstein == 0 and parts[1].penalty == 0 and whole.wasserstein == parts[1].wasserstein != 0
    for grad, *of_parts in zip(whole.grad_weights, *[part.grad_weights for part in parts]):
        exact = sum(each.double() for each in of_parts)
        assert_as_good_as_torch(grad, sum(of_parts), exact, "sum of the parts", 4 * max(map(largest, of_parts)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(
    native: None, one_and_two_threads: tuple[int, int], dtype: torch.dtype
) -> None:
    critic = draw(150, (40, 90, 70, 1), dtype, [0.2, 0.0, 1.0])
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        results.append(flat(mlp_critic_loss(*critic.arguments(), **SETTINGS[0])))
    for one, two in zip(*results, strict=True):
        assert_same_bits(one, two)


@pytest.mark.parametrize("layout", ["offset", "columns", "rows", "transposed", "expanded_batch"])
def test_layouts(native: None, layout: str) -> None:
    critic = draw(9, (7, 12, 1), torch.float32, [0.2, 1.0])
    one_dimensional = "rows" if layout == "rows" else "offset"
    strided = critic.map(lambda each: lay_out(each, layout if each.dim() > 1 else one_dimensional))
    dense = strided.map(torch.Tensor.contiguous)
    for actual, same in zip(
        flat(mlp_critic_loss(*strided.arguments(), **SETTINGS[0])),
        flat(mlp_critic_loss(*dense.arguments(), **SETTINGS[0])),
        strict=True,
    ):
        assert_same_bits(actual, same, layout)
        assert actual.is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_zero_gradient(backend: str, dtype: torch.dtype, target: float) -> None:
    critic = draw(20, (4, 9, 1), dtype, [0.0, 1.0])
    critic.biases = [torch.full_like(critic.biases[0], -1e3), None]
    settings = {"target": target, "one_sided": False, "reduction": "mean", "weight": 10.0}
    terms = mlp_critic_loss(*critic.arguments(), **settings)
    assert terms.penalty == 10 * target**2 and terms.norms.eq(0).all() and terms.wasserstein == 0
    assert not any([grad.any() for grad in (*terms.grad_weights, *terms.grad_biases)])


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kinks_are_torchs(backend: str, dtype: torch.dtype, slope: float) -> None:
    """Some units are given nothing but zeros."""
    critic = draw(20, (4, 9, 7, 1), dtype, [slope, slope, 1.0])
    for at, layer in itertools.product((1, 3), (0, 1)):
        critic.weights[layer][at], critic.biases[layer][at] = 0, 0
    assert critic.distance_from_kinks() == 0
    assert_parity(critic, SETTINGS[0], f"slope {slope}")


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_go_where_torch_has_them(backend: str, dtype: torch.dtype, bad: float, slope: float) -> None:
    """But for the gradients where torch adds 0 times what is not finite: those are NaN only there."""
    for place, judged in itertools.product(("mixed", "real", "weights 0", "weights 1", "biases 0"), (True, False)):
        name, at = (place + " 0").split()[:2]
        if name == "real" and not judged:
            continue
        critic = draw(20, (4, 9, 7, 1), dtype, [slope, slope, 1.0], judged=judged)
        tensors = getattr(critic, name)
        (tensors if isinstance(tensors, torch.Tensor) else tensors[int(at)]).view(-1)[5] = bad
        ours = flat(mlp_critic_loss(*critic.arguments(), **SETTINGS[0]))
        plain, exact = by_autograd(critic, **SETTINGS[0]), by_autograd(critic.to(torch.float64), **SETTINGS[0])
        for value, theirs in zip(ours[:3], plain[:3]):
            assert torch.equal(value.isnan(), theirs.isnan()) and torch.equal(value.isinf(), theirs.isinf())
        assert name != "weights" or slope == 0 or not ours[0].isfinite()
        for grad, their_grad, best in zip(ours[3:], plain[3:], exact[3:], strict=True):
            fine = their_grad.isfinite()
            terms = PER_LAYER[dtype] * len(critic.weights) * max(largest(b[b.isfinite()]) for b in exact[3:])
            assert_as_good_as_torch(grad[fine], their_grad[fine], best[fine], f"{bad} in {place}", terms)


@pytest.mark.parametrize("units", [5, 40])
def test_a_layer_of_no_units(backend: str, units: int) -> None:
    """Its gradients have no elements, and no address; those above it have."""
    critic = draw(6, (3, 4, 1), torch.float32, [0.2, 1.0])
    critic.weights = [critic.weights[0][:0], torch.empty(units, 0), torch.ones(1, units)]
    critic.biases, critic.slopes = [torch.empty(0), torch.ones(units), torch.ones(1)], [0.2, 0.2, 1.0]
    terms = mlp_critic_loss(*critic.arguments(), **SETTINGS[0])
    assert [grad.shape for grad in terms.grad_weights] == [(0, 3), (units, 0), (1, units)]
    assert terms.penalty == 10 and terms.wasserstein == 0 and terms.norms.eq(0).all()
    assert largest(terms.grad_weights[2]) < 1e-6 and all(largest(grad) < 1e-6 for grad in terms.grad_biases)


def test_no_samples(backend: str) -> None:
    critic = draw(1, (3, 4, 1), torch.float32, [0.2, 1.0])
    for reduction in ("mean", "sum"):
        settings = {**SETTINGS[0], "reduction": reduction}
        empty = [x[:0] for x in critic.arguments()[:3]]
        terms = mlp_critic_loss(*empty, *critic.arguments()[3:], **settings)
        assert terms.penalty.isnan() if reduction == "mean" else terms.penalty == 0
        assert terms.wasserstein.isnan() and terms.norms.shape == (0,)
        assert not any([grad.any() for grad in (*terms.grad_weights, *terms.grad_biases)])
