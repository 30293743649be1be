# The commands of this project. Each makes its own virtualenv in .venv when there is none.
#   make demo     pack, train, test and report a drawn dataset on this machine
#   make quick    the tests that take seconds, for the daily loop
#   make test     the tests; a real SLURM is installed and started for some (root on Debian)
#   make test-slurm   only those on a real SLURM
#   make lint     formatting, style, types, import direction
#   make check    lint and test: what CI runs
#   make drill    kill a small run a hundred times, and compare it with one left alone
#   make bench    measure every claim that needs no GPU; writes benchmarks/README.md
#   make peers    install what `make bench` compares with, into .venv/peers
#   make schema   write configs/*.schema.json again, after a change of cardamage/config
#   make docs     the documentation as a site, in site/
#   make clean    remove what can be made again; data/, runs/ and shards/ stay
# Choose another interpreter with: make demo PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo quick test test-slurm lint check drill bench peers schema docs clean

help:
	@sed -n 's/^#   //p' Makefile

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is no Python 3.11, 3.12 or 3.13; name one, as in: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python launch/submit.py configs/smoke.yaml --cluster local
	@echo runs/smoke/report/index.html

quick: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not distributed and not slurm" \
	  --ignore tests/commands --ignore tests/faults --ignore tests/drill $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 $(ARGS)

test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest -m slurm $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

drill: $(INSTALLED)
	$(BIN)/python -m benchmarks.drill.run --kills 100 $(ARGS)

# Without dependencies, so that no peer changes what the project itself uses.
.venv/peers: $(INSTALLED) benchmarks/peers.txt
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --upgrade --target $@ -r benchmarks/peers.txt
	@touch $@

peers: .venv/peers

bench: .venv/peers
	$(BIN)/python -m benchmarks.run $(ARGS)

schema: $(INSTALLED)
	$(BIN)/python -c 'from pathlib import Path; from cardamage.config import loading, study_file; \
	  from cardamage.system import files; \
	  files.write_text(Path("configs/experiment.schema.json"), loading.json_schema()); \
	  files.write_text(Path("configs/study.schema.json"), study_file.json_schema())'

docs: $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
