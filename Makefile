SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
UV_VERSION := 0.13.8
BIN := .venv/bin
STAMP := .venv/.installed
# The lock may be served in part by a local folder (torch's CPU build): pip's own variable is handed on to uv.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Nothing here reports home, and the BentoML store lies inside the project unless the user says otherwise.
export BENTOML_DO_NOT_TRACK := True
export BENTOML_HOME ?= $(CURDIR)/data/bentoml
export DVC_NO_ANALYTICS := 1
export DVC_STUDIO_OFFLINE := true
export FEAST_USAGE := False
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install repro test lint format serve loop services services-stop lock docs dvc-deps clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is needed and not on PATH (set PYTHON=...)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv && $(BIN)/uv --version | grep -q ' $(UV_VERSION) ' || $(BIN)/python -m pip install -q uv==$(UV_VERSION)
	@echo "installing the locked packages into .venv"
	@if [ -z "$$UV_FIND_LINKS" ]; then export UV_TORCH_BACKEND=cpu; fi; \
	 VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --compile-bytecode -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP)  ## the virtual environment, from the lock file

repro: $(STAMP)  ## install, then run the pipeline: data → features → models → gate → Bento
	@$(BIN)/dvc repro
	@$(BIN)/tradeloop status

test: $(STAMP)  ## install, then every test, with coverage
	@$(BIN)/python -m tests.run

lint: $(STAMP)  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)  ## ruff's formatter and its safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

serve: $(STAMP)  ## serve the champion on 127.0.0.1:3000 (PORT=... to change)
	@$(BIN)/tradeloop serve --port $(or $(PORT),3000)

loop: $(STAMP)  ## watch outcomes, retrain, roll out, beside the service
	@$(BIN)/tradeloop loop

services:  ## Redis and PostgreSQL from Debian's packages, on loopback ports 16379 and 15432
	@bash services.sh start

services-stop:  ## stop both
	@bash services.sh stop

lock: $(STAMP)  ## resolve the lock file again, and the Bento's part of it
	@$(BIN)/uv pip compile -q pyproject.toml --extra dev --python-version 3.11 --no-annotate --no-header | sed 's/+cpu$$//' > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@$(BIN)/uv pip compile -q bentos/requirements.in -c requirements.lock --python-version 3.11 --no-annotate --no-header > bentos/requirements.txt

docs: $(STAMP)  ## write docs/features.md from the feature registry
	@$(BIN)/python -m tests.generated_docs

dvc-deps: $(STAMP)  ## write each stage's code dependencies into dvc.yaml from its imports
	@$(BIN)/python -m tests.closure --write

clean:  ## remove what the pipeline made (not the environment, not live state)
	@rm -rf data/raw data/clean data/features data/labels data/training data/models data/reports dvc_plots
