"""What scripts that torchrun starts have in common: the cases they are asked for are run by all ranks and by pairs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist


def run(
    cases: Mapping[str, Callable[[dist.ProcessGroup], None]], before_each: Callable[[], None] = lambda: None
) -> NoReturn:
    """Those that the command line names, on four ranks."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    torch.set_num_threads(1)
    pairs = [dist.new_group(ranks) for ranks in ((0, 1), (2, 3))]
    for name in sys.argv[1:]:
        for group in (dist.group.WORLD, pairs[dist.get_rank() // 2]):
            before_each()
            cases[name](group)
        dist.barrier()
        if dist.get_rank() == 0:
            print(name, "done", flush=True)
    dist.destroy_process_group()
    # Threads of gloo now and then outlive the interpreter, which aborts the process after all is done.
    os._exit(0)
