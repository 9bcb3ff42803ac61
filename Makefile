# Thin: each target makes the environment that it needs in .venv and runs one thing there.
#
#   make demo    train on the digits in the package, then the same in NumPy
#   make test    the tests, against the installed package
#   make lint    ruff, mypy --strict, cython-lint
#   make bench   the benchmarks of the README (some minutes)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# MNIST for tests and benchmarks, where it lies beside the checkout.
ifneq ($(wildcard ../shared/data/mnist),)
export NNFAST_DATA_DIR ?= $(abspath ../shared/data)
endif

# Building compiles only what changed: objects stay in build/.
SOURCES := setup.py pyproject.toml $(wildcard src/nnfast/*.py* src/nnfast/*.pxi src/nnfast/*.h src/nnfast/data/*)

.PHONY: demo test lint bench clean

demo: $(VENV)/demo.installed
	$(BIN)/nnfast train
	$(BIN)/python bench/bench_demo.py

test: $(VENV)/test.installed
	$(BIN)/python -m pytest -q

lint: $(VENV)/lint.installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/cython-lint src/nnfast/*.pyx src/nnfast/*.pxi

bench: $(VENV)/bench.installed
	$(BIN)/python bench/run_all.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info

$(VENV)/demo.installed: EXTRAS = plot,progress
$(VENV)/test.installed: EXTRAS = test
$(VENV)/lint.installed: EXTRAS = lint
$(VENV)/bench.installed: EXTRAS = bench

$(VENV)/%.installed: $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) '.[$(EXTRAS)]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "nnfast needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
