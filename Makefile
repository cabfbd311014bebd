# make help says what there is. VENV may name an environment elsewhere; it is reused if it fits.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The stamp's name holds what is installed: other versions, another stamp, a new installation.
KEY := $(shell cat pyproject.toml .constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.avnb-$(KEY)

.DEFAULT_GOAL := help
.PHONY: help install book smoke test lab check clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

$(STAMP): pyproject.toml .constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11, or name a newer one: make PYTHON=python3.12"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { echo "No environment could be made in $(VENV) (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]' --constraint .constraints.txt --progress-bar on
	rm -f $(VENV)/.avnb-* && touch $@

# An environment outside the clone may hold another clone's avnb: point it here.
install: $(STAMP) ## install the package and all it needs into .venv (about 7 GB)
	@$(BIN)/python -P -c "import avnb, pathlib; assert pathlib.Path(avnb.__file__).parent == pathlib.Path('avnb').resolve()" 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --no-deps -e .

book: install ## everything at demo size: synthetic videos, pre-training, all notebooks, the book
	$(BIN)/python -m avnb book --profile demo

smoke: install ## as `make book`, at the smallest size, in under three minutes
	$(BIN)/python -m avnb book --profile smoke

# Three files of tests at once: on two cores, one of them often waits for a process or a clock.
test: install ## install what tests need, lint, type-check, run all tests
	@command -v chromium >/dev/null || .ci/browser
	@command -v sbatch >/dev/null || .ci/slurm
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lab: install ## JupyterLab with the notebooks
	$(BIN)/python -m jupyterlab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## delete build/ (videos, checkpoints, results, book), not the environment
	rm -rf build
