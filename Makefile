# `make demo` and `make test` do their own set-up: they need Python 3.11 or 3.12 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
# Quick tests at a time; most of their time goes to compilers, which use one core each.
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help setup demo test test-slow lint format clean

help:  ## Show what there is.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /' | column -t -s:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

setup: $(VENV)/.installed-dev  ## Make a virtual environment with everything for development.

demo: $(VENV)/.installed  ## Train, score and show RCMNet on synthetic cells, in minutes.
	$(BIN)/python -m rcmnet_jax data synthetic demo/cells --per-class 8
	$(BIN)/python train.py --config configs/synthetic.py --workdir demo/run
	$(BIN)/python -m rcmnet_jax evaluate --workdir demo/run
	@echo "Look at demo/run/test_confusion.png and demo/run/curves.png (synthetic cells in demo/cells)."

test: $(VENV)/.installed-dev  ## Run the quick tests.
	$(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist loadfile

test-slow: $(VENV)/.installed-dev  ## Run the tests that take minutes.
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.installed-dev  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Bring the code into style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and the demo.
	rm -rf $(VENV) demo
