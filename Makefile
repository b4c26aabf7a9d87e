# Everything a newcomer needs: `make report`, `make test`, `make lab`. `make help` lists the rest.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# processes of the tests, each of one thread and some 3 GB of memory
WORKERS ?= 2
IMAGE ?= data/images/poster.png
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help report test check lab pages bench constraints clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "attnlib needs Python 3.11 or newer on the PATH"; exit 1; }
	@echo "creating the environment in $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.user: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing attnlib (PyTorch is large: this takes a few minutes the first time) ..."
	@$(PIP) -e ".[models,regions]"
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing attnlib and the tools of its tests (a few minutes the first time) ..."
	@$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.user

report: $(VENV)/.user ## Make the sample report: where a real vision transformer looks on a poster
	@$(BIN)/attnlib report $(IMAGE) -o reports

test: $(VENV)/.dev check ## Run all checks and tests, notebooks included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(VENV)/.dev ## Format, lint, types, import contracts, stripped notebooks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

lab: $(VENV)/.dev ## Open JupyterLab on the notebooks
	$(BIN)/attnlib lab

pages: $(VENV)/.dev ## Render the teaching notebooks to offline interactive HTML with an index
	$(BIN)/attnlib pages reports/pages

bench: $(VENV)/.dev ## Measure speed, memory and quality (ratios in one run; hours)
	for b in benchmarks/*.py benchmarks/families/sweep.py; do $(BIN)/python $$b || exit 1; done

constraints: ## Pin every dependency at its newest version, in a fresh environment
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/python -m pip install --quiet -e ".[dev]"
	{ head -2 constraints.txt; build/pins/bin/python -m pip freeze --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## Remove the environment and what was built
	rm -rf $(VENV) build dist reports
