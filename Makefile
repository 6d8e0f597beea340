# make demo: set up everything and run the main job on the embedded corpus.   make test: set up everything and test.

PYTHON ?= python3
FARFEEL := .venv/bin/farfeel
DEMO ?= demo
export FARFEEL_DATA ?= ../shared/data

.PHONY: setup demo test lint bench clean

setup: .venv/ready

# Stale when the dependencies change; an interrupted set-up leaves no `ready`.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

demo: setup
	$(FARFEEL) demo --out $(DEMO)

test: setup
	.venv/bin/pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup
	.venv/bin/python -m benchmarks

clean:
	rm -rf .venv build dist src/*.egg-info
