"""interpolate: x = mix * real + (1 - mix) * fake, its draw and its derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    LARGE,
    LAYOUTS,
    NARROW,
    SHAPES,
    assert_same_bits,
    assert_same_error,
    compile_once,
    each_backend,
    form,
    lay_out,
    leaf,
    samples,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_as_good_as_torch, assert_same_by_another_route, assert_within_one_ulp
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import interpolate, use_backend


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def column(mix: Tensor, like: Tensor) -> Tensor:
    return mix.reshape(-1, *[1] * (like.dim() - 1))


def formula(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """As people write it, in the dtype of the samples."""
    mix = column(mix, real).to(real.dtype)
    return mix * real + (1 - mix) * fake


def mixing(batch: int, dtype: torch.dtype, seed: int = 7) -> Tensor:
    """Numbers of [0, 1) with both ends among them."""
    mix = torch.rand(batch, generator=torch.Generator().manual_seed(seed), dtype=wide(dtype))
    mix[1::3], mix[2::3] = 0, 1
    return mix


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_gradients_are_as_good_as_torch(backend: str, dtype: torch.dtype, layout: str) -> None:
    for shape in [*SHAPES, *([LARGE] if layout in ("contiguous", "columns") else [])]:
        for fake_layout in sorted({layout, "contiguous"}):
            real, fake = samples(shape, dtype, layout, 1), samples(shape, dtype, fake_layout, 2)
            mix, up = mixing(shape[0], dtype), samples(shape, dtype, layout, 3)
            inputs = [leaf(real), leaf(fake), leaf(mix)]
            x = interpolate(*inputs)
            assert x.dtype == dtype and x.shape == real.shape
            grads = torch.autograd.grad(x, inputs, up)
            plain_inputs = [leaf(real), leaf(fake), leaf(mix)]
            plain = formula(*plain_inputs)
            plain_grads = torch.autograd.grad(plain, plain_inputs, up)
            exact_inputs = [leaf(t.double()) for t in (real, fake, mix)]
            exact = formula(*exact_inputs)
            exact_grads = torch.autograd.grad(exact, exact_inputs, up.double())
            where = f"{shape}, {layout} with {fake_layout}"
            assert_as_good_as_torch(x, plain, exact, f"x of {where}")
            for name, ours, theirs, best in zip(("real", "fake", "mix"), grads, plain_grads, exact_grads, strict=True):
                assert_as_good_as_torch(ours, theirs, best, f"gradient by {name} of {where}")


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_native_is_within_one_ulp_of_the_reference(native: None, dtype: torch.dtype, layout: str) -> None:
    for shape in [*SHAPES, *((3, width) for width in range(1, 70))]:
        real, fake = samples(shape, dtype, layout, 1), samples(shape, dtype, "contiguous", 2)
        mix = mixing(shape[0], dtype)
        for pair in ((real, fake), (fake, real)):
            ours = interpolate(*pair, mix)
            with use_backend("reference"):
                theirs = interpolate(*pair, mix)
            assert_within_one_ulp(ours, theirs, f"{shape}")


def test_known_answer_and_the_ends_of_the_line(backend: str) -> None:
    real, fake = torch.tensor([[4.0, 8.0], [4.0, 8.0], [4.0, 8.0]]), torch.tensor([[0.0, 4.0]]).expand(3, 2)
    x = interpolate(real, fake, torch.tensor([0.25, 0.0, 1.0]))
    assert x.tolist() == [[1.0, 5.0], [0.0, 4.0], [4.0, 8.0]]
    assert interpolate(real[:, 0], fake[:, 0], torch.tensor([0.25, 0.0, 1.0])).tolist() == [1.0, 0.0, 4.0]


@given(
    shape=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    scale=st.sampled_from([1e-4, 1.0, 1e3]),
    seed=st.integers(0, 1000),
)
def test_drawn_shapes(shape: list[int], dtype: torch.dtype, layouts: tuple[str, str], scale: float, seed: int) -> None:
    real = lay_out(samples(tuple(shape), dtype, seed=seed) * scale, layouts[0])
    fake, mix = samples(tuple(shape), dtype, layouts[1], seed + 1), mixing(shape[0], dtype, seed)
    results = []
    for name in each_backend():
        results.append(x := interpolate(real, fake, mix))
        exact = formula(real.double(), fake.double(), mix.double())
        assert_as_good_as_torch(x, formula(real, fake, mix), exact, name)
    for x in results:
        assert_within_one_ulp(x, results[-1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_draw_is_torch_rand_bit_for_bit(backend: str, dtype: torch.dtype) -> None:
    real, fake = torch.ones(9, 2, dtype=dtype), torch.zeros(9, 2, dtype=dtype)
    torch.manual_seed(5)
    x, after = interpolate(real, fake), torch.rand(3)
    torch.manual_seed(5)
    mix = torch.rand(9, dtype=wide(dtype))
    assert torch.equal(after, torch.rand(3)), "it drew another number of numbers"
    assert_same_bits(x, mix[:, None].expand(9, 2).to(dtype))

    before = torch.random.get_rng_state()
    x = interpolate(real, fake, generator=torch.Generator().manual_seed(6))
    mix = torch.rand(9, dtype=wide(dtype), generator=torch.Generator().manual_seed(6))
    assert_same_bits(x, mix[:, None].expand(9, 2).to(dtype))
    assert torch.equal(before, torch.random.get_rng_state()), "a given generator, and torch's own was used"


@pytest.mark.parametrize("mix_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_mix_of_any_shape_layout_and_dtype(backend: str, dtype: torch.dtype, mix_dtype: torch.dtype) -> None:
    real, fake = samples((5, 3, 2), dtype, seed=1), samples((5, 3, 2), dtype, seed=2)
    mix = torch.tensor([0.25, 0.5, 0.0, 1.0, 0.75], dtype=mix_dtype)
    x = interpolate(real, fake, mix)
    for other in (mix[:, None], mix[:, None, None], mix.reshape(5, 1, 1, 1, 1), mix.repeat_interleave(2)[::2]):
        assert_same_bits(interpolate(real, fake, mix=other), x)
    assert_within_one_ulp(x, formula(real.double(), fake.double(), mix.double()).to(dtype))


@pytest.mark.parametrize("fake_dtype", DTYPES)
@pytest.mark.parametrize("real_dtype", DTYPES)
def test_dtypes_are_promoted_as_torch_does(backend: str, real_dtype: torch.dtype, fake_dtype: torch.dtype) -> None:
    real, fake = leaf(samples((4, 3), real_dtype, seed=1)), leaf(samples((4, 3), fake_dtype, seed=2))
    x = interpolate(real, fake, mixing(4, torch.float32))
    assert x.dtype == torch.promote_types(real_dtype, fake_dtype)
    x.sum().backward()
    assert real.grad.dtype == real_dtype and fake.grad.dtype == fake_dtype


def test_gradients_reach_only_what_asks_for_them(backend: str) -> None:
    for asked in ([0], [1], [2], [0, 2], [1, 2], [0, 1, 2]):
        inputs = [samples((4, 3), torch.float32, seed=seed) for seed in (1, 2)] + [mixing(4, torch.float32)]
        for index in asked:
            inputs[index].requires_grad_()
        interpolate(*inputs).sum().backward()
        mix = column(inputs[2].detach(), inputs[0]).expand(4, 3)
        expected = [mix, 1 - mix, (inputs[0] - inputs[1]).detach().sum(1)]
        for index, value in enumerate(inputs):
            assert (value.grad is not None) == (index in asked)
            if index in asked:
                assert_same_by_another_route(value.grad, expected[index])
    with torch.no_grad():
        assert not interpolate(*inputs).requires_grad
    with torch.inference_mode():
        assert interpolate(*inputs).is_inference()


def test_samples_written_after_the_forward_are_noticed(backend: str) -> None:
    real, fake = samples((4, 3), torch.float32), samples((4, 3), torch.float32, seed=1)
    x = interpolate(real, fake, leaf(mixing(4, torch.float32)))
    real.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_propagate(backend: str, dtype: torch.dtype, bad: float) -> None:
    for which in range(2):
        pair = [samples((5, 37), dtype, seed=seed) for seed in (1, 2)]
        pair[which][2, ::9] = bad
        mix = torch.tensor([0.5, 0.0, 0.25, 1.0, 0.75], dtype=wide(dtype))
        assert_same_bits(interpolate(*pair, mix), formula(*pair, mix) if dtype not in NARROW else
                         formula(pair[0].float(), pair[1].float(), mix).to(dtype))  # fmt: skip
    mix = torch.tensor([bad, 0.5], dtype=wide(dtype))
    x = interpolate(torch.ones(2, 3, dtype=dtype), torch.zeros(2, 3, dtype=dtype), mix)
    assert not x[0].isfinite().any() and x[1].eq(0.5).all()


def test_same_bits_for_any_number_of_threads(backend: str, one_and_two_threads: tuple[int, int]) -> None:
    for shape in ((3, 100_003), (3001, 67)):
        pair, mix = [samples(shape, torch.float32, seed=seed) for seed in (1, 2)], mixing(shape[0], torch.float32)
        results = []
        for threads in one_and_two_threads * 2:
            torch.set_num_threads(threads)
            results.append(interpolate(*pair, mix))
        for other in results[1:]:
            assert_same_bits(other, results[0])


def double_inputs(layout: str = "contiguous") -> list[Tensor]:
    inputs = [samples((3, 2, 3, 2), torch.float64, layout, 1), samples((3, 2, 3, 2), torch.float64, "rows", 2)]
    return [leaf(value) for value in (*inputs, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64))]


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    for layout in ("contiguous", "permuted"):
        assert gradcheck(interpolate, double_inputs(layout))
        assert gradgradcheck(interpolate, double_inputs(layout))


def test_gradcheck_and_gradgradcheck_of_the_registered_operator(native: None) -> None:
    operator = torch.ops.wgan_kernels.interpolate.default
    assert gradcheck(operator, double_inputs())
    assert gradgradcheck(operator, double_inputs())


def test_opcheck(native: None) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = (leaf(samples((3, 4, 5, 5), dtype, "permuted", 1)), leaf(samples((3, 4, 5, 5), dtype, "rows", 2)))
        arguments = (*inputs, leaf(mixing(3, dtype)))
        results = torch.library.opcheck(torch.ops.wgan_kernels.interpolate.default, arguments)
        assert set(results.values()) == {"SUCCESS"} and len(results) == 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_strides_of_real_ones(backend: str, layout: str) -> None:
    for shape in ((4, 3, 5, 5), (1, 3, 5, 5), (4, 6), (1, 1), (3,)):
        for fake_layout in ("contiguous", "permuted"):
            pair = samples(shape, torch.float32, layout, 1), samples(shape, torch.float32, fake_layout, 2)
            x = interpolate(*pair, mixing(shape[0], torch.float32))
            with torch._subclasses.FakeTensorMode() as mode:
                fake_x = interpolate(*map(mode.from_tensor, pair), torch.rand(shape[0]))
            assert form(fake_x) == form(x), (shape, fake_layout)


def test_compiled_equals_eager(backend: str) -> None:
    def function(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        return interpolate(real * 2, fake, mix).square().sum()

    compiled = compile_once(function, backend)
    for batch in (5, 6):  # the second makes the batch size a symbol
        inputs = [samples((batch, 3, 2), torch.float32, seed=batch), samples((batch, 3, 2), torch.float32)]
        inputs.append(mixing(batch, torch.float32))
        ours, theirs = [leaf(x) for x in inputs], [leaf(x) for x in inputs]
        value, expected = compiled(*ours), function(*theirs)
        assert_same_by_another_route(value, expected)
        grads = torch.autograd.grad(value, ours), torch.autograd.grad(expected, theirs)
        for ours, eager in zip(*grads, strict=True):
            assert_same_by_another_route(ours, eager)


def test_torch_func_transforms(backend: str) -> None:
    real, fake = samples((4, 3), torch.float64, seed=1), samples((4, 3), torch.float64, seed=2)
    mix = mixing(4, torch.float64)
    for index in range(3):
        grad = torch.func.grad(lambda *a: interpolate(*a).square().sum(), argnums=index)(real, fake, mix)
        inputs = [leaf(x) for x in (real, fake, mix)]
        (expected,) = torch.autograd.grad(formula(*inputs).square().sum(), inputs[index])
        assert_same_by_another_route(grad, expected)
    batches = [torch.stack([x, x + 1, 2 * x]) for x in (real, fake, mix)]
    expected = torch.stack([formula(*each) for each in zip(*batches, strict=True)])
    assert_same_by_another_route(torch.func.vmap(interpolate)(*batches), expected)
    drawn = torch.func.vmap(interpolate, randomness="different")(torch.ones(3, 4, 2), torch.zeros(3, 4, 2))
    assert len(drawn[:, :, 0].unique()) == 12 and torch.equal(drawn[..., 0], drawn[..., 1])


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"real": [1.0]}, TypeError, ["real", "Tensor", "list"]),
    ({"real": None}, TypeError, ["real", "Tensor", "NoneType"]),
    ({"fake": None}, TypeError, ["fake", "Tensor", "NoneType"]),
    ({"real": torch.ones(4, 3, dtype=torch.int32)}, TypeError, ["real", "float64", "int32"]),
    ({"fake": torch.ones(4, 3, dtype=torch.complex64)}, TypeError, ["fake", "float64", "complex64"]),
    ({"real": torch.ones(4, 3).to_sparse()}, TypeError, ["real", "strided", "sparse"]),
    ({"fake": torch.ones(4, 3).to_sparse()}, TypeError, ["fake", "strided", "sparse"]),
    ({"real": torch.tensor(1.0), "fake": torch.tensor(1.0)}, ValueError, ["real", "batch dimension", r"\(\)"]),
    ({"fake": torch.ones(4, 2)}, ValueError, ["fake", "shape of real", r"\(4, 3\)", r"\(4, 2\)"]),
    ({"fake": torch.ones(1, 3)}, ValueError, ["fake", "shape of real", r"\(1, 3\)"]),
    ({"fake": torch.ones(4, 3, device="meta")}, ValueError, ["fake", "device of real", "cpu", "meta"]),
    ({"real": torch.ones(4, 3, device="meta")}, ValueError, ["fake", "device of real", "cpu", "meta"]),
    ({"mix": 0.5}, TypeError, ["mix", "Tensor", "float"]),
    ({"mix": "half"}, TypeError, ["mix", "Tensor", "str"]),
    ({"mix": torch.ones(4, dtype=torch.int64)}, TypeError, ["mix", "float64", "int64"]),
    ({"mix": torch.ones(4, device="meta")}, ValueError, ["mix", "device of real", "meta"]),
    ({"mix": torch.ones(3)}, ValueError, ["mix", r"\(4,\)", r"\(3,\)"]),
    ({"mix": torch.ones(1)}, ValueError, ["mix", r"\(4,\)", r"\(1,\)"]),
    ({"mix": torch.tensor(0.5)}, ValueError, ["mix", r"\(4,\)", r"\(\)"]),
    ({"mix": torch.ones(1, 4)}, ValueError, ["mix", r"\(4,\)", r"\(1, 4\)"]),
    ({"mix": torch.ones(4, 3)}, ValueError, ["mix", r"\(4,\)", r"\(4, 3\)"]),
    ({"mix": torch.ones(4), "generator": torch.Generator()}, TypeError, ["generator", "mix"]),
    ({"generator": 5}, TypeError, ["generator"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    state = torch.random.get_rng_state()
    call = {"real": torch.ones(4, 3), "fake": torch.zeros(4, 3), **arguments}
    assert_same_error(lambda: interpolate(**call), error, *words)
    assert torch.equal(state, torch.random.get_rng_state()), "it drew numbers before it refused"
