# `make` lists what there is. `make run` and `make test` each set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# three at once on two cores, for a test often waits for a server; a file's tests stay together, in their order, for they
# share what its fixtures made; the slow files begin first
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install run wheel quick test torture fuzz year week check map docs clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything that constraints.txt pins

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "volcast needs Python 3.11 or newer; $$($(PYTHON) --version) came. Try: make PYTHON=python3.11 …"; exit 1; }
	@echo "Setting up $(VENV): a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

run: install ## the main job on the simulated exchange, offline
	$(BIN)/volcast run --source simulated --tickers SBUX,AAPL,MSFT,KO,JPM

wheel: install ## dist/volcast-….whl of the last commit
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && git archive HEAD | tar -x -C "$$copy" && \
	$(BIN)/python -m pip --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation --no-index --wheel-dir dist "$$copy"
	@ls dist/*.whl

check: install ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

quick: install ## the tests that need no server, no whole flow, no browser and no kill: two minutes
	$(BIN)/pytest $(SIDE_BY_SIDE)

test: check ## lint, types and all tests; it fails where none is selected
	$(BIN)/pytest $(SIDE_BY_SIDE) -m ''

map: install ## the map of the code in docs/design.md, from the code
	$(BIN)/python docs/make_map.py

docs: $(VENV)/.docs ## the documentation and the notebooks, executed, as a site: build/docs/index.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . build/docs
	cp build/docs/README.html build/docs/index.html

$(VENV)/.docs: $(STAMP)
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	@touch $@

torture: install ## 200 faults at random moments: kills, full disks, clocks, two at once; what is lost, what heals
	$(BIN)/python -m benchmarks.torture

fuzz: install ## 100,000 odd files, stores, settings, command lines and parameters
	VOLCAST_FUZZ=50 $(BIN)/pytest tests/test_fuzz.py

year: install ## a year of the service in minutes, with outages, a regime shift and poor models, and checks
	$(BIN)/python -m benchmarks.year

week: install ## an operator's week in minutes: the real service, its UI, kills, damage, alerts, a move; with checks
	$(BIN)/python -m benchmarks.week

clean: ## remove .venv and caches; keeps ./data and ./.volcast
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
