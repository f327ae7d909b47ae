"""gradient_penalty without grad mode, under autocast, torch.compile and torch.func, on tensors of every kind."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from cases import DTYPES, assert_same_bits, compile_once, leaf, samples
from critics import problem
from eager import eager_penalty, full_gradients, mixed
from tolerances import EAGER_FLOAT64, assert_same_by_another_route, largest
from torch import Tensor, nn

from wgan_kernels import gradient_penalty

DOUBLE = torch.float64


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
    expected = eager_penalty(critic, mixed(real, fake.float(), mix))[0]
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


def test_torch_func_grad_by_the_critics_parameters(backend: str) -> None:
    critic, real, fake, mix = problem("mlp")
    params = dict(critic.named_parameters())

    def loss(params: dict[str, Tensor]) -> Tensor:
        return gradient_penalty(lambda x: torch.func.functional_call(critic, params, x), real, fake, mix=mix)

    grads = torch.func.grad(loss)({name: param.detach() for name, param in params.items()})
    expected = full_gradients(eager_penalty(critic, mixed(real, fake, mix))[0], critic)
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
