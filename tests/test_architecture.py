"""The design's import table, who may use what; and how long the trainer may be."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wgan_kernels"

PENALTY = {"penalty", "critic_loss", "points", "gradient_norms", "routes", "closed_form"}
PENALTY |= {"critics", "diagnosis", "state"}
MMD = {"mmd", "estimators", "mmd_variance", "pair_sums", "relabelling", "samples", "tiled", "two_sample"}
MMD |= {"kid", "ranks", "metrics", "progress"}
BUILT_FROM_OPS = {"optim", "nn"} | MMD | PENALTY
ABOVE_OPS = {"ops", "kernels", "_checks", "_backend"} | BUILT_FROM_OPS
# Layer: the layers of the package that it may import. Each may import itself, torch and the standard library.
MAY_IMPORT = {
    "_toolchain": set(),
    "_extension": {"_toolchain"},
    "_checks": set(),
    "_backend": {"_extension", "_toolchain", "_checks"},
    "reference": set(),
    "_triton": set(),
    "ops": {"_extension", "_backend", "_checks", "reference", "_triton"},
    "kernels": {"reference", "_checks"},
    "bandwidths": {"_checks", "samples"},
    **{layer: ABOVE_OPS for layer in BUILT_FROM_OPS},
}
# Who sits on the public names only, and may use other libraries.
USERS = {"trainer", "examples", "benchmarks", "docs"}
# What imports other libraries, and is imported on first use, or by the user, only.
ON_FIRST_USE = {"_triton", "ops._triton_operators", "metrics"}
# Other libraries, by layer: imported with it where it is imported on first use, and inside functions elsewhere.
MAY_USE = {"_triton": {"triton"}, "metrics": {"torchmetrics"}, "progress": {"tqdm"}}
# Where torch.ops may be named, and which namespaces of it.
MAY_NAME_OPS = {"ops": {"wgan_kernels"}, "_triton": {"wgan_kernels"}, "_extension": {"wgan_kernels", "load_library"}}
MAY_NAME_OPS["closed_form"] = {"aten"}
# Where an autograd.Function is made: called by ops, or not inside a critic.
MAY_MAKE_FUNCTIONS = {"ops/_autograd.py", "closed_form/attach.py", "closed_form/recorder.py"}


def layer_of(path: str) -> str:
    """The layer of a file, by its path inside the package, or of a user of the package."""
    return Path(path).parts[0].removesuffix(".py")


def imports(tree: ast.AST, path: str) -> list[tuple[str, bool]]:
    """Every imported name, in full, and whether it is imported when the file is."""
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    here = ["wgan_kernels", *Path(path).parts[:-1]]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            names = [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        else:
            continue
        found += [(name, id(node) not in inner) for name in names]
    return found


def attributes(tree: ast.AST) -> set[str]:
    """Every dotted name, such as torch.ops.wgan_kernels.interpolate, with all its beginnings."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def python_violations(path: str, source: str) -> list[str]:
    """What a Python file (its path inside the package) uses that its layer may not."""
    layer, tree = layer_of(path), ast.parse(source)
    if layer in USERS:
        return user_violations(path, tree)
    problems = []
    for name, at_import in imports(tree, path):
        top, _, rest = name.partition(".")
        if top == "wgan_kernels":
            used = rest.partition(".")[0]
            if layer in ("__init__", "info"):
                continue
            if used != layer and used not in MAY_IMPORT[layer]:
                problems.append(f"{path} imports {name}")
            own = path.removesuffix(".py").replace("/", ".")
            lazy = any(rest == each or rest.startswith(f"{each}.") for each in ON_FIRST_USE)
            if lazy and layer != "_triton" and own not in ON_FIRST_USE and at_import:
                problems.append(f"{path} imports {name} when it is imported itself")
        elif top not in {"torch", *sys.stdlib_module_names}:
            if top not in MAY_USE.get(layer, set()) or (at_import and layer not in ON_FIRST_USE):
                problems.append(f"{path} imports {name}")
        if name.startswith("torch.ops") or name in ("importlib", "importlib.import_module"):
            problems.append(f"{path} imports {name}: torch.ops and other modules are named in full")
    for name in attributes(tree):
        if match := re.fullmatch(r"torch\.ops\.(\w+)", name):
            if match[1] not in MAY_NAME_OPS.get(layer, set()):
                problems.append(f"{path} uses {name}")
        if name.endswith("autograd.Function") and path not in MAY_MAKE_FUNCTIONS:
            problems.append(f"{path} makes an autograd.Function")
    return problems


def user_violations(path: str, tree: ast.AST) -> list[str]:
    problems, aliases = [], {"wgan_kernels"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname for alias in node.names if alias.name == "wgan_kernels" and alias.asname}
    own = f"wgan_kernels.{layer_of(path)}"
    for name, _ in imports(tree, path):
        inside = name.split(".")[1:] if name.split(".")[0] == "wgan_kernels" and not name.startswith(own) else []
        if inside and (inside[0] in {"ops", "reference"} or any(part.startswith("_") for part in inside)):
            problems.append(f"{path} imports {name}")
        if name.startswith("torch.ops"):
            problems.append(f"{path} imports {name}")
    for name in attributes(tree):
        parts = name.split(".")
        private = len(parts) > 1 and parts[1].startswith("_") and not parts[1].startswith("__")
        if parts[0] in aliases and (private or parts[1] in ("ops", "reference")):
            problems.append(f"{path} uses {name}")
        if name == "torch.ops":
            problems.append(f"{path} uses {name}")
    return problems


def cpp_violations(layer: str, source: str) -> list[str]:
    """What a C++ or CUDA file of csrc/core or csrc/torch includes that its layer may not."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.DOTALL)
    problems = []
    for name in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', code, flags=re.MULTILINE):
        foreign = r"(^|/)(torch|ATen|c10|pybind11|numpy)/|^Python\.h$|^extension\.h$"
        stable = re.match(r"torch/(csrc/stable|headeronly)/", name)
        if layer == "core" and (re.search(foreign, name) or name.startswith("..")):
            problems.append(f"includes {name}")
        if layer == "torch":
            if re.search(foreign, name) and not stable:
                problems.append(f"includes {name}")
            if name.startswith("..") and not name.startswith("../core/"):
                problems.append(f"includes {name}")
    if layer == "core" and re.search(r"\b(at|c10|torch|py|pybind11)::", code):
        problems.append("names torch, ATen, c10 or pybind11")
    if layer == "torch" and re.search(r"\b(at|c10|pybind11)::", code):
        problems.append("names ATen, c10 or pybind11")
    if layer == "torch" and "<<<" in code:
        problems.append("launches a kernel")
    return problems


PYTHON_FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
USER_FILES = sorted(p.relative_to(ROOT).as_posix() for user in USERS for p in (ROOT / user).rglob("*.py"))
CPP_FILES = sorted(path.relative_to(ROOT / "csrc").as_posix() for path in (ROOT / "csrc").glob("*/*.*"))


@pytest.mark.parametrize("path", PYTHON_FILES)
def test_python_layers(path: str) -> None:
    known = layer_of(path) in {*MAY_IMPORT, *USERS, "__init__", "info"}
    assert known, f"{path} is of no layer: give it a row in the table and in the design"
    assert python_violations(path, (PACKAGE / path).read_text()) == []


@pytest.mark.parametrize("path", USER_FILES)
def test_users_of_the_package(path: str) -> None:
    assert python_violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", CPP_FILES)
def test_cpp_layers(path: str) -> None:
    layer = path.split("/")[0]
    assert layer in ("core", "torch") and path.count("/") == 1
    assert cpp_violations(layer, (ROOT / "csrc" / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reference/x.py", "from .. import _checks"),
        ("reference/x.py", "from ..ops import weight_clip"),
        ("reference/x.py", "import numpy"),
        ("reference/x.py", "def f():\n    from wgan_kernels.kernels import RBF"),
        ("_checks.py", "from . import _backend"),
        ("_extension.py", "from .ops import _schemas"),
        ("ops/x.py", "from ..penalty import gradient_penalty"),
        ("ops/x.py", "from .. import nn"),
        ("ops/x.py", "import wgan_kernels.trainer"),
        ("ops/x.py", "import triton"),
        ("ops/x.py", "from .._triton import x"),
        ("ops/x.py", "from . import _triton_operators"),
        ("ops/__init__.py", "from ._triton_operators import x"),
        ("ops/x.py", "import torch\ntorch.ops.aten.mm(a, b)"),
        ("ops/x.py", "import torch\nclass F(torch.autograd.Function): pass"),
        ("kernels.py", "from .ops.kernel_sums import kernel_sums"),
        ("penalty.py", "import torch\ntorch.ops.wgan_kernels.interpolate(a, b, c)"),
        ("penalty.py", "import torch\nf = getattr(torch.ops.wgan_kernels, 'interpolate')"),
        ("penalty.py", "from torch.ops import wgan_kernels"),
        ("penalty.py", "from torch import ops"),
        ("penalty.py", "from ._triton import x"),
        ("penalty.py", "from .reference import interpolate"),
        ("penalty.py", "import torch\nclass F(torch.autograd.Function): pass"),
        ("nn.py", "from .trainer import loop"),
        ("mmd.py", "from .metrics import KernelInceptionDistance"),
        ("kid.py", "import torchmetrics"),
        ("kid.py", "def f():\n    import torchmetrics"),
        ("progress.py", "from tqdm.auto import tqdm"),
        ("mmd.py", "import importlib\nimportlib.import_module('wgan_kernels._triton')"),
        ("trainer/x.py", "from .. import _checks"),
        ("trainer/x.py", "from ..ops.interpolate import interpolate"),
        ("trainer/x.py", "import wgan_kernels as wk\nwk._backend.is_native(x)"),
        ("trainer/x.py", "import torch\ntorch.ops.aten.mm(a, b)"),
        ("trainer/y/x.py", "from ..._backend import is_native"),
        ("benchmarks/x.py", "from wgan_kernels import _extension"),
        ("benchmarks/x.py", "from wgan_kernels.reference import interpolate"),
        ("benchmarks/x.py", "import torch\nop = torch.ops.wgan_kernels.interpolate"),
    ],
)
def test_the_check_of_python_layers_sees(path: str, source: str) -> None:
    assert python_violations(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reference/x.py", "import math\nimport torch\nfrom torch import Tensor\nfrom . import y"),
        ("ops/x.py", "from .. import _backend\nfrom ..reference import x\nimport torch\ntorch.ops.wgan_kernels.x"),
        ("ops/x.py", "def f():\n    from .._triton import x"),
        ("ops/x.py", "def f():\n    from . import _triton_operators"),
        ("ops/_triton_operators.py", "from .._triton import x\nfrom . import y"),
        ("_triton/x.py", "import torch, triton\nimport triton.language as tl"),
        ("metrics.py", "from torchmetrics import Metric\nfrom .kid import kernel_inception_distance"),
        ("progress.py", "def f():\n    from tqdm.auto import tqdm"),
        ("closed_form/attach.py", "import torch\ntorch.ops.aten.mm(a, b)\nclass F(torch.autograd.Function): pass"),
        ("penalty.py", "from .ops.interpolate import interpolate\nfrom . import _checks\nfrom .kernels import RBF"),
        (
            "trainer/x.py",
            "import numpy\nimport wgan_kernels as wk\nfrom wgan_kernels import nn\nfrom .loop import train",
        ),
        ("trainer/x.py", "import wgan_kernels as wk\nwk.__version__\nwk.optim.ClippedRMSprop\nself._private"),
        ("trainer/y/x.py", "from ..config import Config\nfrom wgan_kernels.nn import GradientPenalty"),
    ],
)
def test_the_check_of_python_layers_lets_pass(path: str, source: str) -> None:
    assert python_violations(path, source) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("core", "#include <torch/csrc/stable/tensor.h>"),
        ("core", '#include "../torch/adapter.h"'),
        ("core", "#include <ATen/ATen.h>"),
        ("core", "# include <c10/util/Half.h>"),
        ("core", "#include <Python.h>"),
        ("core", "#include <pybind11/numpy.h>"),
        ("core", "void f(at::Tensor x);"),
        ("torch", "#include <torch/extension.h>"),
        ("torch", "#include <torch/torch.h>"),
        ("torch", "#include <ATen/Parallel.h>"),
        ("torch", "#include <c10/cuda/CUDAStream.h>"),
        ("torch", '#include "../other/x.h"'),
        ("torch", "kernel<<<blocks, threads>>>(x);"),
        ("torch", "at::parallel_for(0, n, 1, f);"),
    ],
)
def test_the_check_of_cpp_layers_sees(layer: str, source: str) -> None:
    assert cpp_violations(layer, source) != []


def test_the_check_of_cpp_layers_lets_pass() -> None:
    core = '#include <vector>\n#include "common.h"\n// no #include <torch/extension.h>, no at::\nx << 1;'
    assert cpp_violations("core", core) == []
    stable = '#include <torch/csrc/stable/ops.h>\n#include <torch/headeronly/core/Dtype.h>\n#include "../core/x.h"'
    assert cpp_violations("torch", stable + "\n// launches <<< nothing >>>\ntorch::stable::empty_like(x);") == []


# The trainer is there to be read, as a whole; its experiments one by one.
MOST_TRAINER_LINES = 1200
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Lines that are not blank, a comment or a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            lines |= set(range(token.start[0], token.end[0] + 1)) if token.string else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_the_trainer_stays_thin() -> None:
    trainer = ROOT / "wgan_kernels/trainer"
    paths = {path.relative_to(trainer).as_posix(): path for path in trainer.rglob("*.py")}
    found = {name: code_lines(path.read_text()) for name, path in paths.items() if not name.startswith("experiments/")}
    assert len(found) > 10 and sum(found.values()) < MOST_TRAINER_LINES, found


def test_lines_of_code_are_counted() -> None:
    source = '"""A\nB"""\n\n# C\ndef f():\n    """D"""\n    return """\n"""\n'
    assert code_lines(source) == 3
