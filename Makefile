# `make help` lists the targets. VENV may name an environment elsewhere; it is reused if it fits.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The stamp is named after the requirements, so that other requirements mean a new installation.
KEY := $(shell cat pyproject.toml .constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.avnb-$(KEY)

# One thread: a second one helps small networks little, and sums in another order.
STUDY = OMP_NUM_THREADS=1 $(BIN)/python -m avnb run notebooks/making_studies.ipynb
STUDIES ?= methods,noise,audio path
STUDY_OF = -p profile study -p names "$(STUDIES)"

.DEFAULT_GOAL := help
.PHONY: help install book smoke study lint check test faults lab clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

$(STAMP): pyproject.toml .constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) found: install Python 3.11, or name a newer one: make PYTHON=python3.12"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { echo "No environment could be created in $(VENV) (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]' --constraint .constraints.txt --progress-bar on
	rm -f $(VENV)/.avnb-* && touch $@

# An environment outside the clone may hold another clone's avnb: point it here.
install: $(STAMP) ## install the package and its dependencies into .venv (about 7 GB)
	@$(BIN)/python -P -c "import avnb, pathlib; assert pathlib.Path(avnb.__file__).parent == pathlib.Path('avnb').resolve()" 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --no-deps -e .

book: install ## build the book at demo size: synthetic videos, pre-training, all notebooks
	$(BIN)/python -m avnb book --profile demo

smoke: install ## as `make book` at the smallest size, in some minutes
	$(BIN)/python -m avnb book --profile smoke

study: install ## train the runs behind the studies again, in 1.5 to 4 hours; STUDIES=tuning,families,scale for others
	trap 'kill 0' INT TERM; \
	$(STUDY) build/study-1.ipynb $(STUDY_OF) -p blocks 6,8,10,101 & FIRST=$$!; \
	$(STUDY) build/study-2.ipynb $(STUDY_OF) -p blocks 7,9,11,102 & wait $$FIRST && wait $$!

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Without its cache mypy takes a minute, so it runs beside the tests and reports after them.
check: lint ## lint, format, types and the fast tests, in about a minute
	@types=$$(mktemp); $(BIN)/mypy >$$types 2>&1 & mypy=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile; tests=$$?; \
	wait $$mypy; status=$$?; cat $$types; rm $$types; exit $$((tests | status))

# The book's tests take as long as all others together: they keep one core, the others the second.
test: lint ## as `make check`, with all tests; installs Chromium and SLURM for them
	@command -v chromium >/dev/null || .ci/browser
	@command -v sbatch >/dev/null || .ci/slurm
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: install ## tests of odd and broken videos, folders, lists and machines
	$(BIN)/python -m pytest tests/data tests/test_machines.py

lab: install ## JupyterLab with the notebooks
	$(BIN)/python -m jupyterlab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## delete build/ (videos, checkpoints, results, book), not the environment
	rm -rf build
