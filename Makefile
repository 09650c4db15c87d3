# The two commands: `make run` (a daemon with demo jobs) and `make test`. Everything is set up in .venv by itself.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help run test faults soak check bench clean
.DEFAULT_GOAL := help

help:
	@echo 'make run     the daemon on an embedded Redis, with demo handlers and sample jobs (Ctrl-C ends it)'
	@echo 'make test    the tests, on every redis-server there is (6.2 comes with the embedded extra)'
	@echo 'make faults  every fault of docs/guarantees.md, long ones too (make soak SEED=7 MINUTES=60: a random mix)'
	@echo 'make check   ruff, mypy --strict, import-linter, package build'
	@echo 'make bench   throughput, pickup and idle figures of this machine'
	@echo 'make clean   remove .venv and what was built; data of make run stays in var/'

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'jobqd needs Python 3.11 or later with its venv module (Debian: apt install python3-venv)' >&2; exit 1; }
	@echo 'Setting up $(VENV) with $(PYTHON)...'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo 'Installing jobqd with an embedded Redis and ffmpeg for the demo...'
	@$(PIP) install --editable '.[embedded,demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo 'Installing what the tests need...'
	@$(PIP) install --group test
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo 'Installing what the checks need...'
	@$(PIP) install --group dev
	@touch $@

# jobqd.toml in this directory is what jobqd and jobq read without flags.
run: $(VENV)/.run
	@test -e jobqd.toml || ln -s config/demo.toml jobqd.toml
	@exec $(BIN)/jobqd run

test: $(VENV)/.test
	@$(BIN)/python -m pytest -n auto $(TESTS)

faults: $(VENV)/.test
	@JOBQD_FAULTS=all $(BIN)/python -m pytest -rP tests/fault $(TESTS)

MINUTES ?= 10

soak: $(VENV)/.test
	@$(BIN)/python -m tests.fault.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

check: $(VENV)/.check
	$(BIN)/ruff format --check daemon tests
	$(BIN)/ruff check daemon tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m build --outdir $(VENV)/dist .

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks.throughput
	$(BIN)/python -m tests.benchmarks.pickup

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
