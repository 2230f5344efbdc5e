# `make demo` and `make test` each build their own virtual environment below .venv/; a second run
# finds it there. Needed: Python 3.10 or newer, make, and a C++ compiler for the native kernels.
PYTHON ?= python3
VENVS := .venv
DEMO := $(VENVS)/demo
TEST := $(VENVS)/test
SOURCES := $(shell find tfprune custom_ops -type f -not -name '*.py[co]' -not -name '*.so')
NATIVE := $(shell find custom_ops -type f)

SECONDS ?= 600
COUNT ?= 20
SEED ?= 0

.PHONY: help demo test test-all lint format fuzz mutants clean

help:
	@echo "make demo      prune, export and report LeNet on handwritten digits, into build/demo"
	@echo "make test      lint, type check and test; make test-all: the slow tests too"
	@echo "make lint      ruff and mypy; make format: put the code into shape"
	@echo "make fuzz      bad input for the native kernels, SECONDS=600 of it, under sanitizers"
	@echo "make mutants   small changes to the package that the tests must notice: COUNT=20 SEED=0"
	@echo "make clean     remove environments and everything that was built"
	@echo "Another Python: make PYTHON=python3.12 test"

demo: $(DEMO)/installed
	$(DEMO)/bin/tfprune demo --out build/demo

test: lint
	$(TEST)/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow"

test-all: lint
	$(TEST)/bin/python -m pytest -q -n 2 --dist worksteal

lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

format: $(TEST)/installed
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

# Every file with the flags that setup.py gives it, and sanitizers.
fuzz:
	$(PYTHON) custom_ops/tests/fuzz.py $(SECONDS)

# In a copy of the tree; minutes each.
mutants: $(TEST)/installed
	$(TEST)/bin/python tools/mutants.py --count $(COUNT) --seed $(SEED)

# Pip reinstalls a folder even at the same version; what earlier builds left in build/ must not get in.
$(DEMO)/installed: $(DEMO)/bin/python setup.py setup.cfg $(SOURCES)
	rm -rf build/lib* build/bdist*
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check ".[data,plots]"
	@touch $@

$(TEST)/installed: $(TEST)/bin/python setup.py setup.cfg tfprune/_version.py $(NATIVE)
	$(TEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test,data,plots]"
	@touch $@

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo >&2 \
	  "tfprune needs Python 3.10 or newer; '$(PYTHON)' is missing or is older:" \
	  "$$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	  "'$(PYTHON)' cannot make virtual environments, its modules venv and ensurepip are missing." \
	  "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "building $* (TensorFlow is large: minutes the first time)"
	$(PYTHON) -m venv --clear $* || { rm -rf $*; exit 1; }

clean:
	rm -rf $(VENVS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find tfprune custom_ops tests -name '*.so' -delete -o -name '__pycache__' -prune -exec rm -rf {} +
