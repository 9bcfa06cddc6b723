# Every target creates the environment and installs what it needs; `make train` installs the run-time dependencies only.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
POTENTIALS := $(VENV)/.installed-potentials
LOGGERS := $(VENV)/.installed-loggers
BROWSER := $(VENV)/.installed-browser

.PHONY: train potentials loggers browser test test-slow lint format docs reference clean

train: $(RUNTIME)
	$(BIN)/csgcnn train

# One process per core, one thread each. The tests of a file share fixtures, so they run in one process.
test: $(DEV)
	$(PYTEST) -m "not slow and not slurm"

# torchrun, search, kills, SLURM, wheel and sdist, notebook, documentation site.
test-slow: $(DEV) $(DOCS)
	$(PYTEST) -m "slow or slurm"

# The pretrained potentials, whose tests are skipped without them.
potentials: $(POTENTIALS)

# The services of logger=..., whose tests are skipped without them.
loggers: $(LOGGERS)

# What drives Chromium in the tests of reports, which are skipped without it.
browser: $(BROWSER)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS)
	$(BIN)/mkdocs build --strict

# Regenerate docs/reference/configuration.md from the descriptions of the keys.
reference: $(RUNTIME)
	$(BIN)/python -m csgcnn.cli.reference > docs/reference/configuration.md

# The constraint on torch selects the exact build, so torch is installed first.
$(RUNTIME): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV): $(RUNTIME)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DOCS): $(RUNTIME)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(POTENTIALS): $(RUNTIME)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[sevennet,chgnet]'
	touch $@

$(LOGGERS): $(RUNTIME)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[tensorboard,wandb,mlflow]'
	touch $@

$(BROWSER): $(DEV)
	$(BIN)/pip install --quiet --constraint constraints.txt 'playwright>=1.48'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist site
