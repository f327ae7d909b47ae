"""make gpu: builds the kernels for this machine's GPUs, tests them, and times them. Needs no network.

Works in the Python it is started with, which must have torch with CUDA, setuptools and ninja; pip and setuptools 77 to
install the package, which is else built where it lies; triton, pytest, hypothesis and numpy where their parts are to
run; nvcc and a C++ compiler for the CUDA kernels. One part that fails does not keep the others from running; the exit
status says whether all did well. Writes a JSON and a page under benchmarks/results, whatever failed; output is kept in
build/gpu.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks import results_of  # noqa: E402 - it lies beside the tests

LOGS = ROOT / "build" / "gpu"
# Seconds of each part, together under eight minutes. What a part leaves of them goes to those after it; one that is not
# done when the shares of the later ones begin is given up.
SHARES = {"build": 150, "info": 15, "tests": 130, "benchmarks": 75, "memcheck": 50, "racecheck": 40}
# The first that reads the licence in pyproject.toml, which is a string.
OLDEST_SETUPTOOLS = 77

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
        # Programs of this Python, such as ninja, without which one file is compiled after the other.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self.environment = {**os.environ, "PATH": path, "WGAN_KERNELS_TEST_GPU": "1", "PYTHONUNBUFFERED": "1"}

    def seconds_for(self, part: str) -> float:
        """From now to where the shares of the parts after it begin."""
        parts = list(SHARES)
        end = sum(SHARES[each] for each in parts[: parts.index(part) + 1])
        return end - (time.monotonic() - self.start)

    def run(self, part: str, command: Sequence[str], tail: int = 25, folder: Path = ROOT, **environment: str) -> bool:
        """Runs a part within its time; keeps its output and prints the end of it."""
        limit = self.seconds_for(part)
        if limit <= 5:
            self.outcomes[part] = "FAILED: no time was left for it"
            return False
        log, begin = LOGS / f"{part}.log", time.monotonic()
        print(f"\n== {part}: {' '.join(command)}", flush=True)
        with log.open("w") as out:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**self.environment, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(limit)
                outcome = "ok" if status == 0 else f"FAILED with exit status {status}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers or workers that it started
                process.wait()
                outcome = f"FAILED: not done after {limit:.0f} s"
        print("\n".join(log.read_text(errors="replace").splitlines()[-tail:]))
        self.outcomes[part] = f"{outcome} ({time.monotonic() - begin:.0f} s; {log.relative_to(ROOT)})"
        return outcome == "ok"

    def skip(self, part: str, reason: str, failed: bool) -> None:
        self.outcomes[part] = f"{'FAILED' if failed else 'did not run'}: {reason}"

    def failed(self) -> bool:
        return any(outcome.startswith("FAILED") for outcome in self.outcomes.values())


def setuptools_version() -> str | None:
    try:
        return importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return None


def without_project_file() -> Path:
    """A folder of links to what setup.py needs, so that what is built in it lands in the package itself."""
    folder = LOGS / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("setup.py", "cuda_toolkit.py", "csrc", "wgan_kernels"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(ROOT / name)
    return folder


def build(runner: Runner, capabilities: Sequence[str]) -> None:
    environment = {"WGAN_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": ";".join(capabilities)}
    pip = ["-m", "pip", "install", "--verbose", "--no-build-isolation", "--no-deps", "--editable", "."]
    in_place = [sys.executable, "setup.py", "build_ext", "--inplace"]
    version = setuptools_version()
    if version is None:
        runner.skip("build", "setuptools is not installed", failed=True)
    elif int(version.split(".")[0]) < OLDEST_SETUPTOOLS:
        print(f"setuptools {version} cannot read pyproject.toml ({OLDEST_SETUPTOOLS} can): building without that file,")
        print("and without installing the package.")
        runner.run("build", in_place, folder=without_project_file(), **environment)
    elif not runner.run("build", [sys.executable, *pip], tail=4, **environment):
        print("It could not be installed: building beside the sources instead.")
        runner.run("build", in_place, **environment)
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


def write(runner: Runner, machine: dict[str, object], begin: float) -> None:
    """What became of every part, added to what the benchmarks wrote in this run, if they did."""
    folder = results_of(machine["devices"][0])
    record, page = folder / "gpu.json", folder / "README.md"
    folder.mkdir(parents=True, exist_ok=True)
    measured = record.exists() and page.exists() and page.stat().st_mtime >= begin
    content = json.loads(record.read_text()) if measured else {"cases": [], "failures": ["nothing was measured"]}
    text = page.read_text() if measured else f"# {machine['devices'][0]}\n\nNothing was measured.\n"
    content |= {"run": machine, "parts": runner.outcomes, "seconds": round(time.monotonic() - runner.start)}
    record.write_text(json.dumps(content, indent=1) + "\n")
    parts = "\n".join(f"| {part} | {outcome} |" for part, outcome in runner.outcomes.items())
    page.write_text(f"{text}\n| part of `make gpu` | outcome |\n|---|---|\n{parts}\n")
    print(f"written to {folder.relative_to(ROOT)}")


def main() -> int:
    begin = time.time()
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
    runner.run("info", [sys.executable, "-m", "wgan_kernels.info"])
    test(runner)
    runner.run("benchmarks", [sys.executable, "-m", "benchmarks.gpu"], tail=60)
    sanitize(runner)
    print(f"\n== make gpu, {time.monotonic() - runner.start:.0f} s")
    for part, outcome in runner.outcomes.items():
        print(f"{part:<11} {outcome}")
    write(runner, machine, begin)
    return 1 if runner.failed() else 0


if __name__ == "__main__":
    raise SystemExit(main())
