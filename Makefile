# Thin: each target makes the environment that it needs and runs one thing there.
#
#   make demo    train on the digits in the package, then the same in NumPy
#   make test    the tests, against the installed package
#   make lint    ruff, mypy --strict, cython-lint, zizmor
#   make docs    the site, in docs/_build/html: the tour, run, and the reference
#   make wheel   the sdist and a wheel for each Python of this machine, audited and tested, in dist (20 minutes)
#   make bench   the benchmarks of the README, with the other libraries (75 minutes)

PYTHON ?= python3
BIN := .venv/bin
DEMO_BIN := .venv-demo/bin

# MNIST for tests and benchmarks, where it lies beside the checkout.
ifneq ($(wildcard ../shared/data/mnist),)
export NNFAST_DATA_DIR ?= $(abspath ../shared/data)
endif

# Installing compiles only what changed: objects stay in build/.
SOURCES := setup.py pyproject.toml $(wildcard src/nnfast/*.p* src/nnfast/*.h src/nnfast/data/*)

.PHONY: demo test lint docs wheel bench clean
.PRECIOUS: %/bin/python

demo: .venv-demo/demo.installed
	$(DEMO_BIN)/nnfast train
	$(DEMO_BIN)/python bench/bench_demo.py

test: .venv/test.installed
	$(BIN)/python -m pytest -q

lint: .venv/lint.installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint src/nnfast/*.pyx src/nnfast/*.pxi
	$(BIN)/zizmor --offline --quiet .github

docs: .venv/docs.installed
	rm -rf docs/tour docs/_build
	MPLBACKEND=Agg $(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "see docs/_build/html/index.html"

wheel: .venv/wheel.installed
	$(BIN)/python tools/make_wheels.py

bench: .venv/bench.installed
	$(BIN)/python bench/run_all.py

clean:
	rm -rf .venv .venv-demo build dist src/*.egg-info docs/_build docs/tour

# The demo is somebody's first minute, so it has an environment of its own, compiled for this machine only.
.venv-demo/demo.installed: EXTRAS = plot,progress
.venv-demo/demo.installed: export NNFAST_NATIVE = 1
.venv/test.installed: EXTRAS = test
.venv/lint.installed: EXTRAS = lint
.venv/docs.installed: EXTRAS = docs
.venv/wheel.installed: EXTRAS = wheel
.venv/bench.installed: EXTRAS = bench

%.installed: $(SOURCES)
	@$(MAKE) --no-print-directory $(@D)/bin/python
	$(@D)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check '.[$(EXTRAS)]'
	@touch $@

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "nnfast needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $*
