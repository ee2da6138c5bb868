# `make demo` and `make test` set up .venv on their own; they need Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo-out

.PHONY: demo test test-all check docs fuzz bench profile gpu soak kills rollouts lock clean
.DEFAULT_GOAL := test

# The locked set has a SHA-256 for every file, on the platform that it is tested on; elsewhere the
# versions of constraints.txt are asked for.
LOCKED := $(shell $(PYTHON) -c 'import platform, sys; \
	print((sys.version_info[:2], sys.platform, platform.machine()) == ((3, 11), "linux", "x86_64"))')
# For example an index of builds without CUDA, whose files are not those of requirements.txt: with
# options of your own the versions of constraints.txt are asked for, too.
PIP_OPTIONS ?=
PIP     = $(BIN)/python -m pip install --quiet $(PIP_OPTIONS)
ifeq ($(LOCKED)$(strip $(PIP_OPTIONS)),True)
INSTALL = $(PIP) --require-hashes --no-deps --requirement requirements.txt && \
	$(PIP) --no-deps --no-build-isolation --editable .
else
INSTALL = $(PIP) --constraint constraints.txt --editable '.[test]'
endif

# The environment is remade when what it is made from changes.
$(VENV)/.installed: pyproject.toml constraints.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sonode needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL)
	touch $@

demo: $(VENV)/.installed  ## the whole road on a synthetic cohort, into OUT
	$(BIN)/sonode demo $(OUT)

# Five files at a time, since many tests wait for servers, in their order: the longest are not the
# last. A process that dies ends the run: xdist 3.8 can wait for ever after it has replaced one.
PYTEST = $(BIN)/python -m pytest --numprocesses 5 --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0
test: $(VENV)/.installed
	$(PYTEST) -m 'not slow'

test-all: test  ## the long proofs, too
	$(PYTEST) -m slow

check: $(VENV)/.installed  ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports  # which package may import which: pyproject.toml

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the pages, into docs/_build; a broken link ends it
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build

CASES ?= 100000
SECONDS ?= 3600
SEED ?= 0
fuzz: $(VENV)/.installed  ## CASES broken images, DICOMs and bodies, or SECONDS of them
	$(BIN)/python -m tests.handlers.fuzz --cases $(CASES) --seconds $(SECONDS) --seed $(SEED)

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable '.[bench]'
	touch $@

PARTS ?=
bench: $(VENV)/.bench  ## servers, batch job, Ray, training ... in about 11 minutes, one table; PARTS="serving pacs" for some
	$(BIN)/python -m tests.benchmarks.bench $(PARTS)

profile: $(VENV)/.installed  ## where the time of one image goes, stage by stage
	$(BIN)/python -m tests.benchmarks.stages

DEVICE ?= cuda
gpu: $(VENV)/.installed  ## on a machine with a GPU: its checks and measurements, one page, gpu.md
	$(BIN)/python -m tests.benchmarks.gpu --device $(DEVICE)

soak: $(VENV)/.installed  ## memory over 20,000 requests, and of manifests of up to 1,000,000 rows
	$(BIN)/python -m tests.benchmarks.soak
	$(BIN)/python -m tests.benchmarks.memory

kills: $(VENV)/.installed  ## the batch killed 50 times at random moments and at each stage boundary, a night 30 times
	SONODE_TEST_KILLS=50 $(BIN)/python -m pytest tests/batch/test_kills.py
	SONODE_TEST_KILLS=30 $(BIN)/python -m pytest -m slow tests/batch/night/test_night_kills.py

SERVER ?= torchserve
rollouts: $(VENV)/.installed  ## bad versions and kills at each step, under load: a table
	SONODE_TEST_ROLLOUTS=all $(BIN)/python -m pytest --capture=no -k $(SERVER) \
		tests/archives/rollout/test_rollout_live.py tests/archives/rollout/test_rollout_kills.py

# After a change of what is needed; `uv` reads the hashes of all files from the index.
COMPILE = $(BIN)/uv pip compile pyproject.toml --constraint constraints.txt --generate-hashes \
	--python-platform x86_64-unknown-linux-gnu --no-annotate --quiet \
	--custom-compile-command 'make lock'
lock: $(VENV)/.installed  ## requirements.txt and deploy/requirements.txt from constraints.txt
	$(PIP) 'uv>=0.9'
	$(COMPILE) --python-version 3.11 --extra test --output-file requirements.txt
	$(COMPILE) --python-version 3.12 --extra gateway --extra asgi --extra tracing --extra cpu \
		--output-file deploy/requirements.txt

clean:
	rm -rf $(VENV) $(OUT) *.egg-info .mypy_cache .ruff_cache .pytest_cache
