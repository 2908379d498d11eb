# make demo | test | lint | bench, each from a fresh clone: the virtual environment is made on demand.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The references that no extra can name: lava-dl's metadata asks for Python 3.10, though its slayer
# runs on newer ones; and a second SpikingJelly can't stand beside the first.
LAVA_DL := lava-dl==0.6.0
SPIKINGJELLY_OLD := 0.0.0.0.14
OLD_LINE := $(VENV)/spikingjelly-$(SPIKINGJELLY_OLD)
# A reference that is missing fails the tests here; elsewhere its tests are skipped with a reason.
REFERENCES := LAVA_BRIDGE_REFERENCES=required

.PHONY: demo test lint bench clean

demo: $(VENV)/installed
	$(BIN)/python examples/digits.py

test: $(VENV)/references
	$(REFERENCES) LAVA_BRIDGE_SPIKINGJELLY=2.0.0 $(BIN)/python -m pytest
	$(REFERENCES) LAVA_BRIDGE_SPIKINGJELLY=$(SPIKINGJELLY_OLD) PYTHONPATH=$(CURDIR)/$(OLD_LINE) \
		$(BIN)/python -m pytest --ignore=tests/slayer --ignore=tests/training \
		--ignore=tests/project --ignore=tests/benchmarks --ignore=tests/as_lava/test_as_lava.py \
		--ignore=tests/as_lava/test_command_line.py --ignore=tests/as_lava/test_upstream_suite.py

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/references
	$(REFERENCES) $(BIN)/python tests/benchmarks/bench.py

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt $(wildcard cuda/*)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/references: $(VENV)/installed
	$(PIP) install -q --no-deps --ignore-requires-python $(LAVA_DL)
	$(PIP) install -q --no-deps --upgrade --target $(OLD_LINE) spikingjelly==$(SPIKINGJELLY_OLD)
	touch $@
