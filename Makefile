# Thin: each target makes the environment that it needs and runs one thing there.
#
#   make demo    train on the digits in the package, then the same in NumPy
#   make test    the tests, against the installed package
#   make lint    ruff, mypy --strict, cython-lint, zizmor
#   make docs    the site, in docs/_build/html: the tour and the examples, run, and the reference
#   make endurance   files changed at random, interrupts, forks, kills, leaks and wrong arguments, many times over (an hour)
#   make debug   the tests, with the bounds of arrays checked (15 minutes)
#   make sanitize    the tests, under AddressSanitizer and UndefinedBehaviorSanitizer (50 minutes)
#   make races   the tests of compiled code with 2 and 8 threads, under ThreadSanitizer, with Clang 19 (20 minutes)
#   make valgrind    the tests of kernels, looking for values that nobody has set (20 minutes)
#   make arm64   the wheel for arm64, made by a cross compiler and tested in an emulator, on Debian (15 to 25 minutes)
#   make wheel   the sdist and a wheel for each Python of this machine, audited and tested, in dist (30 minutes)
#   make bench   the benchmarks of the README, with the other libraries (two hours)

PYTHON ?= python3
BIN := .venv/bin
DEMO_BIN := .venv-demo/bin

# What make races needs beside it are Debian's packages libomp-19-dev, libclang-rt-19-dev and llvm-19.
CLANG ?= clang-19
RACES := kernels vector_maths products zeros layers losses optimizers network plan ranked_plan fit fit_options races \
    inference rescale streams loss_settings orders fit_many gradient gradient_plan numerical_gradient threads c_functions

UNSET := kernels products vector_maths zeros layers losses optimizers

ENDURED := checkpoint fuzzed_files datasets model_files interruption fork containers leaks engine_entries

# MNIST for tests and benchmarks, where it lies beside the checkout.
ifneq ($(wildcard ../shared/data/mnist),)
export NNFAST_DATA_DIR ?= $(abspath ../shared/data)
endif

# Installing compiles only what changed: objects stay in build/.
SOURCES := setup.py pyproject.toml $(wildcard src/nnfast/*.p* src/nnfast/*.h src/nnfast/data/*)

.PHONY: demo test lint docs endurance debug sanitize races valgrind arm64 wheel bench clean
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
	rm -rf docs/tour docs/gallery docs/_build
	MPLBACKEND=Agg $(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "see docs/_build/html/index.html"

endurance: .venv/test.installed
	NNFAST_ENDURANCE=3 NNFAST_FILES=30000 NNFAST_KILLS=50 NNFAST_EVERY=5 $(BIN)/python -m pytest -q -rP $(ENDURED:%=tests/test_%.py)

# Left out: what the optimising compiler makes of the innermost loops, and the benchmarks, which are NumPy for the most part.
BUT_SPEED := --ignore=tests/test_disassembly.py --ignore=tests/test_bench.py

# Left out besides: threads that wait for a core, since checked they work longer than they wait.
debug: .venv-debug/test.installed
	.venv-debug/bin/python -m pytest -q $(BUT_SPEED) -k "not wait_for_a_core"

# Python itself is not compiled for the sanitizers, so they are preloaded. -s: what they say comes before the process ends.
sanitize: .venv-sanitize/test.installed
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	    .venv-sanitize/bin/python -m pytest -q -s $(BUT_SPEED)

# Archer tells ThreadSanitizer what LLVM's OpenMP does; what is compiled without it (Python, NumPy) is not looked at.
# Each address is said in words if llvm-symbolizer is there. Left out: forks, after which no thread can be followed, and what
# Python threads do to a network during a fit, which stores its weights between their reads: each is an old or a new one.
races: .venv-races/test.installed
	for threads in 2 8; do \
	    NNFAST_NUM_THREADS=$$threads LD_PRELOAD="$$($(CLANG) -print-resource-dir)/lib/linux/libclang_rt.tsan-x86_64.so" \
	    OMP_TOOL_LIBRARIES="$$($(CLANG) -print-file-name=libarcher.so)" \
	    TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1 external_symbolizer_path=$$($(CLANG) -print-prog-name=llvm-symbolizer)" \
	    .venv-races/bin/python -m pytest -q -s -p no:cacheprovider $(RACES:%=tests/test_%.py) -k "not during_a_fit and not fork" || exit 1; \
	done

# What the sanitizers above cannot see. Needs valgrind, which has no AVX-512, so baseline and v3. Left out: bounds in ulp, since it
# computes with long double in 64 bits, and inference, whose threads take turns there (19 minutes, once).
valgrind: .venv/test.installed
	PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 valgrind --quiet --error-limit=no --suppressions=tools/valgrind.supp --error-exitcode=9 \
	    $(BIN)/python -m pytest -q -s -p no:cacheprovider $(UNSET:%=tests/test_%.py) -k "not ulp"

arm64: .venv/wheel.installed
	$(BIN)/python tools/test_arm64.py

wheel: .venv/wheel.installed
	$(BIN)/python tools/make_wheels.py

bench: .venv/bench.installed
	$(BIN)/python bench/run_all.py

clean:
	rm -rf .venv .venv-* build dist src/*.egg-info docs/_build docs/tour docs/gallery

# The demo is somebody's first minute, so it has an environment of its own, compiled for this machine only.
.venv-demo/demo.installed: EXTRAS = plot,progress
.venv-demo/demo.installed: export NNFAST_NATIVE = 1
.venv/test.installed: EXTRAS = test
.venv/lint.installed: EXTRAS = lint
.venv/docs.installed: EXTRAS = docs
.venv/wheel.installed: EXTRAS = wheel
.venv-debug/test.installed: EXTRAS = test
.venv-debug/test.installed: export NNFAST_DEBUG_CHECKS = 1
.venv-sanitize/test.installed: EXTRAS = test
.venv-sanitize/test.installed: export NNFAST_SANITIZE = address,undefined
.venv-races/test.installed: EXTRAS = test
.venv-races/test.installed: export NNFAST_SANITIZE = thread
.venv-races/test.installed: export CC = $(CLANG)
.venv-races/test.installed: export LDSHARED = $(CLANG) -shared
.venv/bench.installed: EXTRAS = bench

%.installed: $(SOURCES)
	@$(MAKE) --no-print-directory $(@D)/bin/python
	$(@D)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check '.[$(EXTRAS)]'
	@touch $@

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "nnfast needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $*
