# GNU make and bash. `make` lists the targets; each makes the environment that it needs.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# The Python that makes .venv; by default scripts/find-python.sh takes the first of 3.13, 3.12, 3.11 and python3 that fits.
PYTHON ?=
export PYTHON

# More arguments for pytest or the benchmark: make test ARGS="-k where -x"
ARGS ?=

# How much `make fuzz` tries, and which files.
FUZZ_ROWS ?= 20000
FUZZ_SEED ?= $(shell date +%s)

# What `make chaos` runs: `laptop`, `cluster`, or both; so many runs of each, from this seed on; rows by default 100,000 and 50,000.
CHAOS_WHERE ?= laptop cluster
CHAOS_RUNS ?= 1
CHAOS_SEED ?= $(shell date +%s)
CHAOS_ROWS ?=
CHAOS_PACE ?= 4

BIN := .venv/bin
TYPED := worker/pipelinejob operator/pipelinejob_operator operator/pipelinejob_gateway operator/pipelinejob_kubectl $(wildcard data/generate.py data/train.py)

.PHONY: help demo test test-unit fuzz chaos lint verify package lock image cluster-up cluster-down bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed-run ## run the sample job on this machine
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: .venv/.installed ## all tests; REQUIRE_CLUSTER=1 skips none for lack of a cluster
	@if [ -n "$$REQUIRE_CLUSTER" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then scripts/system-packages.sh cluster; fi
	@echo "test: everything under tests/"
	@scripts/test.sh $(ARGS)

test-unit: .venv/.installed ## the tests that need neither a database nor processes
	@echo "test: tests/unit"
	@$(BIN)/python -m pytest -q tests/unit $(ARGS)

fuzz: .venv/.installed ## break FUZZ_ROWS pictures and CSVs by FUZZ_SEED, far more than `make test` does
	@FUZZ_ROWS=$(FUZZ_ROWS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest -q -s tests/fuzz $(ARGS)

chaos: .venv/.installed ## CHAOS_RUNS jobs under random faults by CHAOS_SEED, on the laptop and in a cluster, every row checked
	@for where in $(CHAOS_WHERE); do \
	    PYTHONPATH=tests $(BIN)/python -m chaos --where $$where --runs $(CHAOS_RUNS) --seed $(CHAOS_SEED) \
	        --pace $(CHAOS_PACE) $(if $(CHAOS_ROWS),--rows $(CHAOS_ROWS)) $(ARGS) || exit 1; \
	done

lint: .venv/.installed ## style, types, the direction of imports, stray addresses
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(TYPED)
	$(BIN)/lint-imports
	@for script in .ci/run scripts/*.sh; do bash -n "$$script" || exit 1; done
	scripts/check-tree.sh

verify: .venv/.installed ## generated files are current: locks, CRD, reference, install.yaml
	scripts/check-locks.sh
	scripts/check-generated.sh
	scripts/check-install.sh

package: .venv/.installed ## wheel and sdist into dist/, tried out in an empty environment
	@rm -rf build dist *.egg-info worker/*.egg-info
	$(BIN)/python -m build --quiet --no-isolation --outdir dist
	@rm -rf build *.egg-info worker/*.egg-info
	scripts/check-package.sh

image: ## the images pipelinejob-worker, -operator and -gateway, by docker, podman or buildah
	@scripts/image.sh

cluster-up: .venv/.installed ## a real cluster with the images, the sample catalogue and the chart
	@PYTHONPATH=tests $(BIN)/python -m cluster up

cluster-down: .venv/.installed ## take it away, with all that it made
	@PYTHONPATH=tests $(BIN)/python -m cluster down

lock: .venv/.installed ## write requirements/*.txt anew; UPGRADE=1 takes newer versions
	@scripts/lock.sh

bench: .venv/.installed .venv-bench/.installed-bench ## measure, beside the other engines
	$(BIN)/python tests/bench/bench.py $(ARGS)

clean: ## remove what builds and tools left; .venv and runs' results stay
	rm -rf build dist *.egg-info worker/*.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find worker operator tests data -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.installed: pyproject.toml requirements/dev.txt
	@scripts/setup.sh dev

.venv/.installed-run: pyproject.toml requirements/run.txt requirements/build.txt
	@scripts/setup.sh run

.venv-bench/.installed-bench: requirements/bench.txt
	@scripts/setup.sh bench
