"""The tests here run Triton kernels on CPU tensors by Triton's interpreter; tests/test_triton.py starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

# Triton reads the variable when it is imported, and then compiles nothing: these tests need a process of their own.
if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["*"]


@pytest.fixture
def native() -> Iterator[None]:
    """What the tests of the compiled library ask for is served by Triton here."""
    from wgan_kernels import use_backend

    with use_backend("triton"):
        yield


@pytest.fixture(autouse=True)
def _opcheck_is_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators that the tests of the compiled library check are those of Triton here, where there is one."""
    import torch

    from wgan_kernels.ops import _triton_operators  # noqa: F401 - registers them

    theirs = torch.library.opcheck

    def opcheck(operator: Any, *args: Any, **settings: Any) -> Any:
        name = operator._schema.name.partition("::")[2]
        served = getattr(torch.ops.wgan_kernels, f"{name}_triton", None)
        return theirs(operator if served is None else served.default, *args, **settings)

    monkeypatch.setattr(torch.library, "opcheck", opcheck)


@pytest.fixture
def backend(native: None) -> str:
    return "triton"


@pytest.fixture(autouse=True, scope="session")
def _bfloat16_is_rounded() -> Iterator[None]:
    """Triton's interpreter truncates float32 to bfloat16, and knows nothing of its subnormal numbers."""
    import torch
    from triton.language import bfloat16, float32
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        if source == float32 and target == bfloat16:
            return torch.from_numpy(data.copy()).bfloat16().view(torch.int16).numpy().view("uint16")
        if source == bfloat16 and target == float32:
            return torch.from_numpy(data.view("int16").copy()).view(torch.bfloat16).float().numpy().view("uint32")
        return theirs(data, source, target, rounding)

    interpreter._convert_float = convert
    yield
    interpreter._convert_float = theirs


@pytest.fixture(autouse=True, scope="session")
def _language_is_patched_once_for_each_kernel() -> Iterator[None]:
    """Triton's interpreter patches its language again where one function calls another, which takes half its time."""
    import triton.language as tl
    from triton.runtime import interpreter

    theirs, patched = interpreter._patch_lang, set()

    def patch(function: Any) -> Any:
        modules = {id(value) for value in function.__globals__.values() if value is tl or value is tl.core}
        if patched and modules <= patched:
            return None
        scope, outermost = theirs(function), not patched
        patched.update(modules)
        restore = scope.restore

        def restore_and_end() -> None:
            patched.clear()
            restore()

        if outermost:
            scope.restore = restore_and_end
        return scope

    if hasattr(interpreter, "_LangPatchScope"):  # other versions than 3.7 may do it otherwise
        interpreter._patch_lang = patch
    yield
    interpreter._patch_lang = theirs


@pytest.fixture(autouse=True, scope="session")
def _dtypes_are_looked_up_once() -> Iterator[None]:
    """Triton's interpreter makes its table of dtypes again at every operation, which takes a tenth of its time."""
    from triton.runtime import interpreter

    theirs, known = interpreter._get_np_dtype, {}

    def dtype(of: Any) -> Any:
        name = str(of)
        if name not in known:
            known[name] = theirs(of)
        return known[name]

    interpreter._get_np_dtype = dtype
    yield
    interpreter._get_np_dtype = theirs


@pytest.fixture(autouse=True)
def _guarded_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    from guards import guards

    # A traced function would meet the guards instead of torch; and guarded tensors do not lie where torch puts them.
    if "compiled" in request.node.name or "opcheck" in request.node.name:
        yield
        return
    with guards():
        yield
