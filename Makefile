# Two commands for users: `make eval` and `make test`; each sets up all it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: eval test test-fast lint format clean help

help:
	@echo "make eval       set up, fetch a small real model, and judge it on MMLU and HumanEval, write report.html"
	@echo "make test       set up and run the whole test suite"
	@echo "make test-fast  the tests that take seconds"
	@echo "make lint       ruff and mypy"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "venv is missing: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

eval: $(READY)
	$(BIN)/qwen-eval models pull smollm2
	$(BIN)/qwen-eval run --tasks mmlu,humaneval --model smollm2 --limit 40
	$(BIN)/qwen-eval report --out report.html

test: $(READY)
	$(BIN)/qwen-eval models pull smollm2
	$(BIN)/pytest -q

test-fast: $(READY)
	$(BIN)/pytest -q -m 'not slow'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
