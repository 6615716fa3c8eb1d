# Everything runs in .venv, which the first target that needs it makes; a second run installs nothing unless
# pyproject.toml or constraints-dev.txt has changed.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# lines that no test runs are counted: a sixth slower
COVERAGE ?=
# tests run in so many processes, a file of tests in one
JOBS ?= 2
TUTORIAL_ARGS ?=

BIN := $(VENV)/bin
CONSTRAINTS := constraints-dev.txt
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev

# Idle OpenMP threads sleep: by default they spin, and training beside another busy program is ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install dev demo test test-fast test-lineage lint format docs tutorials build constraints clean distclean

help:
	@echo "make demo       train on the bundled C. elegans cells and write figures and a report to demo/"
	@echo "make test       run the tests (PYTEST_ARGS=... for pytest, JOBS=2 processes, COVERAGE=1 with coverage, as CI does)"
	@echo "make test-fast  run the tests that train no model, in a minute and a half"
	@echo "make test-lineage  run the tests of hand-overs with CellRank, TreeData and pycea, in .venv-lineage"
	@echo "make install    make $(VENV) and install the package"
	@echo "make dev        the same with what tests, checks and documentation need"
	@echo "make lint       check style and types"
	@echo "make format     let ruff rewrite what it can"
	@echo "make docs       build the documentation in docs/_build/html"
	@echo "make tutorials  run the tutorial notebooks (TUTORIAL_ARGS=--inplace keeps their outputs)"
	@echo "make build      build the wheel in build/wheel and check what is in it"
	@echo "make clean      remove what the targets above made; make distclean removes $(VENV) too"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("hdtree-sc needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; use make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# $(call pip_install,EXTRAS): uv is about six times as fast as pip, but does not read pip's configuration, so that pip's
# folders of wheels are handed to it. Where uv cannot be had or does not find a package, pip does the work.
define pip_install
	@echo "installing hdtree-sc$(1) into $(VENV) ..."
	@links="$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)}"; \
	options=""; for link in $$links; do options="$$options --find-links $$link"; done; \
	{ $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) uv \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python $$options --constraint $(CONSTRAINTS) --editable '.$(1)'; } \
	|| $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.$(1)'
endef

$(RUNTIME): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call pip_install,)
	@touch $@

$(DEV): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call pip_install,[dev])
	@touch $(RUNTIME) $@

install: $(RUNTIME)

dev: $(DEV)

demo: $(RUNTIME)
	$(BIN)/python -m hdtree_sc.demo

test: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered) $(PYTEST_ARGS)

test-fast: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow' $(PYTEST_ARGS)

# hand-overs to packages that .venv does not have, in an environment of their own
test-lineage: $(DEV)
	$(MAKE) --no-print-directory VENV=.venv-lineage EXTRAS='[test,lineage]' .venv-lineage/.installed-extras
	.venv-lineage/bin/python -m pytest tests/test_handover.py $(PYTEST_ARGS)

# CellRank needs older versions than the constraints name: of those only torch's is kept
$(VENV)/.installed-extras: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing hdtree-sc$(EXTRAS) into $(VENV) ..."
	@grep '^torch==' $(CONSTRAINTS) > $(VENV)/torch.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/torch.txt --editable '.$(EXTRAS)'
	@touch $@

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)
	rm -rf docs/generated docs/tutorials
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

tutorials: $(DEV)
	@set -e; found=no; for notebook in tutorials/*.ipynb; do \
	  [ -e "$$notebook" ] || continue; found=yes; echo "running $$notebook"; \
	  MPLBACKEND=module://matplotlib_inline.backend_inline $(BIN)/jupyter-execute --timeout=900 $(TUTORIAL_ARGS) "$$notebook"; \
	done; [ $$found = yes ] || echo "tutorials/ holds no notebook: nothing to run"

build: $(DEV)
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	@$(BIN)/python -m zipfile --list build/wheel/hdtree_sc-*.whl > build/wheel/contents.txt
	@for file in 'hdtree_sc/py.typed' 'hdtree_sc/datasets/.*\.h5ad'; do \
	  grep -q "^$$file " build/wheel/contents.txt || { echo "the wheel lacks $$file"; exit 1; }; done
	@ls -l build/wheel/*.whl

# To be run in an environment that was made from pyproject.toml alone: make distclean, empty the file, make dev constraints.
constraints: $(DEV)
	@{ sed -n '/^#/p' $(CONSTRAINTS); \
	  $(BIN)/python -m pip freeze --exclude-editable --exclude hdtree-sc | grep -v '^#' | sed -E 's/^(torch==[^+]+)\+.*/\1/' | LC_ALL=C sort -f; } > build-constraints.tmp
	@mv build-constraints.tmp $(CONSTRAINTS)
	@touch $(RUNTIME) $(DEV)

clean:
	rm -rf build demo docs/_build docs/generated docs/tutorials .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-lineage
