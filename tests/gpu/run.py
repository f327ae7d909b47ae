"""make gpu: builds the kernels for this machine's GPUs, tests them, and times them. Needs no network.

Works in the Python it is started with, which must have torch with CUDA, setuptools, pip and ninja; triton, pytest,
hypothesis and numpy where their parts are to run; nvcc and a C++ compiler for the CUDA kernels. One part that fails
does not keep the others from running; the exit status says whether all did well. Output is kept in build/gpu.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "gpu"
# Seconds after which a part is given up, so that all of them take under eight minutes.
LIMITS = {"build": 200, "tests": 240, "benchmarks": 150, "memcheck": 90, "racecheck": 90}
TOTAL = 470

DEVICES = """
import json, torch
found = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__, "cuda": torch.version.cuda,
    "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if found else [],
    "capabilities": sorted({"%d.%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})
    if found else [],
}))
"""


class Runner:
    def __init__(self) -> None:
        self.start = time.monotonic()
        self.outcomes: dict[str, str] = {}
        self.environment = {**os.environ, "WGAN_KERNELS_TEST_GPU": "1", "PYTHONUNBUFFERED": "1"}

    def run(self, part: str, command: Sequence[str], tail: int = 25, **environment: str) -> bool:
        """Runs a part within its time; keeps its output and prints the end of it."""
        limit = min(LIMITS[part], TOTAL - (time.monotonic() - self.start))
        if limit <= 5:
            self.outcomes[part] = "FAILED: no time was left for it"
            return False
        log, begin = LOGS / f"{part}.log", time.monotonic()
        print(f"\n== {part}: {' '.join(command)}", flush=True)
        with log.open("w") as out:
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env={**self.environment, **environment},
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                )
                outcome = "ok" if done.returncode == 0 else f"FAILED with exit status {done.returncode}"
            except subprocess.TimeoutExpired:
                outcome = f"FAILED: not done after {limit:.0f} s"
        print("\n".join(log.read_text(errors="replace").splitlines()[-tail:]))
        self.outcomes[part] = f"{outcome} ({time.monotonic() - begin:.0f} s; {log.relative_to(ROOT)})"
        return outcome == "ok"

    def skip(self, part: str, reason: str, failed: bool) -> None:
        self.outcomes[part] = f"{'FAILED' if failed else 'did not run'}: {reason}"


def build(runner: Runner, capabilities: Sequence[str]) -> None:
    environment = {"WGAN_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": ";".join(capabilities)}
    pip = ["-m", "pip", "install", "--verbose", "--no-build-isolation", "--no-deps", "--editable", "."]
    if not runner.run("build", [sys.executable, *pip], tail=4, **environment):
        print("It could not be installed: building beside the sources instead.")
        runner.run("build", [sys.executable, "setup.py", "build_ext", "--inplace"], **environment)
    runner.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def test(runner: Runner) -> None:
    if importlib.util.find_spec("pytest") is None:
        runner.skip("tests", "pytest is not installed", failed=True)
        return
    several = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    runner.run("tests", [sys.executable, "-m", "pytest", "-q", *several, "--durations=5", "tests/gpu"], tail=60)


def sanitize(runner: Runner) -> None:
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    for part in ("memcheck", "racecheck"):
        if tool is None:
            runner.skip(part, "compute-sanitizer is not installed", failed=False)
            continue
        command = [tool, "--tool", part, "--error-exitcode", "9", sys.executable, "tests/gpu/sanitized.py"]
        # An allocation of its own for every tensor, or a read past the end of one would find the next.
        if not runner.run(part, command, PYTORCH_NO_CUDA_MEMORY_CACHING="1"):
            if "Device not supported" in (LOGS / f"{part}.log").read_text(errors="replace"):
                runner.skip(part, "compute-sanitizer does not support this device", failed=False)


def main() -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    found = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    if found.returncode != 0:
        print(f"make gpu needs torch in {sys.executable}:\n{found.stderr[-2000:]}")
        return 1
    machine = json.loads(found.stdout)
    if not machine["devices"]:
        print(f"make gpu needs a GPU: torch {machine['torch']} (CUDA {machine['cuda']}) sees none")
        return 1
    print(f"{', '.join(machine['devices'])}; torch {machine['torch']}; {sys.executable}")
    needed = ("triton", "pytest", "hypothesis", "numpy", "ninja")
    if absent := [name for name in needed if importlib.util.find_spec(name) is None and shutil.which(name) is None]:
        print(f"Not installed here: {', '.join(absent)}")
    runner = Runner()
    build(runner, machine["capabilities"])
    subprocess.run([sys.executable, "-m", "wgan_kernels.info"], cwd=ROOT, env=runner.environment)
    test(runner)
    runner.run("benchmarks", [sys.executable, "-m", "benchmarks.gpu"], tail=60)
    sanitize(runner)
    print(f"\n== make gpu, {time.monotonic() - runner.start:.0f} s")
    for part, outcome in runner.outcomes.items():
        print(f"{part:<11} {outcome}")
    return 1 if any(outcome.startswith("FAILED") for outcome in runner.outcomes.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
