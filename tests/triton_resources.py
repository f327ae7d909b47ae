"""Registers, shared memory and stack of every Triton kernel, compiled without a GPU, against the table beside this.

python tests/triton_resources.py --write             compiles for every architecture and writes the table
python tests/triton_resources.py --check [ARCH ...]  compiles for these, or for all, and compares with the table

A kernel is compiled for what the operators launch it with: they are called on CPU tensors, with launches put aside.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".json")
sys.path.insert(0, str(ROOT))
from triton_launches import DTYPES, Launch, launches  # noqa: E402 - it imports the package that lies here

# With the shared memory that a block may have there.
ARCHITECTURES = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "sm_120": 101376}
TENSOR_CORES = re.compile(r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)")
# A product and a sum with one rounding, and subnormal numbers that become zeros.
INEXACT = re.compile(r"\b(fma\.|\w+\.(rn\.)?ftz)")
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# What says how numbers are rounded, and in which order they are added up: the arithmetic, with exchanges between
# threads, and which thread holds what of a tensor that is summed.
_OPERATIONS = "add|sub|mul|fma|div|rcp|sqrt|ex2|mma|wgmma|tcgen05|shfl"
_ARITHMETIC = re.compile(rf"\b((?:{_OPERATIONS})\.[\w.:]*(?:f16|f32|f64|b32)[\w.:]*)")
_SUMMED = re.compile(r"\}\) : \((tensor<[^)]*)\) ->")
_LAYOUT = re.compile(r"^(#\w+) = (.*)$", re.MULTILINE)
_USED = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")

# Architecture: kernel: [registers, bytes of shared memory, bytes of stack]
Resources = dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class Compiled:
    used: list[int]
    on_tensor_cores: bool
    rounds_every_step: bool
    order: tuple[list[str], list[str]]


def order_of(ptx: str, ttgir: str) -> tuple[list[str], list[str]]:
    """Equal for kernels that compute the same bits, as far as can be seen in what they were compiled to."""
    layouts = dict(_LAYOUT.findall(ttgir))
    summed = [re.sub(r"#\w+", lambda name: layouts.get(name[0], name[0]), each) for each in _SUMMED.findall(ttgir)]
    return sorted(_ARITHMETIC.findall(ptx)), sorted(summed)


def binary_for(launch: Launch, architecture: str, with_sizes: bool = False) -> Any:
    """with_sizes: for sizes of whole vectors, too, where a kernel is compiled for these."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        of_memory = isinstance(value, torch.Tensor)
        signature[parameter.name] = f"*{DTYPES[value.dtype]}" if of_memory else "i32"
        is_known = of_memory or with_sizes and not parameter.do_not_specialize
        if is_known and (value.data_ptr() if of_memory else value) % 16 == 0:
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    return triton.compile(source, target=target, options=launch.options)


def compile_for(launch: Launch, architecture: str) -> Compiled:
    binary = binary_for(launch, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [_CUOBJDUMP, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, static, local = map(int, _USED.search(said).groups())
    used = [registers, max(binary.metadata.shared, static), stack + local]
    ptx = binary.asm["ptx"]
    order = order_of(ptx, binary.asm["ttgir"])
    return Compiled(used, TENSOR_CORES.search(ptx) is not None, INEXACT.search(ptx) is None, order)


def compile_all(architectures: list[str]) -> tuple[Resources, list[str]]:
    """Every kernel for every architecture, and what is wrong with any."""
    found: Resources = {}
    orders: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    problems = []
    for launch in launches():
        for architecture in architectures:
            compiled, where = compile_for(launch, architecture), f"{launch.name} on {architecture}"
            found.setdefault(architecture, {})[launch.name] = compiled.used
            _, shared, stack = compiled.used
            if stack != 0 and is_of_the_table():
                problems.append(f"{where} has {stack} bytes of stack: registers spill")
            if shared > ARCHITECTURES[architecture]:
                problems.append(f"{where} takes {shared} bytes of shared memory, which are not there")
            if launch.multiplies and not compiled.on_tensor_cores:
                problems.append(f"{where} does not multiply on tensor cores")
            if launch.adds_up:
                order = orders.setdefault((launch.family, architecture), compiled.order)
                if not order[0] or order != compiled.order:
                    problems.append(f"{where} does not add up in the order of other configurations")
            if launch.rounds_every_step and not compiled.rounds_every_step:
                problems.append(f"{where} fuses products with sums, or flushes subnormal numbers")
    return found, problems


def table() -> dict:
    return json.loads(TABLE.read_text())


def is_of_the_table() -> bool:
    """Whether this is the Triton that the table belongs to: others take other registers, and may spill."""
    return triton.__version__ == table()["triton"]


def differences(found: Resources) -> list[str]:
    """Where kernels are not as the table says. Another Triton may use other numbers, but has the same kernels."""
    known, problems = table(), []
    for arch, kernels in found.items():
        expected = known["kernels"].get(arch, {})
        problems += [f"{arch}: {name} is not in the table" for name in kernels if name not in expected]
        problems += [f"{arch}: {name} is in the table but was not compiled" for name in expected if name not in kernels]
        for name in kernels.keys() & expected.keys() if is_of_the_table() else ():
            if kernels[name] != expected[name]:
                problems.append(f"{arch}: {name} uses {kernels[name]}, in the table {expected[name]}")
    return sorted(problems)


def write() -> None:
    if not is_of_the_table():
        raise SystemExit(
            f"the table is of Triton {table()['triton']}, as pyproject.toml has it; this is {triton.__version__}"
        )
    found, problems = compile_all(list(ARCHITECTURES))
    if problems:
        raise SystemExit("\n".join(problems))
    lines = []
    for arch in ARCHITECTURES:
        kernels = ",\n".join(f"   {json.dumps(name)}: {json.dumps(used)}" for name, used in sorted(found[arch].items()))
        lines.append(f'  "{arch}": {{\n{kernels}\n  }}')
    text = ",\n".join(lines)
    TABLE.write_text(f'{{\n "triton": "{triton.__version__}",\n "kernels": {{\n{text}\n }}\n}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", nargs="*", choices=ARCHITECTURES, metavar="ARCH")
    options = parser.parse_args()
    if options.write:
        write()
        return
    found, problems = compile_all(options.check or list(ARCHITECTURES))
    if problems + differences(found):
        raise SystemExit("\n".join(problems + differences(found)))
    held = "as in the table, none spills"
    if not is_of_the_table():
        held = f"registers and spills were not looked at, as the table is of Triton {table()['triton']}"
    print(f"{sum(map(len, found.values()))} kernels for {', '.join(found)}: {held}")


if __name__ == "__main__":
    main()
