# Everything is installed into .venv from pinned versions; nothing else on the machine is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo example test test-slow check check-latency wheel clean help

help:
	@echo "make demo       install, compress the credit example, print the table"
	@echo "make example NAME=fashion_items  fetch, train where needed, compress and measure an example"
	@echo "make test       install what tests need, run the fast tests"
	@echo "make test-slow  run the tests marked slow: real weights and data"
	@echo "make check-latency  is the credit example's int8 file slower than the committed one?"
	@echo "make check      lint, types, import rules, wheel contents"

demo: .venv/.demo
	$(BIN)/edge-compress run examples/credit_default/recipe.toml --out examples/credit_default/out

example: .venv/.demo
	$(BIN)/python examples/run.py $(NAME)

test: .venv/.test
	$(BIN)/python -m pytest -n 2 $(PYTEST)

test-slow: .venv/.test
	$(BIN)/python -m pytest -m slow --timeout=1800 $(PYTEST)

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@mkdir -p build
	$(BIN)/python -m build --wheel --outdir build/wheel . >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	$(BIN)/python tests/wheel_contents.py build/wheel

check-latency: demo
	$(BIN)/edge-compress check --against main --store benchmarks/baselines/store --budget-s 30

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 2; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv

# torch first and by its exact version: a build for the CPU that lies on a local index or in a cache is then taken.
.venv/.torch: .venv/bin/python constraints.txt
	$(PIP) torch==2.13.0
	@touch $@

.venv/.demo: .venv/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[examples]'
	@touch $@

.venv/.test: .venv/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[test]'
	@touch $@ .venv/.demo

.venv/.dev: .venv/.test
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist examples/*/out
