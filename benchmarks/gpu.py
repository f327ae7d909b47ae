"""python -m benchmarks.gpu: the GPU kernels against eager PyTorch and against what the GPU can do at best, in one run.

Every contender is shown to compute the same thing before it is timed. Writes benchmarks/results/<GPU>/gpu.json and a
page beside it, anew after every case: one that fails is reported, and the others run.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict

import torch

import wgan_kernels as wk
from benchmarks import gpu_timing as timing
from benchmarks import results_of
from benchmarks.gpu_cases import ALL, Case
from benchmarks.gpu_minibatch import minibatch_discrimination
from benchmarks.gpu_penalties import gradient_penalties


def lines(case: Case) -> list[str]:
    """A case as rows of the page's table."""
    rows = []
    for back_end in [name for name in timing.BACK_ENDS if name in case.seconds]:
        for name, ratio in case.ratios(back_end).items():
            bar = case.bars.get(name)
            met = "" if bar is None else f"{bar:g}: {'met' if ratio >= bar else 'NOT MET'}"
            other = case.seconds.get(name, case.ceilings.get(name, 0.0)) * 1e6
            rows.append(
                f"| {case.name} ({case.how}) | {back_end} | {case.seconds[back_end] * 1e6:.1f} | "
                f"{name} | {other:.1f} | {ratio:.2f} | {met} |"
            )
    return rows + [f"| {case.name} ({case.how}) | {problem} | | | | | |" for problem in case.problems]


def machine() -> dict[str, object]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "cache_mb": round(properties.L2_cache_size / 1e6),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "library": {key: value for key, value in (wk.build_info()["build"] or {}).items() if key.startswith("cuda")},
        "copy_gb_per_s": timing.copy_rate() / 1e9,
        "matrix_product_tflop_per_s": {p: timing.matrix_product_rate(p) / 1e12 for p in ("ieee", "tf32")},
        "exponentials_g_per_s": timing.exponential_rate() / 1e9,
    }


def write(about: dict[str, object], cases: list[Case], failures: list[str]) -> str:
    """The JSON, and the page, which is returned."""
    folder = results_of(str(about["gpu"]))
    folder.mkdir(parents=True, exist_ok=True)
    record = {"machine": about, "cases": [asdict(case) for case in cases], "failures": failures}
    (folder / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    head = ["| case | back end | µs | against | µs | ratio | bar |", "|---|---|---|---|---|---|---|"]
    table = [*head, *(line for case in cases for line in lines(case))]
    facts = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in about.items())
    page = f"# {about['gpu']}\n\nMedians of contenders in turns, in one run of `make gpu`.\n\n{facts}\n\n"
    page += "\n".join(table) + "\n"
    (folder / "README.md").write_text(page)
    return page


def main() -> int:
    torch.manual_seed(0)
    about, cases, failures = machine(), [], []
    for measure in (*ALL, minibatch_discrimination, gradient_penalties):
        try:
            cases += measure()
            torch.cuda.empty_cache()
        except Exception:
            failures.append(f"{measure.__name__}:\n{traceback.format_exc()}")
        page = write(about, cases, failures)
    print("\n".join([page, *failures]))
    return 1 if failures or any(case.problems for case in cases) else 0


if __name__ == "__main__":
    raise SystemExit(main())
