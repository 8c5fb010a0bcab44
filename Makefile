# The commands of a checkout; `make help` lists them. The first one that needs it makes .venv; nothing else is installed by hand.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := $(patsubst %/__init__.py,%,$(wildcard */__init__.py))
ifndef SEED # `?=` would draw another one at each use
SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif
ARGS ?=
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
MAKEFLAGS += --no-print-directory

# Where the environment forbids compiled modules, each start of Python compiles aiohttp, Faust and the tests anew (5 s of CPU
# instead of 1), and the tests start many. They are kept, but out of the way.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

.PHONY: help .venv demo cdc test test-long check lint types fast bench lock upgrade clean
.DEFAULT_GOAL := help

help: ## list the commands
	@sed -n 's/^\([a-z.-]*\):.*## /make \1\t/p' Makefile | expand -t 18

.venv: .venv/.made ## make or renew the environment (only Python 3.11 or newer is needed)

# Made anew when the lock changes, so that nothing lingers which the lock does not name. What is said goes to standard error:
# `make demo ARGS=--json` must print only JSON.
.venv/.locked: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one by make PYTHON=...")'
	@echo "making .venv from requirements-dev.txt (a minute or less)" >&2
	@$(PYTHON) -m venv --clear .venv >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt >&2
	@touch $@

.venv/.made: .venv/.locked pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
	@touch $@

demo: .venv/.made ## run the shop on sample traffic: make demo ARGS="--events 100000 --seed 7 --json"
	@$(BIN)/streamforge demo $(ARGS)

test: .venv/.made ## everything that must hold: style, types, all tests (also on a real Kafka), the conformance cases
	@$(MAKE) lint types
	@echo "seed $(SEED); again: make test SEED=$(SEED)"
	@$(BIN)/python -m pytest --hypothesis-seed=$(SEED) -m "not slow" $(ARGS)
	@$(BIN)/python -m tests.conformance tests/conformance/windows.json tests/conformance/cep.json

test-long: .venv/.made ## the same with many more examples, and the slow tests
	@echo "seed $(SEED); again: make test-long SEED=$(SEED)"
	@TEST_EFFORT=long $(BIN)/python -m pytest --hypothesis-seed=$(SEED) $(ARGS)

check: .venv/.made ## what to run before each commit: style, types and the fast tests, in under a minute
	@echo "seed $(SEED); again: make check SEED=$(SEED)"
	@$(MAKE) -j2 lint types fast SEED=$(SEED)

lint:
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted; mend it by $(BIN)/ruff format" >&2; exit 1; }

types:
	@$(BIN)/mypy --no-error-summary $(PACKAGES)

fast:
	@TEST_EFFORT=check $(BIN)/python -m pytest -q -x -n 2 --hypothesis-seed=$(SEED) -m "not kafka and not cdc and not slow and not thorough" \
		--ignore=tests/simulation --ignore=tests/chaos --ignore=tests/mutants --ignore=tests/agents --ignore=tests/test_readme.py

cdc: .venv/.made ## PostgreSQL, Debezium, Kafka, a registry and the shop's pipelines on loopback, until Ctrl-C: make cdc ARGS="--seconds 60"
	@$(BIN)/python -m tests.cdc.chain $(ARGS)

bench: .venv/.made ## records a second, memory and latency on a real Kafka, checked against an oracle: make bench ARGS="--n 500000"
	@$(BIN)/python -m tests.bench $(ARGS)

lock: .venv/.made ## write the locks anew after a change of the dependencies in pyproject.toml; versions stay where they can
	@$(LOCK) $(UPGRADE) pyproject.toml -o requirements.txt
	@$(LOCK) $(UPGRADE) --constraint requirements.txt --extra avro --extra checkpoints --extra duckdb --extra jsonschema --extra postgres --extra protobuf --extra sql \
		--extra dev pyproject.toml -o requirements-dev.txt

upgrade: ## the same with the newest versions that fit
	@$(MAKE) lock UPGRADE=--upgrade

clean: ## remove what was made here, but for the broker's jars in .cache
	rm -rf .venv var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
