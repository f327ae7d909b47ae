"""Which GPUs the compiled library serves, and what says so: pretended, as the answer needs no GPU."""

from __future__ import annotations

import pytest
import torch

from wgan_kernels import _extension


def pretend(
    monkeypatch: pytest.MonkeyPatch, architectures: list[str], capability: tuple[int, int], driver: int
) -> None:
    """A library for these architectures, on a machine with one such device and a driver of that version."""
    monkeypatch.setattr(_extension, "_build_report", lambda: {"cuda": "13.0.88", "cuda_architectures": architectures})
    monkeypatch.setattr(_extension, "LOAD_ERROR", None)
    monkeypatch.setattr(_extension, "_why_not_cuda", _extension._why_not_cuda.__wrapped__)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: driver, raising=False)


@pytest.mark.parametrize(
    ("architectures", "capability", "driver", "reason"),
    [
        (["8.0", "9.0"], (9, 0), 13000, None),
        (["8.0", "9.0"], (8, 9), 13000, None),
        (["8.6", "9.0"], (8, 0), 13000, "built for 8.6, 9.0; the device is of 8.0"),
        (["8.0", "9.0"], (10, 0), 13000, "the device is of 10.0"),
        (["8.0", "9.0+PTX"], (10, 0), 13000, None),
        (["9.0a+PTX"], (10, 0), 13000, "the device is of 10.0"),
        (["9.0a"], (9, 0), 13000, None),
        (["10.0f"], (10, 3), 13000, None),
        (["9.0"], (9, 0), 12080, "the driver knows CUDA 12.8 at most"),
    ],
)
def test_which_devices_the_library_serves(
    architectures: list[str],
    capability: tuple[int, int],
    driver: int,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, architectures, capability, driver)
    device = torch.device("cuda", 0)
    why = _extension.why_not_cuda(device)
    assert _extension.serves_cuda(device) == (reason is None) == (why is None)
    assert reason is None or reason in why
    compiled = torch.compile(lambda x: x + _extension.serves_cuda(device), fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)).item() == (reason is None)


@pytest.mark.parametrize(("architectures", "has_triton", "served"), [
    (["9.0"], True, "served by 'native'"),
    (["8.0"], True, "served by 'triton' (the library was built for 8.0; the device is of 9.0)"),
    (["8.0"], False, "served by 'reference' (the library was built for 8.0; the device is of 9.0; no compiler)"),
])  # fmt: skip
def test_info_says_what_serves_each_device(
    architectures: list[str], has_triton: bool, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, architectures, (9, 0), 13000)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    monkeypatch.setattr(_extension._toolchain, "WHY_NOT", None if has_triton else "no compiler")
    expected = {"cuda:0": f"NVIDIA H200, compute capability 9.0, {served}"}
    assert _extension.build_info()["devices"] == expected
