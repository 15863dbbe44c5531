# Two commands: `make reproduce` (tables and figures) and `make test` (pytest, then the notebooks). Each creates the environment that it needs.
# After a change of a notebook: `make export` (modules, the registry's table, type stubs, docstring parameters).
V ?= .venv
PYTHON ?= python3
JOBS ?= 2
BIN := $(V)/bin
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Several hundred processes of the tests import this package: they find it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: environment reproduce test export docs hooks clean

STATED := settings.ini setup.py pyproject.toml constraints.txt # what an environment is made from

COMPILE = $(BIN)/python -m compileall -qq -j 0 $(V)/lib # by all cores; pip takes one

environment: $(V)/.ok

# Everything: tests, notebooks, site. It can reproduce, too.
$(V)/.ok: $(STATED)
	$(PYTHON) -m venv $(V)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	$(COMPILE) || true
	touch $(V)/.repro $@

# What runs experiments, and no more.
$(V)/.repro: $(STATED)
	$(PYTHON) -m venv $(V)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[repro]"
	$(COMPILE) || true
	touch $@

reproduce: $(V)/.repro
	robust-smooth reproduce $(ARGS)

test: environment
	python -m pytest tests -n $(JOBS) --dist worksteal
	nbdev_test --n_workers $(JOBS)

export: environment
	nbdev_export
	python docs/export.py

docs: environment
	python docs/build.py

hooks: environment
	nbdev_install_hooks

clean:
	rm -rf build dist *.egg-info .pytest_cache _docs
