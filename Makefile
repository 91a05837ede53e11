# `make demo` and `make test` each work as the only command typed in a fresh clone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-long soak check docs bench tables clean

demo: $(READY)  ## prune a real model on real data, and print what came out
	$(BIN)/sentei demo --out $(or $(OUT),sentei-demo)

test: $(READY)  ## the tests
	$(BIN)/python -m pytest

test-long: $(READY)  ## the tests that are too long for every change
	$(BIN)/python -m pytest -m long

soak: $(READY)  ## kills, full disks, harmed files, bad input: about half an hour on two cores
	$(BIN)/python -m tests.soak --write

check: $(READY)  ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## the site, into site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(READY)  ## measure speed and memory again; results in benchmarks/
	$(BIN)/python -m benchmarks.select
	$(BIN)/python -m benchmarks.overhead

tables: $(READY)  ## the tables of README.md and docs/, from benchmarks/results
	$(BIN)/python -m benchmarks.tables

clean:  ## remove the environment
	rm -rf $(VENV)

# torch first and by itself: its exact pin decides which build everything else is resolved against.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sentei needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[tokens,summaries,vision,embeddings,report,demo,dev,docs,runtime,pack,serve,export,cluster]'
	touch $@
