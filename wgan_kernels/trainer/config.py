"""The settings of a run, and the command line and YAML files that are made of them."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser
from jsonargparse.typing import PositiveInt, restricted_number_type

import wgan_kernels as wk

# What torch takes for a size or a seed.
Count = restricted_number_type("Count", int, [(">=", 0), ("<", 2**63)])
Threads = restricted_number_type("Threads", int, [(">=", 1), ("<=", 1024)])
Positive = restricted_number_type("Positive", float, [(">", 0), ("<", torch.inf)])
NotNegative = restricted_number_type("NotNegative", float, [(">=", 0), ("<", torch.inf)])
Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])

ObjectiveName = Literal["gan", "nsgan", "wgan", "wgan-gp", "mmd-gan", "wae-mmd", "wae-gan"]
ArchitectureName = Literal["mlp-small", "mlp", "mlp-deep", "dcgan", "dcgan-layer-norm", "dcgan-constant", "resnet"]
NAMED = "digits, fashion-mnist, 8gaussians, 25gaussians, swissroll, segments"
FILES = "a folder of IDX files or images; a .npy or .npz file; package.module:name of a torch Dataset"


def _option(default: Any, help: str, **facts: bool) -> Any:
    """A field of Config; facts: `own`, the objective has a default of its own; `free`, a resumed run may change it."""
    return field(default=default, metadata={"help": help, **facts})


@dataclass(frozen=True)
class Config:
    """One run; every field is an option of the command line and a key of the YAML file."""

    objective: ObjectiveName = _option("wgan-gp", "what the players minimise")
    data: str = _option("digits", f"{NAMED}; {FILES}")
    architecture: ArchitectureName = _option("mlp-small", "all networks; convolutions take images of side 16, 32, ...")
    width: PositiveInt | None = _option(None, "features of hidden layers, or channels of the first convolution")
    latent: PositiveInt | None = _option(None, "dimensions of the noise or code", own=True)
    steps: PositiveInt = _option(5000, "generator steps")
    batch_size: PositiveInt | None = _option(None, "samples per step", own=True)
    critic_steps: PositiveInt | None = _option(None, "critic steps per generator step", own=True)
    lr: Positive | None = _option(None, "learning rate", own=True)
    decay: bool = _option(False, "let the learning rate fall linearly to 0 over the run")
    penalty_weight: Positive | None = _option(None, "lambda, of penalties or of the codes' distance", own=True)
    kernel_scale: Positive | None = _option(None, "scale of the codes' kernel, times the paper's 2 d_z", own=True)
    clip: Positive | None = _option(None, "bound of the critic's weights", own=True)
    feature_matching: bool = _option(False, "the generator matches mean features of the critic", own=True)
    minibatch_discrimination: bool = _option(False, "the critic sees how near samples of a batch are", own=True)
    label_smoothing: Share = _option(0.0, "how much less than 1 a discriminator is to say of real samples", own=True)
    instance_noise: NotNegative = _option(0.0, "deviation of noise on what the critic sees; falls to 0", own=True)
    historical_averaging: NotNegative = _option(0.0, "weight of ||theta - mean of past theta||^2")
    virtual_batch_norm: bool = _option(False, "batch normalisation by the statistics of a fixed batch")
    ema: Share = _option(0.0, "decay of the averaged generator that makes the samples, 0.999 say; 0: none")
    seed: Count = _option(0, "the same seed gives the same run, bit for bit, on the same machine")
    out: Path = _option(Path("runs/latest"), "folder for the results; those of an earlier run are replaced", free=True)
    resume: bool = _option(False, "continue from the checkpoint in --out, if there is one", free=True)
    checkpoint_every: Count = _option(500, "steps between checkpoints; 0: at the end only", free=True)
    backend: str = _option(os.environ.get("WGAN_KERNELS_BACKEND", "auto"), "auto, native, triton or reference")
    device: Literal["cpu", "cuda"] = _option("cpu", "where networks and data live")
    threads: Threads = _option(1, "threads of torch; networks this small gain little from more", free=True)
    amp: bool = _option(False, "autocast to bfloat16")
    compile: bool = _option(False, "torch.compile of the losses")
    cuda_graphs: bool = _option(False, "losses and gradients as CUDA graphs, by torch.compile; not run on hardware")
    verify: Count = _option(50, "steps between checks against plain PyTorch in float64; 0: none", free=True)
    compare: bool = _option(False, "afterwards, time the same run on plain PyTorch", free=True)
    tensorboard: bool = _option(False, "also write the curves and samples for TensorBoard", free=True)

    def own_settings(self) -> dict[str, Any]:
        """What is asked of the objective instead of its defaults."""
        own = (each.name for each in fields(self) if each.metadata.get("own"))
        return {name: value for name in own if (value := getattr(self, name))}

    def resolved(self, objective: Any) -> "Config":
        """With the objective's defaults in the place of None, for the record."""
        missing = [each.name for each in fields(self) if getattr(self, each.name) is None]
        return replace(self, **{name: getattr(objective, name, None) for name in missing})

    def plain(self) -> dict[str, Any]:
        """Numbers and strings, as files take them."""
        return {**asdict(self), "out": str(self.out)}


def _plain(value: Any) -> Any:
    """jsonargparse's numbers are of subclasses, which files do not take."""
    return next((kind(value) for kind in (bool, int, float) if isinstance(value, kind)), value)


def parse(arguments: Sequence[str] | None = None) -> Config:
    """The configuration that a command line asks for.

    Exits with a message that names the option where it is wrong, or where there can be no such run on this machine.
    """
    about = "Trains generative networks, checking steps against plain PyTorch."
    parser = ArgumentParser(prog="wgan-train", description=about, allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile, help="a YAML file of options, such as a run's config.yaml")
    for each in fields(Config):
        kind = {"action": ActionYesNo(no_prefix="no-")} if each.type is bool else {"type": each.type}
        option = f"--{each.name.replace('_', '-')}"
        parser.add_argument(option, default=each.default, help=each.metadata["help"], **kind)
    given = parser.parse_args(arguments)
    config, error = Config(**{each.name: _plain(given[each.name]) for each in fields(Config)}), parser.error
    if config.device == "cuda" and not torch.cuda.is_available():
        error("argument --device: 'cuda' needs a GPU and a torch built for it")
    if config.cuda_graphs and config.device != "cuda":
        error(f"argument --cuda-graphs: needs --device cuda, got --device {config.device}")
    if config.tensorboard and not find_spec("tensorboard"):
        error("argument --tensorboard: needs the package tensorboard")
    try:  # the library says which back ends there are, and which serve the tensors of a run
        with wk.use_backend(config.backend):
            wk.norm_penalty(torch.ones(1, 1, device=config.device))
    except (RuntimeError, ValueError) as problem:
        error(f"argument --backend: {problem}")
    return config
