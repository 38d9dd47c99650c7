# Each target makes .venv and installs what it needs, with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench clean

demo: .venv/installed
	$(BIN)/gliomask demo demo

test: .venv/installed-dev
	$(BIN)/pytest -q -n auto --maxprocesses 4

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/step.py

# torch comes first and alone, so that a CPU build which pip finds on this machine is taken and nothing replaces it.
.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch numpy
	touch $@

.venv/installed: .venv/torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo
