# The one door: `make demo`, `make test`, and what developers need besides.
.DELETE_ON_ERROR:
.PHONY: help setup system demo page test lint protocol adapters bench soak docs lock fresh clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PAGE := src/cellrun/service/assets/index.html
PACKAGES := web/node_modules/.package-lock.json

# Where a machine forbids Python to keep what it has compiled, every kernel and every command would compile cellrun anew.
export PYTHONDONTWRITEBYTECODE =

help:
	@echo 'demo   run real code in an embedded kernel: streamed output, and a picture in a file'
	@echo 'page   build the page of the service (needs Node.js 18 or later and npm)'
	@echo 'test   lint, types, import contracts and all tests (as root it installs the Debian packages that it needs)'
	@echo 'lint   ruff, mypy, import-linter'
	@echo 'bench  ratios against the common way and raw ZMQ, as a table and as JSON'
	@echo 'soak   long runs, bounded in time, and what `make test` leaves out of more kinds of kernels, users and pages'
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

page: $(PAGE)

$(PACKAGES): web/package.json web/package-lock.json web/.npmrc
	cd web && npm ci --no-audit --no-fund
	@touch $@

$(PAGE): $(PACKAGES) web/build.mjs web/tsconfig.json $(wildcard web/src/*) $(wildcard web/src/frame/*)
	cd web && npm run check && npm run build

# The types of the page's scripts are checked where its packages were installed.
lint: $(STAMP)
	@[ ! -e $(PACKAGES) ] || (cd web && npm run check)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Of the tests much of the time is waiting: four at once keep two processors busy.
test: $(STAMP) system
	$(MAKE) -j 2 --output-sync=target lint protocol adapters
	$(MAKE) page
	$(PYTHON) -m pytest -n 4 --dist loadscope --ignore tests/protocol --ignore tests/adapters

protocol: $(STAMP)
	$(PYTHON) -m coverage run -m pytest tests/protocol -q
	$(PYTHON) -m coverage report

# The frameworks take seconds to import: in one process, not in each of four.
adapters: $(STAMP)
	$(PYTHON) -m pytest tests/adapters -q

docs: $(STAMP)
	$(PYTHON) -m pytest tests/docs -m "not soak"

bench: $(STAMP)
	$(PYTHON) -m bench

# A cell of five minutes, which is waiting, goes beside the first part. What measures time, or takes all processors, has no other tests beside it.
LONG := tests/interfaces/mcp/test_long.py
ALONE := tests/abuse/test_fairness.py tests/abuse/test_exhaust_processes.py

soak: $(STAMP)
	$(MAKE) page
	$(PYTHON) -m pytest $(LONG) -m soak -q & long=$$!; trap "kill $$long; exit 130" INT TERM; \
	$(PYTHON) -m pytest tests/soak $(ALONE) -m soak -q -s; failed=$$?; wait $$long && exit $$failed
	$(PYTHON) -m pytest tests --ignore tests/soak --ignore tests/adapters --ignore $(LONG) $(addprefix --ignore ,$(ALONE)) -m "soak or wide" -q -n 3 --dist loadscope

# Versions and hashes, no registry addresses. Needs uv, which nothing else here does.
lock:
	uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --group dev pyproject.toml -o requirements/dev.txt

fresh:
	scripts/fresh

clean:
	rm -rf $(VENV) build dist web/node_modules src/cellrun/service/assets .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
