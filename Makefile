# `make` shows what there is. Everything is installed in .venv; beside this folder and ~/.sweepserve only caches change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TORCH = $(shell sed -n 's/^torch==//p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt bench docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## a first sweep from end to end: train, browse, ask the best model (about two minutes)
	$(BIN)/sweepserve demo

test: $(INSTALLED) ## all tests, two files at a time
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

check: $(INSTALLED) ## formatting, ruff, mypy --strict, the import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(INSTALLED) ## format, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(INSTALLED) ## every script in benchmarks/, also after one has failed (hours)
	@failed=; for script in $$(grep -l __main__ benchmarks/*.py); do \
		echo "== $$script"; $(BIN)/python "$$script" || failed="$$failed $$script"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

docs: $(INSTALLED) ## docs/reference.md anew from the code
	$(BIN)/python docs/generate.py

lock: ## constraints.txt anew, from an empty environment; `make lock TORCH=x.y.z` moves torch
	rm -rf .make && $(PYTHON) -m venv .make/lock
	.make/lock/bin/pip install --quiet "torch==$(TORCH)" -e ".[dev,postgres,s3,serve]"
	{ sed -n '/^#/p' constraints.txt; .make/lock/bin/pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+cpu$$//' | LC_ALL=C sort -f; } > .make/constraints.txt
	mv .make/constraints.txt constraints.txt && rm -rf .make

clean: ## remove .venv and every cache; sweeps in ~/.sweepserve stay
	rm -rf .venv .make .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into .venv (once; some minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,postgres,serve]"
	@touch $@
