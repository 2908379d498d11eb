# make demo | test | lint | bench | nets | sanitize | oldest, each from a fresh clone: the virtual environment is made on demand.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The references that no extra can name: lava-dl's metadata asks for Python 3.10, though its slayer
# runs on newer ones; a second SpikingJelly can't stand beside the first; and of lava-nc newer Pythons
# can import one file alone, so that it stays out of their sight.
LAVA_DL := lava-dl==0.6.0
LAVA_NC := 0.10.0
SPIKINGJELLY_OLD := 0.0.0.0.14
OLD_LINE := $(VENV)/spikingjelly-$(SPIKINGJELLY_OLD)
LAVA_NC_FOLDER := $(VENV)/lava-nc-$(LAVA_NC)
# A reference that is missing fails the tests here; elsewhere its tests are skipped with a reason.
REFERENCES := LAVA_BRIDGE_REFERENCES=required

# Tests use one thread each; a worker takes from the other what that has not begun.
SIDE_BY_SIDE := -n 2 --dist worksteal
# What meets SpikingJelly, and runs on its older line too.
WITH_SPIKINGJELLY := $(addprefix tests/,exchange convert encoder verify zoo ci cli \
	as_lava/test_spikingjelly_exchange.py netx/test_network.py netx/test_random_nets.py \
	files/test_hdf5.py files/test_lowering.py chip/test_chip.py \
	kernels/test_backend.py kernels/test_cuba.py kernels/test_cuba_edges.py kernels/test_surrogate.py)

.PHONY: demo test lint bench nets sanitize oldest clean

demo: $(VENV)/installed
	$(BIN)/python examples/digits.py

test: $(VENV)/references
	$(REFERENCES) LAVA_BRIDGE_SPIKINGJELLY=2.0.0 $(BIN)/python -m pytest $(SIDE_BY_SIDE)
	$(REFERENCES) LAVA_BRIDGE_SPIKINGJELLY=$(SPIKINGJELLY_OLD) PYTHONPATH=$(CURDIR)/$(OLD_LINE) \
		$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(WITH_SPIKINGJELLY)

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/references
	$(REFERENCES) $(BIN)/python tests/benchmarks/bench.py

# Ten thousand random nets as blocks and as integers, where `make test` has two hundred.
nets: $(VENV)/installed
	LAVA_BRIDGE_RANDOM_NETS=10000 $(BIN)/python -m pytest -q tests/netx/test_random_nets.py

# The kernels' tests on kernels built with AddressSanitizer and UBSan, in a copy of their own.
SANITIZED := build/sanitized
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g1
RUNTIME = $(shell g++ -print-file-name=libasan.so) $(shell g++ -print-file-name=libstdc++.so)

sanitize: $(VENV)/references
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r lava_bridge cuda tests setup.py setup.cfg pyproject.toml README.md LICENSE $(SANITIZED)
	rm -f $(SANITIZED)/lava_bridge/kernels/*.so
	cd $(SANITIZED) && LAVA_BRIDGE_CFLAGS="$(SANITIZERS)" \
		$(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	cd $(SANITIZED) && ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(RUNTIME)" OMP_NUM_THREADS=1 \
		$(CURDIR)/$(BIN)/python -m pytest tests/kernels -p no:cacheprovider \
		--ignore=tests/kernels/test_compile.py --ignore=tests/kernels/test_gpu_compile.py \
		--ignore=tests/kernels/test_gpu_emulated.py -k "not registered"

# The tests on the oldest Python, torch, NumPy, ... that are allowed: several GB, and no references.
# (The extra of the tests asks for CuPy, which asks for NumPy 2.)
OLDEST_PYTHON ?= python3.10
OLDEST := build/oldest
OLDEST_PIP := $(OLDEST)/bin/python -m pip --disable-pip-version-check install -q -c tests/oldest.txt

oldest:
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST_PIP) torch torchvision numpy
	$(OLDEST_PIP) -e . hypothesis matplotlib pytest pytest-xdist scikit-learn tensorboard
	$(OLDEST)/bin/python -m pytest $(SIDE_BY_SIDE) --ignore=tests/ci -p no:cacheprovider

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt $(wildcard cuda/*)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/references: $(VENV)/installed
	$(PIP) install -q --no-deps --ignore-requires-python $(LAVA_DL)
	$(PIP) install -q --no-deps --ignore-requires-python --upgrade \
		--target $(LAVA_NC_FOLDER) lava-nc==$(LAVA_NC)
	$(PIP) install -q --no-deps --upgrade --target $(OLD_LINE) spikingjelly==$(SPIKINGJELLY_OLD)
	touch $@
