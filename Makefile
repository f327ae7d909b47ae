# make train · make test · make sanitize · make bench · make wheel
# Each does the set-up that it needs, in .venv.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
SOURCES := setup.py pyproject.toml $(wildcard csrc/*/*)

.PHONY: help train test sanitize bench wheel clean
help:
	@sed -n 1,2p Makefile

train: .venv/installed
	@$(BIN)/python -m wgan_kernels.info
	$(BIN)/python -m wgan_kernels.trainer

test: .venv/test-tools
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

sanitize: .venv/test-tools
	tests/core/sanitize.sh $(BIN)/python

# Bound threads: on small machines both otherwise land on one core now and then.
bench: .venv/test-tools
	OMP_PROC_BIND=true $(BIN)/python -m pytest benchmarks

wheel: .venv/installed
	$(BIN)/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

.venv/ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed: apt-get install python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "venv is needed: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip "setuptools>=77" wheel ninja
	$(PIP) "$(TORCH)"
	@touch $@

.venv/installed: .venv/ready $(SOURCES)
	@command -v "$${CXX:-c++}" >/dev/null || \
	  echo "No C++ compiler: everything will run on plain PyTorch. For the kernels: apt-get install g++"
	$(PIP) --no-build-isolation --editable ".[trainer]"
	@touch $@

.venv/test-tools: .venv/installed
	$(PIP) --group test
	@touch $@

clean:
	rm -rf .venv build dist runs wgan_kernels/*.so wgan_kernels/_build.json wgan_kernels.egg-info
