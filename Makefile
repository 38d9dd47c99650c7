# Each target creates .venv and installs what it needs, at the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench notebook docs compare-seed clean

demo: .venv/installed
	$(BIN)/gliomask demo demo

# The comparison of the original project, reduced to phantoms: five networks and one split, in minutes on a CPU.
# Augmentation is off: with it `segnet`, which has no skip connections, predicts no tumour for some sixty steps.
compare-seed: .venv/installed
	rm -rf compare-seed
	$(BIN)/gliomask phantom compare-seed/cases --cases 12 --size 96
	$(BIN)/gliomask prepare compare-seed/cases -o compare-seed/cache
	for network in unet attention_unet fcn segnet vnet; do \
	    $(BIN)/gliomask train compare-seed/cache -o compare-seed/$$network --network $$network \
	        --patch-size 64 --steps 72 --lr 2e-3 --loss dice+focal --augment 0 || exit 1; \
	done
	cd compare-seed && ../$(BIN)/gliomask compare unet attention_unet fcn segnet vnet -o comparison

test: .venv/installed-dev
	$(BIN)/pytest -q -n auto --maxprocesses 4

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/permutation.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/augment.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/predict.py

# Execute the notebook and save its outputs.
notebook: .venv/installed-dev
	$(BIN)/python docs/make_notebook.py

# The documentation as a site in the folder `site`. Links that lead nowhere are errors, and so are files from elsewhere.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python docs/check_site.py site

# torch is installed first and alone, so that pip uses a CPU build if it finds one and nothing replaces it later.
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
	rm -rf .venv demo compare-seed site
