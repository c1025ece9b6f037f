# Everything a developer runs. `make demo` and `make test` do all the set-up themselves, Debian packages
# included; see .ci/setup.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# What is compiled once is kept, whatever the environment says: tests start a thousand Python programs, and to
# compile the modules of one takes as long as to run it.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
SOURCES := tciafs tests
DIR ?= demo
PYTEST_ARGS ?=

.PHONY: help demo demo-stop test check format docs bench fuzz clean setup-run setup-test setup-bench setup-fuzz

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: setup-run ## Mount the bundled sample archive on ./demo (DIR=FOLDER: elsewhere) and show it
	@.ci/demo start "$(DIR)"

demo-stop: ## Unmount it again
	@.ci/demo stop "$(DIR)"

test: check ## Check and test everything, as CI does (PYTEST_ARGS="-k name": some of it)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: setup-test ## Check format, style and types
	@$(BIN)/ruff format --quiet --check --output-format concise $(SOURCES) \
		|| { echo 'make format puts that right'; exit 1; }
	@$(BIN)/ruff check --quiet --output-format concise $(SOURCES)
	@$(BIN)/python -m mypy --no-error-summary

format: setup-test ## Format the code, and mend what can be mended by itself
	@$(BIN)/ruff check --fix $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

docs: setup-test ## Build the documentation as a web site in build/site; warnings are errors
	@.ci/docs

bench: setup-bench ## Measure against plain disk and peers (BENCH_ARGS: its options)
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

fuzz: setup-fuzz ## Look for bytes that nothing should choke on (FUZZ_ARGS: its options)
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

clean: demo-stop ## Remove what the above made, the environment too
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo-cache .fuzz build dist
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

setup-run setup-test setup-bench setup-fuzz: setup-%:
	@.ci/setup $*
