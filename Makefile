# Plain pip under constraints.txt, so that every machine gets the same build. Where there is no GPU,
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in the environment spares torch's CUDA libraries.
VENV   ?= .venv
PYTHON ?= python3
BIN     = $(VENV)/bin
# One thread for each of two processes: on two cores, four threads wait for each other most of the time.
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
STAMP   = $(VENV)/.installed

.PHONY: help install test test-fast lint format quickstart clean
help:            ## list the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(STAMP) ## create .venv with the package and the development tools, versions pinned
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "expected Python 3.11 or later, got $$($(PYTHON) --version); give make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt \
	  --editable ".[dask,onnx,bundle]" --group dev
	touch $@

test: install     ## lint, types, then every test (fast and slow)
	$(MAKE) --no-print-directory lint
	$(PYTEST)

test-fast: install ## the fast tests only
	$(PYTEST) -m "not slow"

lint: install    ## ruff and mypy
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: install  ## rewrite the code in the house format
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

quickstart: install ## phantoms, pre-training, evaluation and report in ./quickstart
	$(BIN)/medprism quickstart --out quickstart --resume auto

clean:           ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
