"""Registers, shared memory and stack of every CUDA kernel, as ptxas reports them, against the table kept beside this.

python tests/cuda_resources.py --write          compiles for every architecture and writes the table
python tests/cuda_resources.py --flags          what NVCC_APPEND_FLAGS has to be for a build whose output --check reads
python tests/cuda_resources.py --check LOG      compares the output of such a build with the table
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".json")
sys.path.insert(0, str(ROOT))
import cuda_toolkit  # noqa: E402 - it lies beside setup.py

# A spill and any warning end the build.
FLAGS = "-Xptxas=-v,-warn-spills,-Werror -Werror=all-warnings"

# Architecture: kernel: [registers, bytes of static shared memory, bytes of stack]
Resources = dict[str, dict[str, list[int]]]
Numbers = TypeVar("Numbers")

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def parse(log: str) -> tuple[Resources, list[str]]:
    """What `-Xptxas -v` said, and the kernels that spill."""
    found: Resources = {}
    spills, entry, stack = [], None, 0
    for line in log.splitlines():
        if match := _ENTRY.search(line):
            entry = match.groups()
        elif entry and (match := _STACK.search(line)):
            stack = int(match[1])
            if match[2] != "0" or match[3] != "0":
                spills.append(f"{entry[0]} on {entry[1]}: {match[0]}")
        elif entry and (match := _USED.search(line)):
            found.setdefault(entry[1], {})[entry[0]] = [int(match[1]), int(match[2] or 0), stack]
            entry = None
    return {arch: _demangled(kernels) for arch, kernels in found.items()}, spills


def _demangled(kernels: dict[str, Numbers]) -> dict[str, Numbers]:
    """Names as they are written: those of the compiler hold a checksum of the file's path."""
    done = subprocess.run(["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True)
    names = [_shortened(name) for name in done.stdout.splitlines()]
    assert len(set(names)) == len(kernels), "two kernels have one name"
    return dict(sorted(zip(names, kernels.values())))


def _shortened(name: str) -> str:
    """wgk::norm_kernel<float, 4> without the type of the result, the parameters and where it is defined."""
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth = 0
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:at]
    return name


def accesses(compiled: Path) -> dict[str, dict[str, int]] | None:
    """How many instructions of each width load from and store to global memory: {kernel: {"LDG.128": 8, ...}}; None
    where there is nothing to disassemble with."""

    def name(kind: str, modifiers: str) -> str:
        width = next((each for each in modifiers.split(".") if each in ("64", "128", "U8", "U16")), "32")
        return f"{kind}.{width}"

    return _counts(compiled, r"\b(LDG|STG)\.([.A-Z0-9]+)", name)


def matrix_products(compiled: Path) -> dict[str, dict[str, int]] | None:
    """The same of instructions for tensor cores: {kernel: {"HMMA.16816.F32.BF16": 8, ...}}."""
    return _counts(compiled, r"\b([DH]MMA)\.([.A-Zx0-9]+)", lambda kind, modifiers: f"{kind}.{modifiers}")


def _counts(compiled: Path, pattern: str, name: Callable[[str, str], str]) -> dict[str, dict[str, int]] | None:
    """Of each kernel, how many instructions there are under what `name` makes of the pattern's groups."""
    tool = _disassembler()
    if tool is None:
        return None
    run = {"capture_output": True, "text": True, "check": True}
    parts = subprocess.run([tool, "-sass", str(compiled)], **run).stdout.split("Function : ")[1:]
    found = {part.split()[0]: dict(Counter(starmap(name, re.findall(pattern, part)))) for part in parts}
    return _demangled(found)


def _disassembler() -> str | None:
    """cuobjdump: of the toolkit, or the one that triton brings along."""
    toolkit = cuda_toolkit.find()
    places = [toolkit.home / "bin"] if toolkit else []
    if (triton := importlib.util.find_spec("triton")) is not None:
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin")
    return shutil.which("cuobjdump", path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))


def table() -> dict:
    return json.loads(TABLE.read_text())


def differences(found: Resources, version: str) -> list[str]:
    """Where a build is not as the table says. Another nvcc may use other numbers, but has the same kernels."""
    known, problems = table(), []
    for arch, kernels in found.items():
        expected = known["kernels"].get(arch, {})
        problems += [f"{arch}: {name} is not in the table" for name in kernels if name not in expected]
        problems += [f"{arch}: {name} is in the table but was not built" for name in expected if name not in kernels]
        for name in kernels.keys() & expected.keys() if version == known["nvcc"] else ():
            if kernels[name] != expected[name]:
                problems.append(f"{arch}: {name} uses {kernels[name]}, in the table {expected[name]}")
    return sorted(problems)


def compile_all(toolkit: cuda_toolkit.Toolkit, architectures: list[str]) -> str:
    """Compiles every kernel for every architecture; the output of nvcc."""
    sources = sorted((ROOT / "csrc" / "core").glob("*.cu"))

    def run(job: tuple[Path, str]) -> str:
        source, architecture = job
        with tempfile.TemporaryDirectory() as folder:
            flags = [*cuda_toolkit.FLAGS, *cuda_toolkit.gencode([architecture]), *FLAGS.split()]
            command = [toolkit.nvcc, *flags, "-c", str(source), "-o", f"{folder}/kernel.o"]
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        return "".join(pool.map(run, [(source, name) for source in sources for name in architectures]))


def write(toolkit: cuda_toolkit.Toolkit) -> None:
    found, spills = parse(compile_all(toolkit, list(cuda_toolkit.DEFAULT_ARCHITECTURES)))
    if spills:
        raise SystemExit("\n".join(spills))
    lines = []
    for arch in sorted(found, key=lambda name: int(name[3:])):
        kernels = ",\n".join(f"   {json.dumps(name)}: {json.dumps(used)}" for name, used in found[arch].items())
        lines.append(f'  "{arch}": {{\n{kernels}\n  }}')
    text = ",\n".join(lines)
    TABLE.write_text(f'{{\n "nvcc": "{toolkit.version}",\n "kernels": {{\n{text}\n }}\n}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", type=Path, metavar="LOG")
    what.add_argument("--flags", action="store_true")
    options = parser.parse_args()
    if options.flags:
        print(FLAGS)
        return
    toolkit = cuda_toolkit.find()
    if toolkit is None:
        raise SystemExit(cuda_toolkit.MISSING)
    if options.write:
        write(toolkit)
        return
    found, spills = parse(options.check.read_text())
    problems = spills + differences(found, toolkit.version)
    if not found:
        problems.append(f"{options.check} says nothing of any kernel: build with NVCC_APPEND_FLAGS='{FLAGS}'")
    if problems:
        raise SystemExit("\n".join(problems))
    print(f"{sum(map(len, found.values()))} kernels for {', '.join(sorted(found))}: as in the table, none spills")


if __name__ == "__main__":
    main()
