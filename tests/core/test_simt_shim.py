"""The shim that runs CUDA kernels on the CPU finds the mistakes that it is there for (simt/bind_probes.cpp)."""

import subprocess
import sys

import numpy as np
import pytest
from core_arrays import SANITIZER, for_any_order

# What the message of the error says, in either order of the threads.
REPORTED = {
    "barrier_in_a_branch": "__syncthreads at .*bind_probes.cpp:|in __syncthreads at .*bind_probes.cpp:",
    "two_barriers": "__syncthreads at .*bind_probes.cpp:.*: thread .* waits in that at .*bind_probes.cpp:",
    "shuffle_in_a_branch": "__shfl_sync at .*bind_probes.cpp:",
    "shuffle_from_a_lane_not_in_the_mask": "lane .* reads lane 20, which is not in the mask 0x0000ffff",
    "lane_not_in_its_mask": "lane .* is not in its own mask 0x0000ffff",
    "different_masks": "__syncwarp .* lanes came with different masks",
    "return_before_a_shuffle": "__shfl_sync .* lane 2 is in the mask 0xffffffff but has returned",
    "barrier_before_a_shuffle": "lane 2 is in the mask 0xffffffff but waits in __syncthreads",
}
# What only a sanitizer sees.
RACES = [
    "missing_barrier",
    "shuffle_for_a_barrier",
    "blocks_that_write_one_element",
    "no_first_fence",
    "no_second_fence",
]


def probe(simt, name, blocks=1, shared_bytes=0, reverse=False):
    out = np.zeros(64)
    simt.probe(simt.Run(reverse), name, out, blocks, shared_bytes)
    return out


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", REPORTED)
def test_reports(simt, name, reverse):
    with pytest.raises(RuntimeError, match=REPORTED[name]):
        probe(simt, name, reverse=reverse)


def test_a_report_leaves_the_shim_usable(simt):
    for _ in range(2):
        with pytest.raises(RuntimeError):
            probe(simt, "barrier_in_a_branch")
        probe(simt, "all_right", shared_bytes=512)


def test_unwritten_shared_memory_is_nan(simt):
    (out,) = for_any_order(simt, lambda run: (probe(simt, "unwritten_shared", reverse=run.reverse),))
    np.testing.assert_array_equal(np.isnan(out), np.arange(64) == 0)


@pytest.mark.parametrize("name", ["all_right", "masks_in_turn"])
def test_all_right(simt, name):
    (out,) = for_any_order(simt, lambda run: (probe(simt, name, shared_bytes=512, reverse=run.reverse),))
    np.testing.assert_array_equal(out, np.arange(64)[::-1])
    probe(simt, "both_fences", blocks=3)


@pytest.mark.parametrize(("blocks", "shared_bytes"), [(0, 0), (1, 228 << 10)])
def test_launches_that_cuda_refuses(simt, blocks, shared_bytes):
    with pytest.raises(RuntimeError, match="status 9"):
        probe(simt, "all_right", blocks, shared_bytes)


def sanitizer_output(name):
    launches = "".join(f"s.probe(s.Run(), {each!r}, numpy.zeros(64), 3, 512); " for each in ("all_right", name))
    code = f"import numpy, simt_module as s; {launches}"  # the second one on memory of the first
    done = subprocess.run([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


@pytest.mark.skipif(SANITIZER != "thread", reason="needs ThreadSanitizer: tests/core/sanitize.sh")
@pytest.mark.parametrize("name", RACES)
def test_races(simt, name):
    status, output = sanitizer_output(name)
    assert status != 0 and "ThreadSanitizer: data race" in output, output


@pytest.mark.skipif(SANITIZER != "address", reason="needs AddressSanitizer: tests/core/sanitize.sh")
def test_shared_arrays_end(simt):
    status, output = sanitizer_output("past_a_shared_array")
    assert status != 0 and ("AddressSanitizer" in output or "out of bounds" in output), output
