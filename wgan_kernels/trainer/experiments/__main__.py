"""`python -m wgan_kernels.trainer.experiments NAME`, or `--list`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import torch

try:
    import yaml
    from jsonargparse import ArgumentParser

    from ..checkpoint import prepare
    from ..config import Threads
    from ..files import FileError
    from . import EXPERIMENTS
    from .experiment import Experiment, perform
except ModuleNotFoundError as error:
    if (error.name or "torch").partition(".")[0] in ("wgan_kernels", "torch"):
        raise  # no extra would help
    sys.exit(f"the experiments need {error.name}: install the package with its [trainer] extra")


def make_parser() -> ArgumentParser:
    program = "python -m wgan_kernels.trainer.experiments"
    parser = ArgumentParser(prog=program, description="Puts claims of the literature to the test.")
    parser.add_argument("--list", action="store_true", help="say which experiments there are")
    commands = parser.add_subcommands(dest="name", required=False)
    for name, experiment in EXPERIMENTS.items():
        commands.add_subcommand(name, _parser_of(experiment), help=experiment.question)
    return parser


def _parser_of(experiment: Experiment) -> ArgumentParser:
    parser = ArgumentParser(description=experiment.question)
    folder = "folder for the picture and the JSON"
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"), help=folder)
    parser.add_argument("--threads", type=Threads, default=1, help="threads of torch")
    types = get_type_hints(experiment.settings)
    for each in fields(experiment.settings):
        option = f"--{each.name.replace('_', '-')}"
        parser.add_argument(option, type=types[each.name], default=each.default, help="of the experiment")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, or 2 where a file cannot be read or written."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.list:
        width = max(map(len, EXPERIMENTS))
        print("\n".join(f"{name:{width}}  {each.question}" for name, each in EXPERIMENTS.items()))
        return 0
    if not given.name:
        parser.error("name an experiment, or ask for --list")
    experiment, options = EXPERIMENTS[given.name], given[given.name].as_dict()
    out = options.pop("out")
    torch.set_num_threads(options.pop("threads"))
    try:
        prepare(out)
        result = perform(experiment, experiment.settings(**options), out)
    except FileError as error:
        print(f"experiments: error: {error}", file=sys.stderr)
        return 2
    shown = _brief({name: result[name] for name in ("numbers", "seconds")})
    print(yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=120).strip())
    return 0


def _brief(value: Any) -> Any:
    """Without curves, which the picture shows."""
    if isinstance(value, dict):
        kept = {name: _brief(each) for name, each in value.items() if not (isinstance(each, list) and len(each) > 20)}
        return {name: each for name, each in kept.items() if each != {}}
    return value


if __name__ == "__main__":
    sys.exit(main())
