# make demo | make test | make lint | make clean
#
# Variables: PYTHON       the interpreter that makes .venv (default: the first of Python 3.10 to 3.14 found)
#            VENV         where the environment lives (default: .venv)
#            TORCH_INDEX  an extra package index for torch, e.g. https://download.pytorch.org/whl/cpu
#            METHOD       the method `make demo` uses (default: the program's own)

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
ifeq ($(PYTHON),)
PYTHON := python3
endif
endif

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base-installed
	@mkdir -p out
	$(BIN)/atldiff generate examples/portrait.jpg examples/speech.wav -o out/demo.mp4 --framing head $(if $(METHOD),--method $(METHOD))
	@echo "The video: $(CURDIR)/out/demo.mp4"

# Whole files go to one process after another, a thread each: what a file makes for its tests is made once.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout=300 --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python-made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null || { \
		echo "make: got $$($(PYTHON) --version 2>&1 || true), expected Python 3.10 to 3.14: install one and name it, e.g.  make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "make: $(PYTHON) cannot make virtual environments: on Debian and Ubuntu run  apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.base-installed: pyproject.toml | $(VENV)/.python-made
	@echo "Installing into $(VENV)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.base-installed
	@test -n "$(TORCH_INDEX)" || test "$$(uname -s)" != Linux || command -v nvidia-smi >/dev/null 2>&1 || echo \
		"No NVIDIA GPU seen. Should pip fetch CUDA packages of several GB, stop it and run  make TORCH_INDEX=https://download.pytorch.org/whl/cpu test"
	$(PIP) -e ".[dev,train]"
	@touch $@
