"""What the operators over pairs of points are told: torch's setting of TF32, and constants that graphs read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

import wgan_kernels as wk
from wgan_kernels.ops import _mixtures

MATMUL = torch.backends.cuda.matmul


@pytest.fixture
def precision() -> Iterator[Callable[[str], None]]:
    before = MATMUL.fp32_precision
    yield lambda name: setattr(MATMUL, "fp32_precision", name)
    MATMUL.fp32_precision = before


def tf32_in_graph(x: torch.Tensor) -> bool:
    """What a compiled call on x takes the setting to be."""
    seen: list[Any] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.extend(node for node in graph.graph.nodes if "add" in str(node.target))
        return graph

    torch._dynamo.reset()
    torch.compile(lambda x: x + _mixtures.allows_tf32(x), backend=backend, fullgraph=True)(x)
    (node,) = seen
    return node.args[1]


@pytest.mark.parametrize("name", ["tf32", "ieee"])
def test_compiled_calls_see_the_setting_by_its_new_name(name: str, precision: Callable[[str], None]) -> None:
    precision(name)
    with FakeTensorMode():
        x = torch.empty(3, 2, device="cuda")
        assert tf32_in_graph(x) == _mixtures.allows_tf32(x) == (name == "tf32")
        assert not _mixtures.allows_tf32(x.double()) and not _mixtures.allows_tf32(torch.empty(3, 2))


def test_a_changed_setting_compiles_anew(precision: Callable[[str], None]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x + _mixtures._tf32_is_set(), backend="eager", fullgraph=True)
    for name in ("ieee", "tf32", "ieee"):
        precision(name)
        assert compiled(torch.zeros(1)).item() == (name == "tf32")


def test_mmd2_compiles_after_the_setting(precision: Callable[[str], None]) -> None:
    x, y, kernel = torch.randn(5, 3), torch.randn(4, 3), wk.kernels.RBF(1.0)
    precision("tf32")
    for backend in ("eager", "aot_eager"):
        torch._dynamo.reset()
        compiled = torch.compile(lambda x, y: wk.mmd2(x, y, kernel), backend=backend, fullgraph=True)
        assert torch.allclose(compiled(x, y), wk.mmd2(x, y, kernel))


def test_a_constant_is_kept_once_for_all_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mixtures, "_captured", {})
    with FakeTensorMode():
        first, second = torch.empty(3, device="cuda"), torch.empty(3, device="cuda")
    for capturing, kept in ((False, 0), (True, 2)):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda capturing=capturing: capturing)
        for _ in range(3):
            _mixtures.keep_for_graphs(first, second)
        assert len(_mixtures._captured) == kept
