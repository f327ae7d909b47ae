"""Every operator has its file in every folder, its schema on the one page, and what serves it."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import torch

import wgan_kernels  # noqa: F401 - registers the operators

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wgan_kernels"


def stems(folder: str, pattern: str = "*.py") -> set[str]:
    """The names of the operators' files in a folder, less the pattern's ending."""
    ending = pattern.lstrip("*")
    return {path.name.removesuffix(ending) for path in (ROOT / folder).glob(pattern) if not path.name.startswith("_")}


def native_stems() -> set[str]:
    """The operators that are registered, by the files that give them fake kernels, one by one or all at once."""
    files = [path for path in (PACKAGE / "ops").glob("*.py") if path.name != "_autograd.py"]
    return {path.stem for path in files if re.search(r"(register_fake|twice_differentiable)\(", path.read_text())}


def test_every_operator_has_a_file_in_every_folder() -> None:
    assert stems("wgan_kernels/ops") == stems("wgan_kernels/reference")
    assert {"weight_clip", "interpolate", "norm_penalty"} <= native_stems() <= stems("wgan_kernels/ops")
    assert stems("csrc/core", "*_cpu.cpp") == native_stems()
    assert native_stems() <= stems("csrc/core", "*.h")
    assert stems("csrc/torch", "*.cpp") - {"adapter", "library", "pairs"} == native_stems()
    assert stems("wgan_kernels/_triton") == native_stems()
    assert native_stems() <= stems("csrc/core", "*_cuda.cu")


def schemas() -> dict[str, str]:
    """The schemas that stand on the page, by operator."""
    names = re.findall(r'"(\w+)\(', (PACKAGE / "ops" / "_schemas.py").read_text())
    return {name: str(getattr(torch.ops.wgan_kernels, name).default._schema) for name in names}


def test_all_schemas_stand_on_one_page() -> None:
    registered = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("wgan_kernels::")}
    registered = {name for name in registered if not name.endswith("_triton")}  # made of these, by tests/test_triton.py
    assert registered == {f"wgan_kernels::{name}" for name in schemas()} and len(registered) >= 6
    page = PACKAGE / "ops" / "_schemas.py"
    others = [path for path in PACKAGE.rglob("*.py") if path != page and ".define(" in path.read_text()]
    assert others == []


def test_every_schema_has_a_fake_kernel_and_a_function_that_serves_it() -> None:
    library = (ROOT / "csrc" / "torch" / "library.cpp").read_text()
    for name, schema in schemas().items():
        assert f'impl("{name}"' in library, f"no C++ function serves {name}"
        if "Tensor" in schema:
            has_kernel = partial(torch._C._dispatch_has_kernel_for_dispatch_key, f"wgan_kernels::{name}")
            assert has_kernel("Meta"), f"{name} has no fake kernel"
            assert has_kernel("Autograd"), f"nothing says what the derivative of {name} is"
