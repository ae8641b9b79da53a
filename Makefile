# Every target makes what it needs: the first one you run builds .venv from the pinned versions.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed

# The first interpreter that can build the environment; `make PYTHON=/path/to/python3 ...` overrides.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON = $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python -c '$(USABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

# One worker a core, four at most: each holds its own torch, so each gets one thread.
WORKERS = $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? cores : 4)))
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 MPLBACKEND=Agg

# Wheels of a gigabyte need patience on a slow line.
export UV_HTTP_TIMEOUT ?= 300

.DEFAULT_GOAL := help
.PHONY: help quickstart test lab pins clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(STAMP)  ## the whole method on a toy world, on a CPU
	$(BIN)/p2r quickstart

test: $(STAMP)  ## lint, format check and every test (PYTEST="-k word" for options)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --nbmake tests notebooks --durations=10 $(PYTEST)

lab: $(STAMP)  ## open the notebooks in JupyterLab (LAB="--no-browser --port 8889" for options)
	PATH="$(CURDIR)/$(BIN):$$PATH" jupyter lab --LabApp.default_url=/lab/tree/notebooks $(LAB)

# Resolve with every extra first, then pin the core set at those versions: whatever extra is
# added later, nothing pinned here has to move. Existing pins stay while the ranges admit them;
# `make pins UPGRADE=--upgrade` takes the newest.
pins: $(UV)  ## resolve pyproject.toml anew into requirements.txt
	@together=$$(mktemp) && trap 'rm -f "$$together"' EXIT && cp requirements.txt "$$together" \
	&& $(UV) pip compile pyproject.toml --all-extras --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 \
		--no-header --no-annotate --quiet --output-file "$$together" $(UPGRADE) \
	&& $(UV) pip compile pyproject.toml --extra dev --universal --constraint "$$together" \
		--no-header --no-annotate --quiet --output-file requirements.txt $(UPGRADE)

clean:  ## remove the environment and all caches (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(UV):
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 with its venv \
	module is needed (on Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"

$(STAMP): requirements.txt pyproject.toml | $(UV)
	$(UV) pip install --python $(BIN)/python --requirement requirements.txt
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	@touch $@
