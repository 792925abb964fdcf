# make demo | test | test-browser | bench | lint | docs | tutorial | clean; another Python than python3: make demo PYTHON=python3.12
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -qq
SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE \
  $(shell find cpp kernels src -type f ! -name '*.so' ! -name '*.pyc')
PACKAGE := $(VENV)/package-installed
TOOLS := $(VENV)/tools-installed
BROWSER_TOOLS := $(VENV)/browser-tools-installed
BENCH_TOOLS := $(VENV)/bench-tools-installed

.DELETE_ON_ERROR:
.PHONY: demo test test-browser bench lint docs tutorial clean

demo: $(PACKAGE)
	@$(BIN)/tds2el demo

test: lint
	@$(BIN)/pytest -q -m 'not browser'

# Skipped, with a message, where no Chromium with its chromedriver is on the PATH.
test-browser: $(BROWSER_TOOLS)
	@$(BIN)/pytest -q -m browser tests/browser

# make bench ARGUMENTS=--quick: 2 to 3 minutes. The one step that needs a network is pip's.
bench: $(BENCH_TOOLS)
	@$(BIN)/python bench $(ARGUMENTS)

lint: $(TOOLS)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary

# The pages of options are made from the tables that the program itself reads.
docs: $(PACKAGE)
	@$(BIN)/python -m tds2el.options > docs/options.md
	@$(BIN)/python -m tds2el.simulate.options > docs/simulate-scan.md

# Every command of the page is run, on a simulated scan; a test does so on a smaller one.
tutorial: $(PACKAGE)
	@$(BIN)/python docs/tutorial.py

clean:
	rm -rf $(VENV) build dist tds2el-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "tds2el needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install 'scikit-build-core>=0.10' 'pybind11>=2.12' cmake ninja

# Not editable: what is tested is the package as users get it, never src/. Building in this environment, and not in one
# that pip makes anew each time, recompiles only what has changed.
$(PACKAGE): $(BIN)/python $(SOURCES)
	@echo "Building and installing tds2el with MPI and an OpenCL driver into $(VENV)"
	@$(PIP) install --no-build-isolation '.[all]'
	@touch $@

# tds2el is there already: pip adds what its extra [dev] names.
$(TOOLS): $(PACKAGE)
	@$(PIP) install 'tds2el[dev]'
	@touch $@

$(BROWSER_TOOLS): $(PACKAGE)
	@$(PIP) install 'tds2el[browser]'
	@touch $@

$(BENCH_TOOLS): $(PACKAGE)
	@$(PIP) install 'tds2el[bench]'
	@touch $@
