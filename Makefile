# make train · make test · make sanitize · make bench · make wheel · make gpu
# Each does the set-up that it needs, in .venv; make gpu uses the python3 that is there, with its torch for CUDA.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
SOURCES := setup.py cuda_toolkit.py pyproject.toml $(wildcard csrc/*/*)
# What was asked for and found is in the stamps' names, so that another torch, or a compiler installed since, counts.
COMPILER := $(notdir $(firstword $(shell command -v $${CXX:-c++})))
READY := .venv/ready-$(TORCH)
INSTALLED := .venv/installed-$(TORCH)-$(or $(COMPILER),reference)
TOOLS := .venv/test-tools
PEERS := .venv/bench-peers

.PHONY: help train test sanitize bench wheel gpu clean
help:
	@sed -n 1,2p Makefile

train: $(INSTALLED)
	@$(BIN)/python -m wgan_kernels.info
	$(BIN)/python -m wgan_kernels.trainer --lr 5e-4 --decay --compare --out runs/wgan-gp

test: $(INSTALLED) $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

sanitize: $(INSTALLED) $(TOOLS)
	tests/core/sanitize.sh $(BIN)/python

# Bound threads: on small machines both otherwise land on one core now and then.
# Some minutes, and one or two more when pykeops meets a new size for the first time.
bench: $(INSTALLED) $(TOOLS) $(PEERS)
	OMP_PROC_BIND=true $(BIN)/python -m pytest benchmarks

# For every GPU, or without CUDA with WGAN_KERNELS_CUDA=0. Built afresh: what ptxas says is held against the table.
wheel: $(INSTALLED) $(TOOLS)
	@mkdir -p build && rm -rf build/temp.* build/lib.*
	WGAN_KERNELS_CUDA=$${WGAN_KERNELS_CUDA:-1} NVCC_APPEND_FLAGS="$$($(BIN)/python tests/cuda_resources.py --flags)" \
	  $(BIN)/pip wheel --verbose --no-build-isolation --no-deps --wheel-dir dist . >build/wheel.log 2>&1 || \
	  { tail -n 40 build/wheel.log; exit 1; }
	test "$${WGAN_KERNELS_CUDA:-1}" = 0 || $(BIN)/python tests/cuda_resources.py --check build/wheel.log
	$(BIN)/python tests/triton_resources.py --check
	@$(BIN)/python -m zipfile -l dist/wgan_kernels-*.whl | grep -q _C.abi3.so || \
	  { echo "The wheel has no compiled library: see $(BIN)/python -m wgan_kernels.info"; exit 1; }

gpu:
	$(PYTHON) tests/gpu/run.py

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed: apt-get install python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "venv is needed: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip "setuptools>=77" wheel ninja numpy
	$(PIP) "$(TORCH)"
	@rm -f .venv/ready-* .venv/installed-*
	@touch $@

$(INSTALLED): $(READY) $(SOURCES)
	@test -n "$(COMPILER)" || \
	  echo "No C++ compiler: everything will run on plain PyTorch. For the kernels: apt-get install g++"
	$(PIP) --no-build-isolation --editable ".[trainer]"
	@touch $@

$(TOOLS): $(READY) pyproject.toml
	@$(PYTHON) -c 'import os, sysconfig as s; exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	  { echo "The headers of Python are needed: apt-get install python3-dev"; exit 1; }
	$(PIP) --group test
	@$(BIN)/python -c 'import cuda_toolkit as cuda; exit(cuda.find() is None)' || $(PIP) --group cuda || \
	  echo "No CUDA compiler: the tests that compile CUDA kernels are skipped"
	@touch $@

$(PEERS): $(READY) pyproject.toml
	@$(PIP) --group bench || echo "Some libraries to compare with are missing: their lines will be left out"
	@touch $@

clean:
	rm -rf .venv build dist runs wgan_kernels/*.so wgan_kernels/_build.json wgan_kernels.egg-info
