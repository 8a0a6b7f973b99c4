# The one door: `make demo`, `make test`, and what developers need besides.
.DELETE_ON_ERROR:
.PHONY: help setup system demo test lint bench soak docs lock fresh clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

help:
	@echo 'demo   run real code in an embedded kernel: streamed output, and a picture in a file'
	@echo 'test   lint, types, import contracts and all tests (as root it installs the Debian packages that it needs)'
	@echo 'lint   ruff, mypy, import-linter'
	@echo 'bench  ratios against the common way and raw ZMQ, as a table and as JSON'
	@echo 'soak   long runs, bounded in time'
	@echo 'docs   the tests that execute the documentation'
	@echo 'lock   pin versions anew'
	@echo 'fresh  the two commands and .ci/run in a clean clone with an empty HOME'

$(STAMP): pyproject.toml requirements/dev.txt scripts/setup
	scripts/setup $(VENV)
	@touch $@

setup: $(STAMP)

system:
	scripts/system-packages

demo: $(STAMP)
	@$(PYTHON) examples/demo.py

lint: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(STAMP) system lint
	$(PYTHON) -m coverage run -m pytest tests/protocol -q
	$(PYTHON) -m coverage report
	$(PYTHON) -m pytest -n 2 --dist loadscope --ignore tests/protocol

docs: $(STAMP)
	$(PYTHON) -m pytest tests/docs

bench: $(STAMP)
	$(PYTHON) -m bench

soak: $(STAMP)
	$(PYTHON) -m pytest tests/soak -m soak -q -s
	$(PYTHON) -m pytest tests/abuse -m soak -q -n 2 --dist loadscope

# Versions and hashes, no registry addresses. Needs uv, which nothing else here does.
lock:
	uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --group dev pyproject.toml -o requirements/dev.txt

fresh:
	scripts/fresh

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
