"""A small trainer of generative adversarial networks on real data: `python -m wgan_kernels.trainer --help`."""
