"""The tests of the CUDA kernels fail when a kernel loses a barrier, a mask, the guard of a tail, ... (mutants.py).

Copies of the kernels hold every mistake at once, each behind a number in the environment, and are linked with the rest
of simt_module; so one build serves all of them, and without a number its tests pass.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from core_arrays import SANITIZER
from mutants import MUTANTS

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "csrc" / "core"
REPORTS = {"": "Error", "address": "AddressSanitizer", "thread": "ThreadSanitizer: data race"}
NUMBERED = {name: number for number, name in enumerate(MUTANTS, 1)}
NOTICED = {name: mutant for name, mutant in MUTANTS.items() if SANITIZER in mutant.builds}
OPERATORS = sorted({mutant.operator for mutant in MUTANTS.values()})

# Read once: the kernels of another thread must not meet a lock.
SWITCH = """
#pragma once
#include <cstdlib>
inline const int wgk_mutant = std::getenv("WGK_MUTANT") ? std::atoi(std::getenv("WGK_MUTANT")) : 0;
"""


def succeed(command, **options) -> None:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout}"


def write_kernels(folder: Path) -> list[Path]:
    """Copies with every mistake; those to compile, which have what is noticed here."""
    for original in (*CORE.glob("*.cuh"), *CORE.glob("*_cuda.cu")):  # an include finds its neighbours first
        shutil.copy(original, folder)
    for name, mutant in MUTANTS.items():
        path = folder / mutant.file
        code = path.read_text()
        assert code.count(mutant.text) == 1, f"{mutant.file} no longer has {mutant.text!r} once: change {name}"
        changed = mutant.changed.replace("MUTANT", f"(wgk_mutant == {NUMBERED[name]})")
        path.write_text(code.replace(mutant.text, changed))
    (folder / "switch.h").write_text(SWITCH)
    needed = {name for mutant in NOTICED.values() for name in (f"{mutant.operator}_cuda.cu", mutant.file)}
    return sorted(path for path in folder.glob("*.cu") if path.name in needed)


def compile_kernels(build: Path, folder: Path, source: Path, environment: dict[str, str]) -> str:
    entries = json.loads((build / "compile_commands.json").read_text())
    (entry,) = (entry for entry in entries if entry["file"] == str(CORE / source.name))
    command = shlex.split(entry["command"])
    command[command.index("-c") + 1] = str(source)
    command[command.index("-o") + 1] = str(source.with_suffix(".o"))
    include = ["-include", str(folder / "switch.h")]
    succeed([*command, *include, "-O1", "-g0", "-Wno-error"], cwd=entry["directory"], env=environment)
    return str(source.with_suffix(".o"))


@pytest.fixture(scope="module")
def mutants(simt, tmp_path_factory) -> dict[str, str]:
    """An environment whose simt_module has the mistakes."""
    build, folder = Path(simt.__file__).parent, tmp_path_factory.mktemp("mutants")
    sources = write_kernels(folder)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        changed = list(pool.map(lambda source: compile_kernels(build, folder, source, environment), sources))
    unchanged = [
        str(path)
        for part in ("simt_objects.dir", "simt_bindings.dir")
        for path in (build / "CMakeFiles" / part).rglob("*.o")
        if path.name.removesuffix(".o") not in {source.name for source in sources}
    ]
    compiler = os.environ.get("CXX", "c++").split()
    sanitize = {"": [], "address": ["-fsanitize=address,undefined"], "thread": ["-fsanitize=thread"]}[SANITIZER]
    module = folder / Path(simt.__file__).name
    # The changed ones first: of an inline function that several objects have, the linker keeps the first.
    succeed([*compiler, "-shared", *sanitize, "-o", str(module), *changed, *unchanged], env=environment)
    path = os.pathsep.join([str(folder), str(build)])
    return {**os.environ, "PYTHONPATH": path, "WGK_QUICK": "1"}


def run(environment: dict[str, str], operator: str, selected: str, number: int) -> subprocess.CompletedProcess[str]:
    # Without what pytest would load for other tests: most of the time would go there.
    lean = [f"--confcutdir={HERE}", "-p", "no:cacheprovider", "--capture=sys", "-x", "-q"]
    test = [str(HERE / f"test_simt_{operator}.py"), "-k", selected]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *lean, *test],
        cwd=HERE,  # python -m looks there first, and ctest starts where the module without mistakes is
        env={**environment, "WGK_MUTANT": str(number), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize("name", NOTICED)
def test_is_noticed(mutants, name):
    mutant = MUTANTS[name]
    done = run(mutants, mutant.operator, mutant.test, NUMBERED[name])
    assert done.returncode not in (0, 4, 5) and REPORTS[SANITIZER] in done.stdout, done.stdout


@pytest.mark.skipif(SANITIZER != "", reason="the same tests run under the sanitizer without mutants, too")
@pytest.mark.parametrize("operator", OPERATORS)
def test_without_a_mistake_nothing_is_noticed(mutants, operator):
    tests = sorted({mutant.test for mutant in NOTICED.values() if mutant.operator == operator})
    if tests:
        done = run(mutants, operator, " or ".join(f"({test})" for test in tests), 0)
        assert done.returncode == 0 and "passed" in done.stdout, done.stdout


def test_every_operator_loses_something():
    """And a barrier, a mask, a tail, a shuffle and a coefficient are lost."""
    kernels = {path.name.removesuffix("_cuda.cu") for path in CORE.glob("*_cuda.cu")} - {"pair_points"}
    assert kernels == set(OPERATORS)
    kinds = {mutant.kind for mutant in MUTANTS.values()}
    assert kinds >= {"barrier", "mask", "tail", "shuffle", "coefficient"}
