"""`python -m wgan_kernels.info`: what this installation can do, and why not more."""

from __future__ import annotations

import wgan_kernels


def main() -> None:
    print(f"wgan_kernels {wgan_kernels.__version__}")
    for name, value in wgan_kernels.build_info().items():
        if isinstance(value, dict):
            for key, entry in value.items():
                print(f"{name}.{key:<{20 - len(name)}} {entry}")
        else:
            print(f"{name:<21} {value}")


if __name__ == "__main__":
    main()
