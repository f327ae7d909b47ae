"""gradient_penalty: against known answers and against the eager functions that people write."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_bits, assert_same_error, compile_once, leaf, samples
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EAGER_FLOAT64, assert_same_by_another_route, largest
from torch import Tensor, nn

from wgan_kernels import gradient_penalty, norm_penalty

DOUBLE = torch.float64


def eager(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
    weight: float = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    """The function people write (Gulrajani's, with the mean taken last)."""
    mix = mix.reshape(-1, *[1] * (real.dim() - 1))
    x = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True, retain_graph=True)
    excess = grad.reshape(grad.shape[0], -1).norm(2, dim=1) - target
    return weight * ((excess.clamp(min=0) if one_sided else excess) ** 2).mean()


class Linear(nn.Module):
    """D(x) = <w, x>, whose gradient is w everywhere."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


def mlp(norm: bool = False) -> tuple[nn.Module, tuple[int, ...]]:
    layers = [nn.Linear(6, 16), *([nn.LayerNorm(16)] if norm else []), nn.Tanh(), nn.Linear(16, 16), nn.Softplus()]
    return nn.Sequential(*layers, nn.Linear(16, 1)), (7, 6)


def conv(patches: bool = False) -> tuple[nn.Module, tuple[int, ...]]:
    """A DCGAN critic in small; with patches, one that scores every part of the image."""
    layers = [nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 4, 2, 1), nn.LeakyReLU(0.2)]
    end = [nn.Conv2d(8, 1, 1)] if patches else [nn.Flatten(), nn.Linear(32, 1)]
    return nn.Sequential(*layers, *end), (5, 3, 8, 8)


CRITICS = {
    "mlp": mlp,
    "mlp with layer norm": lambda: mlp(norm=True),
    "conv": conv,
    "conv, patches": lambda: conv(patches=True),
}


def problem(name: str, channels_last: bool = False) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    critic, shape = CRITICS[name]()
    critic = critic.double()
    with torch.no_grad():  # as torch starts them, gradients are far below 1 and the one-sided penalty is all zero
        for param in critic.parameters():
            param.mul_(2.5)
    real, fake = samples(shape, DOUBLE, seed=1), samples(shape, DOUBLE, seed=2)
    if channels_last:
        critic = critic.to(memory_format=torch.channels_last)
        real, fake = (x.contiguous(memory_format=torch.channels_last) for x in (real, fake))
    return critic, real, fake, torch.rand(shape[0], dtype=DOUBLE)


def parameter_gradients(loss: Tensor, critic: nn.Module) -> list[Tensor]:
    grads = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, critic.parameters(), strict=True)]


@pytest.mark.parametrize("settings", [{}, {"weight": 3.0, "target": 0.0}, {"target": 0.2, "one_sided": True}])
@pytest.mark.parametrize(
    ("name", "channels_last"), [*((name, False) for name in CRITICS), ("conv", True), ("conv, patches", True)]
)
def test_parameter_gradients_equal_the_eager_function(
    backend: str, name: str, channels_last: bool, settings: dict[str, Any]
) -> None:
    critic, real, fake, mix = problem(name, channels_last)
    expected = eager(critic, real, fake, mix, **settings)
    penalty = gradient_penalty(critic, real, fake, mix=mix, **settings)
    assert penalty.shape == () and abs(penalty.item() - expected.item()) < EAGER_FLOAT64
    grads = parameter_gradients(expected, critic)
    assert max(map(largest, grads)) > 0.1, "the test has nothing to compare"
    for ours, theirs in zip(parameter_gradients(penalty, critic), grads, strict=True):
        assert largest(ours - theirs) < EAGER_FLOAT64


@pytest.mark.parametrize("name", CRITICS)
def test_a_whole_critic_loss_in_one_backward(backend: str, name: str) -> None:
    critic, real, fake, mix = problem(name)
    losses = []
    for penalty in (eager(critic, real, fake, mix), gradient_penalty(critic, real, fake, mix=mix)):
        weights = sum(param.square().sum() for param in critic.parameters())
        losses.append(critic(fake).mean() - critic(real).mean() + penalty + 0.1 * weights + penalty**2)
    expected, ours = (parameter_gradients(loss, critic) for loss in losses)
    for a, b in zip(ours, expected, strict=True):
        assert largest(a - b) < EAGER_FLOAT64 * max(1, largest(b))


def test_the_gradient_of_a_gradient_through_the_penalty(backend: str) -> None:
    critic, real, fake, mix = problem("mlp")
    results = []
    ours = gradient_penalty(critic, real, fake, mix=mix, route="double_backward")
    for penalty in (eager(critic, real, fake, mix), ours):
        first = torch.autograd.grad(penalty, critic[0].weight, create_graph=True)[0]
        results.append(torch.autograd.grad(first.square().sum(), critic[2].weight)[0])
    assert largest(results[0]) > 0.1 and largest(results[0] - results[1]) < EAGER_FLOAT64 * largest(results[0])


@given(
    w=st.lists(st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=12),
    weight=st.floats(0, 20),
    target=st.floats(0, 3),
    batch=st.integers(1, 5),
    one_sided=st.booleans(),
)
def test_linear_critic_has_a_known_penalty(
    w: list[float], weight: float, target: float, batch: int, one_sided: bool
) -> None:
    critic = Linear(*w)
    norm = critic.w.detach().norm().item()
    excess = max(norm - target, 0.0) if one_sided else norm - target
    real, fake = torch.randn(batch, len(w), dtype=DOUBLE), torch.randn(batch, len(w), dtype=DOUBLE)
    penalty = gradient_penalty(critic, real, fake, weight=weight, target=target, one_sided=one_sided)
    assert penalty.item() == pytest.approx(weight * excess**2, rel=1e-9, abs=1e-12)
    (grad,) = torch.autograd.grad(penalty, critic.w)
    expected = 2 * weight * excess * critic.w.detach() / norm if norm else torch.zeros(len(w), dtype=DOUBLE)
    assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_norms(backend: str, reduction: str) -> None:
    critic, real, fake = Linear(3.0, 4.0), torch.ones(6, 2, dtype=DOUBLE), torch.zeros(6, 2, dtype=DOUBLE)
    penalty, norms = gradient_penalty(critic, real, fake, weight=0.5, reduction=reduction, return_norms=True)
    expected = {"mean": 8.0, "sum": 48.0, "none": [8.0] * 6}[reduction]
    assert penalty.tolist() == expected
    assert norms.tolist() == [5.0] * 6 and not norms.requires_grad and norms.grad_fn is None


def test_defaults_are_those_of_wgan_gp(backend: str) -> None:
    critic, x = Linear(3.0, 4.0), torch.ones(2, 2, dtype=DOUBLE)
    assert gradient_penalty(critic, x, x).item() == 10 * 16.0


class Recorder(nn.Module):
    """Remembers where it was asked."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x.detach().clone()
        return x.flatten(1).square().sum(1)


def test_points_and_the_draw(backend: str) -> None:
    real, fake = samples((5, 2, 3), torch.float32, seed=1), samples((5, 2, 3), torch.float32, seed=2)
    critic = Recorder()
    gradient_penalty(critic, real, fake, points="real")
    assert_same_bits(critic.x, real)
    gradient_penalty(critic, real, fake, points="fake")
    assert_same_bits(critic.x, fake)
    gradient_penalty(critic, real, None, points="real")
    gradient_penalty(critic, None, fake, points="fake")
    assert_same_bits(critic.x, fake)
    torch.manual_seed(9)
    gradient_penalty(critic, real, fake)
    torch.manual_seed(9)
    mix = torch.rand(5)
    drawn = critic.x
    assert_same_bits(drawn, mix[:, None, None] * real + (1 - mix[:, None, None]) * fake)
    gradient_penalty(critic, real, fake, generator=torch.Generator().manual_seed(9))
    assert_same_bits(critic.x, drawn)
    for shape in ((5,), (5, 1), (5, 1, 1), (5, 1, 1, 1)):
        gradient_penalty(critic, real, fake, mix=mix.reshape(shape))
        assert_same_bits(critic.x, drawn)


@pytest.mark.parametrize("points", ["mixed", "real", "fake"])
def test_samples_are_constants_unless_asked_otherwise(backend: str, points: str) -> None:
    def inputs() -> list[Tensor]:
        return [leaf(samples((4, 3), DOUBLE, seed=seed)) for seed in (1, 2)]

    critic = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    mix = {"mix": leaf(torch.rand(4, dtype=DOUBLE))} if points == "mixed" else {}
    real, fake = inputs()
    gradient_penalty(critic, real, fake, points=points, **mix).backward()
    assert real.grad is None and fake.grad is None and all(value.grad is None for value in mix.values())
    assert all(p.grad is not None for p in critic[0].parameters())

    values = [*inputs(), *mix.values()]

    def function(*values: Tensor) -> Tensor:
        chosen = {"mix": values[2]} if points == "mixed" else {}
        return gradient_penalty(critic, *values[:2], points=points, detach=False, **chosen)

    asked = values if points == "mixed" else [values[0 if points == "real" else 1]]
    grads = torch.autograd.grad(function(*values), asked)
    assert all(largest(grad) > 1e-3 for grad in grads)

    def formula(*values: Tensor) -> Tensor:
        """Without autograd.grad: the gradient of a two-layer network in closed form."""
        weight = values[2][:, None] if points == "mixed" else float(points == "real")
        hidden = torch.tanh(critic[0](weight * values[0] + (1 - weight) * values[1]))
        grad = ((1 - hidden**2) * critic[2].weight) @ critic[0].weight
        return 10 * ((grad.norm(dim=1) - 1) ** 2).mean()

    for ours, expected in zip(grads, torch.autograd.grad(formula(*values), asked), strict=True):
        assert largest(ours - expected) < EAGER_FLOAT64


def test_the_callers_tensors_are_left_as_they_were(backend: str) -> None:
    for points, detach in itertools.product(("mixed", "real", "fake"), (True, False)):
        real, fake = samples((4, 3), torch.float32, seed=1), samples((4, 3), torch.float32, seed=2)
        critic = nn.Linear(3, 1)
        gradient_penalty(critic, real, fake, points=points, detach=detach).backward()
        for x, seed in ((real, 1), (fake, 2)):
            assert not x.requires_grad and x.grad is None and x._version == 0
            assert_same_bits(x, samples((4, 3), torch.float32, seed=seed))


@pytest.mark.parametrize("target", [0.0, 1.0, 0.5])
def test_at_zero_gradient(backend: str, target: float) -> None:
    critic = Linear(0.0, 0.0, 0.0)
    x = samples((4, 3), DOUBLE)
    (closed,) = torch.autograd.grad(gradient_penalty(critic, x, x, weight=5.0, target=target), critic.w)
    assert torch.equal(closed, torch.zeros(3, dtype=DOUBLE))
    penalty = gradient_penalty(critic, x, x, weight=5.0, target=target, route="double_backward")
    assert penalty.item() == 5 * target**2
    (first,) = torch.autograd.grad(penalty, critic.w, create_graph=True)
    assert torch.equal(first, torch.zeros(3, dtype=DOUBLE))
    u = torch.tensor([1.0, -2.0, 3.0], dtype=DOUBLE)
    (second,) = torch.autograd.grad(first, critic.w, u)
    # The gradient of each of the B samples is w: their shares of 2 * weight * u / B add up.
    assert torch.equal(second, 2 * 5.0 * u if target == 0 else torch.zeros_like(u))


class Dead(nn.Module):
    """A critic whose ReLUs are all shut for some samples, which is where NaN comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        with torch.no_grad():
            self.layers[0].weight.abs_()
            self.layers[0].bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dead_critic_gives_no_nan(backend: str, dtype: torch.dtype) -> None:
    critic = Dead().to(dtype)
    x = torch.tensor([[-1.0, -1, -1], [1, 1, 1]], dtype=dtype)
    for target in (0.0, 1.0):
        for grad in parameter_gradients(gradient_penalty(critic, x, x, target=target), critic):
            assert grad.isfinite().all()


@pytest.mark.parametrize("fake_dtype", DTYPES)
@pytest.mark.parametrize("real_dtype", DTYPES)
def test_dtypes_are_promoted(backend: str, real_dtype: torch.dtype, fake_dtype: torch.dtype) -> None:
    dtype = torch.promote_types(real_dtype, fake_dtype)
    critic = nn.Linear(4, 1).to(dtype)
    real, fake = torch.ones(3, 4).to(real_dtype), torch.ones(3, 4).to(fake_dtype)
    penalty, norms = gradient_penalty(critic, real, fake, return_norms=True)
    assert penalty.dtype == norms.dtype == torch.promote_types(dtype, torch.float32)
    penalty.backward()
    assert critic.weight.grad.dtype == dtype and critic.weight.grad.isfinite().all()


def test_under_autocast(backend: str) -> None:
    torch.manual_seed(2)
    critic = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    generator = nn.Linear(4, 4)
    real = torch.randn(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fake = generator(torch.randn(6, 4))
        assert fake.dtype == torch.bfloat16
        penalty = gradient_penalty(critic, real, fake, mix=(mix := torch.rand(6)))
    assert penalty.dtype == torch.float32
    penalty.backward()
    assert generator.weight.grad is None
    expected = eager(critic, real, fake.float(), mix)
    # bfloat16 layers keep 8 bits; what is tested is that the dtypes meet, not how well.
    assert penalty.item() == pytest.approx(expected.item(), rel=0.1)
    assert critic[0].weight.grad.dtype == torch.float32


def test_without_grad_mode_there_is_a_value(backend: str) -> None:
    critic, real, fake, mix = problem("conv")
    expected = gradient_penalty(critic, real, fake, mix=mix)
    assert expected.requires_grad
    for detach, points in itertools.product((True, False), ("mixed", "real")):
        chosen = {"mix": mix} if points == "mixed" else {}
        expected = gradient_penalty(critic, real, fake, points=points, **chosen).detach()
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                value = gradient_penalty(critic, real, fake, points=points, detach=detach, **chosen)
                made_here = gradient_penalty(critic, real + 0, fake + 0, points=points, detach=detach, **chosen)
                assert not torch.is_grad_enabled()
            assert not value.requires_grad and value.grad_fn is None
            assert_same_bits(value, expected)
            assert_same_bits(made_here, expected)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert all(param.grad is None for param in critic.parameters())


def test_inference_tensors(backend: str) -> None:
    with torch.inference_mode():
        real, fake, mix = torch.ones(3, 2), torch.zeros(3, 2), torch.rand(3)
        broken = nn.Linear(2, 1)
    critic = nn.Linear(2, 1)
    gradient_penalty(critic, real, fake, mix=mix).backward()
    assert critic.weight.grad is not None
    gradient_penalty(critic, real, None, points="real").backward()
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode(), pytest.raises(RuntimeError, match="critic has parameters.*inference_mode.*outside"):
            gradient_penalty(broken, real, fake)


def scores(x: Tensor) -> Tensor:
    return x.square().sum(1)


@pytest.mark.parametrize(
    ("critic", "output"),
    [
        (lambda x: scores(x)[:, None], None),
        (lambda x: x.square(), None),  # a map of scores
        (lambda x: x.square().reshape(-1, 3, 1, 1), None),
        (lambda x: (scores(x), x), 0),
        (lambda x: [x, scores(x)], 1),
        (lambda x: (x, scores(x)), -1),
        (lambda x: {"score": scores(x), "features": x}, "score"),
        (lambda x: (x, {"score": scores(x)}), lambda result: result[1]["score"]),
        (lambda x: torch.stack([x.sum(1), scores(x)], 1), lambda result: result[:, 1]),
    ],
)
def test_what_critics_return(backend: str, critic: Callable[[Tensor], Any], output: Any) -> None:
    x = samples((4, 3), DOUBLE)
    penalty = gradient_penalty(critic, x, x, output=output, points="real")
    assert penalty.item() == pytest.approx(10 * ((2 * x.norm(dim=1) - 1) ** 2).mean().item(), rel=1e-12)


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)

    def forward(self, x: Tensor, labels: Tensor, *, scale: float = 1.0) -> Tensor:
        return scale * (x * self.embedding(labels)).sum(1)


def test_conditional_critics(backend: str) -> None:
    critic, x, labels = Conditional(), torch.ones(4, 2), torch.tensor([0, 1, 2, 1])
    norms = critic.embedding(labels).norm(dim=1).detach()
    for given_labels in ({"args": (labels,)}, {"args": [labels]}, {"kwargs": {"labels": labels}}):
        _, ours = gradient_penalty(critic, x, x, return_norms=True, **given_labels)
        assert_same_by_another_route(ours, norms)
    penalty, ours = gradient_penalty(critic, x, x, return_norms=True, args=(labels,), kwargs={"scale": 2.0})
    assert_same_by_another_route(ours, 2 * norms)
    penalty.backward()
    assert critic.embedding.weight.grad.abs().sum(1).gt(0).all()


def test_torch_func_grad_by_the_critics_parameters(backend: str) -> None:
    critic, real, fake, mix = problem("mlp")
    params = dict(critic.named_parameters())

    def loss(params: dict[str, Tensor]) -> Tensor:
        return gradient_penalty(lambda x: torch.func.functional_call(critic, params, x), real, fake, mix=mix)

    grads = torch.func.grad(loss)({name: param.detach() for name, param in params.items()})
    expected = parameter_gradients(eager(critic, real, fake, mix), critic)
    for ours, theirs in zip(grads.values(), expected, strict=True):
        assert largest(ours - theirs) < EAGER_FLOAT64


@pytest.mark.parametrize("detach", [True, False])
def test_compiled_equals_eager(backend: str, detach: bool) -> None:
    critic, real, fake, mix = problem("mlp")
    settings = {"target": 0.5, "detach": detach, "return_norms": True}
    compiled = compile_once(lambda *args: gradient_penalty(critic, *args[:2], mix=args[2], **settings), "reference")
    for batch in (7, 5):  # the second makes the batch size a symbol
        inputs = [leaf(x[:batch]) for x in (real, fake, mix)]
        results = []
        for function in (compiled, lambda *args: gradient_penalty(critic, *args[:2], mix=args[2], **settings)):
            penalty, norms = function(*inputs)
            assert not norms.requires_grad
            asked = [*critic.parameters(), *([] if detach else inputs)]
            grads = torch.autograd.grad(penalty, asked, allow_unused=True)
            results.append([penalty.detach(), norms, *(grad for grad in grads if grad is not None)])
        assert len(results[0]) == len(results[1]) > 6
        for ours, eager_one in zip(*results, strict=True):
            assert_same_by_another_route(ours, eager_one)


def test_batch_norm_in_training_mode_warns_at_the_callers_line() -> None:
    x = samples((4, 3), torch.float32)
    critic = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    with pytest.warns(UserWarning, match="BatchNorm1d in training mode.*LayerNorm") as caught:
        gradient_penalty(critic, x, x)
    assert len(caught) == 1 and caught[0].filename == __file__


def test_other_normalisations_do_not_warn() -> None:
    x = samples((4, 3), torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frozen = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6).eval(), nn.Linear(6, 1))
        gradient_penalty(frozen, x, x)
        gradient_penalty(nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.Linear(6, 1)), x, x)


def test_a_batch_of_none_is_nan_as_a_mean_of_nothing(backend: str) -> None:
    critic = nn.Linear(3, 1)
    assert gradient_penalty(critic, torch.ones(0, 3), torch.ones(0, 3)).isnan()
    assert gradient_penalty(critic, torch.ones(0, 3), torch.ones(0, 3), reduction="sum").item() == 0


def test_meta_and_fake_tensors(backend: str) -> None:
    if backend == "reference":
        critic = nn.Linear(3, 1, device="meta")
        penalty = gradient_penalty(critic, torch.ones(2, 3, device="meta"), torch.ones(2, 3, device="meta"))
        penalty.backward()
        assert penalty.is_meta and critic.weight.grad.shape == (1, 3)
    with torch._subclasses.FakeTensorMode():
        critic = nn.Linear(3, 1)
        penalty = gradient_penalty(critic, torch.ones(2, 3), torch.ones(2, 3))
        penalty.backward()
        assert penalty.shape == () and critic.weight.grad.shape == (1, 3)


def test_same_bits_twice_and_for_any_number_of_threads(backend: str, one_and_two_threads: tuple[int, int]) -> None:
    # The critic is torch's and may sum in another order with more threads; its gradient here is elementwise.
    real, fake = samples((9, 40_001), torch.float32, seed=1), samples((9, 40_001), torch.float32, seed=2)
    scale = samples((40_001,), torch.float32, seed=3)
    results = set()
    for threads in one_and_two_threads * 2:
        torch.set_num_threads(threads)
        penalty = gradient_penalty(lambda x: (x**2 * scale).sum(1), real, fake, mix=torch.linspace(0, 1, 9))
        results.add(penalty.item())
    assert len(results) == 1


class Counting(nn.Module):
    """A critic with a state that each call changes, as spectral or batch normalisation has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x)


X = torch.ones(4, 3)
BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"weight": True}, TypeError, ["weight", "number", "bool"]),
    ({"weight": "10"}, TypeError, ["weight", "number", "str"]),
    ({"weight": None}, TypeError, ["weight", "number", "NoneType"]),
    ({"weight": torch.nan}, ValueError, ["weight", "finite", "nan"]),
    ({"weight": torch.inf}, ValueError, ["weight", "finite", "inf"]),
    ({"target": True}, TypeError, ["target", "number", "bool"]),
    ({"target": "1"}, TypeError, ["target", "number", "str"]),
    ({"target": None}, TypeError, ["target", "number", "NoneType"]),
    ({"target": -1.0}, ValueError, ["target", "at least 0", "-1"]),
    ({"target": torch.nan}, ValueError, ["target", "nan"]),
    ({"one_sided": "yes"}, TypeError, ["one_sided", "str"]),
    ({"reduction": "avg"}, ValueError, ["reduction", "'none', 'mean', 'sum'", "'avg'"]),
    ({"reduction": None}, ValueError, ["reduction", "None"]),
    ({"points": "between"}, ValueError, ["points", "'mixed', 'real', 'fake'", "'between'"]),
    ({"points": None}, ValueError, ["points", "None"]),
    ({"real": X.tolist()}, TypeError, ["real", "Tensor", "list"]),
    ({"real": None}, TypeError, ["real", "Tensor", "NoneType"]),
    ({"fake": None}, TypeError, ["fake", "Tensor", "NoneType"]),
    ({"real": None, "points": "real"}, TypeError, ["real", "Tensor", "NoneType"]),
    ({"fake": None, "points": "fake"}, TypeError, ["fake", "Tensor", "NoneType"]),
    ({"real": X.long()}, TypeError, ["real", "float64", "int64"]),
    ({"fake": X.to(torch.complex64)}, TypeError, ["fake", "float64", "complex64"]),
    ({"fake": X.long(), "points": "fake"}, TypeError, ["fake", "float64", "int64"]),
    ({"real": X.to_sparse()}, TypeError, ["real", "strided", "sparse"]),
    ({"real": X[0, 0], "fake": X[0, 0]}, ValueError, ["real", "batch dimension"]),
    ({"real": X[0, 0], "points": "real"}, ValueError, ["real", "batch dimension"]),
    ({"fake": X[:3]}, ValueError, ["fake", "shape of real", r"\(4, 3\)", r"\(3, 3\)"]),
    ({"fake": X[:, :2]}, ValueError, ["fake", "shape of real", r"\(4, 2\)"]),
    ({"fake": X.to("meta")}, ValueError, ["fake", "device of real", "meta"]),
    ({"real": X.to("meta")}, ValueError, ["fake", "device of real", "meta"]),
    ({"mix": 0.5}, TypeError, ["mix", "Tensor", "float"]),
    ({"mix": X[:3, 0]}, ValueError, ["mix", r"\(4,\)", r"\(3,\)"]),
    ({"mix": X}, ValueError, ["mix", r"\(4,\)", r"\(4, 3\)"]),
    ({"mix": X[:, 0].to("meta")}, ValueError, ["mix", "device", "meta"]),
    ({"mix": X[:, 0].long()}, TypeError, ["mix", "int64"]),
    ({"mix": X[:, 0], "generator": torch.Generator()}, TypeError, ["generator", "mix"]),
    ({"mix": X[:, 0], "points": "real"}, ValueError, ["mix", "points='real'"]),
    ({"generator": torch.Generator(), "points": "fake"}, ValueError, ["generator", "points='fake'"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_before_anything_happens(
    arguments: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    critic, state = Counting(), torch.random.get_rng_state()
    call = {"critic": critic, "real": X, "fake": X, **arguments}
    assert_same_error(lambda: gradient_penalty(**call), error, *words)
    assert critic.calls == 0, "the critic was run, and what it keeps was written, before the argument was refused"
    assert torch.equal(state, torch.random.get_rng_state()), "numbers were drawn before the argument was refused"


BAD_CRITICS: list[tuple[Callable[[Tensor], Any], dict[str, Any], type[Exception], list[str]]] = [
    (lambda x: torch.ones(4), {}, ValueError, ["critic", "depend"]),
    (lambda x: torch.ones(4, requires_grad=True) * 2, {}, ValueError, ["critic", "depend"]),
    (lambda x: scores(x.detach()), {}, ValueError, ["critic", "depend"]),
    (lambda x: scores(torch.tensor(x.tolist())), {}, ValueError, ["critic", "depend"]),
    (torch.no_grad()(scores), {}, ValueError, ["critic", "depend"]),
    (lambda x: scores(x).mean(), {}, ValueError, ["critic", r"\(4,\)", r"\(\)", "mean"]),
    (lambda x: scores(x).mean().reshape(1), {}, ValueError, ["critic", r"\(4,\)", r"\(1,\)"]),
    (lambda x: scores(x)[:3], {}, ValueError, ["critic", r"\(4,\)", r"\(3,\)"]),
    (lambda x: (scores(x), x), {}, TypeError, ["critic", "tuple", "output="]),
    (lambda x: {"score": scores(x)}, {}, TypeError, ["critic", "dict", "output="]),
    (lambda x: None, {}, TypeError, ["critic", "NoneType"]),
    (lambda x: scores(x).sum().item(), {}, TypeError, ["critic", "float"]),
    (lambda x: scores(x).long(), {}, TypeError, ["critic", "int64"]),
    (lambda x: scores(x).to(torch.complex64), {}, TypeError, ["critic", "complex64"]),
    (lambda x: {"score": scores(x)}, {"output": "logit"}, ValueError, ["output", "'logit'", "dict"]),
    (lambda x: (scores(x),), {"output": 1}, ValueError, ["output", "1", "tuple"]),
    (lambda x: (scores(x),), {"output": "score"}, ValueError, ["output", "'score'", "tuple"]),
    (lambda x: scores(x), {"output": "score"}, ValueError, ["output", "'score'", "Tensor"]),
    (lambda x: (scores(x), "text"), {"output": 1}, TypeError, ["critic|output", "str"]),
]


@pytest.mark.parametrize(("critic", "arguments", "error", "words"), BAD_CRITICS)
def test_bad_critics(critic: Any, arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    assert_same_error(lambda: gradient_penalty(critic, X, X, **arguments), error, *words)


def test_what_is_no_critic_is_refused_by_name() -> None:
    assert_same_error(lambda: gradient_penalty(5, X, X), TypeError, "critic", "int")


def test_an_error_inside_the_critic_comes_out_as_it_is(backend: str) -> None:
    def critic(x: Tensor) -> Tensor:
        raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="^out of cheese$"):
        gradient_penalty(critic, X, X)


def test_equals_norm_penalty_of_the_gradient(backend: str) -> None:
    x = samples((4, 3), DOUBLE)
    points = leaf(x)
    (grad,) = torch.autograd.grad(scores(points).sum(), points)
    for settings in ({}, {"target": 0.0}, {"one_sided": True}, {"reduction": "sum"}, {"reduction": "none"}):
        ours = gradient_penalty(scores, x, x, points="real", weight=1.0, **settings)
        assert_same_bits(ours.detach(), norm_penalty(grad, **settings))
