# `make` checks and tests; `make demo` shows the product at work on a server of its own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# tests start hundreds of programs, which need not be compiled each time
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all check test test-long demo test-matrix benchmarks clean

all: check test

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	touch $@

demo: $(INSTALLED)
	@# exit code 1 says that the soak missed a criterion on this machine, which the table shows: the demo has run
	$(BIN)/python run.py --mode all --duration 0.05 || test $$? -eq 1

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/house

test: $(INSTALLED)
	$(PYTEST) -n 3 --dist worksteal -m "not long" tests --ignore tests/house

test-long: $(INSTALLED)
	$(PYTEST) -n 2 --dist worksteal -m long tests --ignore tests/house

test-matrix: $(INSTALLED)
	$(BIN)/python tests/matrix.py 14 15 16 17 18

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
