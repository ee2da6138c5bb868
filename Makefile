# `make demo` and `make test` set up .venv on their own; they need Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo-out

.PHONY: demo test check bench clean
.DEFAULT_GOAL := test

# The environment is remade when what it is made from changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sonode needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/.installed  ## the whole road on a synthetic cohort, into OUT
	$(BIN)/sonode demo $(OUT)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

check: $(VENV)/.installed  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks.throughput

clean:
	rm -rf $(VENV) $(OUT) *.egg-info .mypy_cache .ruff_cache .pytest_cache
