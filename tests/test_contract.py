"""The contract with users: names, signatures, docstrings, types."""

from __future__ import annotations

import importlib.util
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import wgan_kernels as wk
from wgan_kernels import kernels, nn, optim

PACKAGE = Path(wk.__file__).parent

PUBLIC = {name: getattr(wk, name) for name in wk.__all__ if not name.startswith("__")}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
MODULES = {name: value for name, value in PUBLIC.items() if isinstance(value, types.ModuleType)}
CLASSES = {name: value for name, value in PUBLIC.items() if isinstance(value, type)} | {
    f"{module.__name__}.{name}": value
    for module in (kernels, nn, optim)
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
}

SIGNATURES = {
    "clip_weights_": "(params_or_module, low, high=None, *, exclude=(), return_stats=False)",
    "interpolate": "(real, fake, mix=None, *, generator=None)",
    "norm_penalty": "(grad, *, target=1.0, one_sided=False, reduction='mean')",
    "gradient_penalty": "(critic, real, fake, *, weight=10.0, target=1.0, one_sided=False, points='mixed', mix=None, "
    "noise=None, generator=None, args=(), kwargs=None, output=None, reduction='mean', sample_weight=None, "
    "norm_dims=None, pac=1, interval=1, step=None, scaler=None, route='auto', return_norms=False, detach=True)",
    "wasserstein_critic_loss": "(critic, real, fake, *, args=(), kwargs=None, output=None, pac=1, return_terms=False, "
    "**penalty)",
    "explain_route": "(critic, sample, *, args=(), kwargs=None, output=None, pac=1)",
    "check_critic": "(critic, sample, *, args=(), kwargs=None, output=None, pac=1)",
    "use_backend": "(name)",
    "build_info": "()",
}


def bare_signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    assert bare_signature(PUBLIC[name]) == SIGNATURES[name]


def test_all_is_complete() -> None:
    assert sorted(wk.__all__) == list(wk.__all__) and len(set(wk.__all__)) == len(wk.__all__)
    assert {"clip_weights_", "gradient_penalty", "interpolate", "norm_penalty", "mmd2"} <= set(wk.__all__)
    assert {"kernels", "nn", "optim", "use_backend", "build_info", "__version__"} <= set(wk.__all__)
    submodules = {path.stem for path in PACKAGE.iterdir()}
    seen = {name for name, value in vars(wk).items() if not name.startswith("_") and name not in submodules}
    assert seen <= set(wk.__all__), "a public name that __all__ leaves out"
    everything: dict[str, Any] = {}
    exec("from wgan_kernels import *", everything)
    assert set(wk.__all__) <= set(everything)


def sections(doc: str) -> dict[str, str]:
    """The text of a docstring by its headings; what comes before them is under ''."""
    parts = re.split(r"^(Args|Returns|Raises):\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2]))}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name: str) -> None:
    function = FUNCTIONS[name]
    doc = sections(function.__doc__ or "")
    assert re.match(r"\S.*\.\n|\S.*\.$|\S.*\n", doc[""]), "no first line"
    signature = inspect.signature(function)
    described = set()
    for line in re.findall(r"^    (\S[^:\n]*):", doc.get("Args", ""), flags=re.MULTILINE):
        described.update(line.split(", "))
    assert described == set(signature.parameters), "Args and the signature name different arguments"
    assert ("Returns" in doc) == (signature.return_annotation not in ("None", None))
    if signature.parameters:
        assert re.search(r"^    \w*Error: ", doc.get("Raises", ""), flags=re.MULTILINE), "no error is described"
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, f"{parameter.name} has no type"
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", ["clip_weights_", "interpolate", "norm_penalty", "gradient_penalty"])
def test_operators_say_their_order_of_differentiation_and_their_source(name: str) -> None:
    doc = FUNCTIONS[name].__doc__
    assert re.search(r"[Dd]ifferentiable", doc) and re.search(r"^ *Source: .*20\d\d", doc, re.MULTILINE)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_documented(name: str) -> None:
    value = CLASSES[name]
    doc = value.__dict__.get("__doc__") or ""
    assert doc and not doc.startswith(f"{value.__name__}("), "no docstring of its own (a dataclass writes one)"
    described = set(re.findall(r"^    (\w+):", sections(doc).get("Args", ""), flags=re.MULTILINE))
    assert described <= set(inspect.signature(value).parameters), "Args names what the constructor does not take"


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_documented(name: str) -> None:
    assert (MODULES[name].__doc__ or "").strip()


def test_the_package_is_typed_and_versioned() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", wk.__version__)
    assert importlib.util.find_spec("wgan_kernels.info") is not None


def test_names_say_where_they_come_from() -> None:
    for name, value in {**FUNCTIONS, **CLASSES}.items():
        assert value.__module__.startswith("wgan_kernels"), name


def test_results_are_tensors_and_nothing_else() -> None:
    x = torch.ones(2, 3)
    assert type(wk.interpolate(x, x)) is torch.Tensor and type(wk.norm_penalty(x)) is torch.Tensor
    critic = torch.nn.Linear(3, 1)
    assert type(wk.gradient_penalty(critic, x, x)) is torch.Tensor
    pair = wk.gradient_penalty(critic, x, x, return_norms=True)
    assert type(pair) is tuple and [type(each) for each in pair] == [torch.Tensor, torch.Tensor]
    assert wk.clip_weights_(critic, 0.1) is None
