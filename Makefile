# make demo   builds a system from examples/web.yml, boots it, fetches its page, shuts it down
# make test   everything that CI runs
# make fuzz   the parsers, fed with changed inputs for FUZZ_SECONDS
# make check  the quick part: lint, types, unit tests
# make endure kills, full disks, gc beside builds, boots in a row, power cuts; RUNS="kills cuts" chooses, N=20 says how often
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.stamp

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# the C library is compiled once for all image caches
export ZIG_GLOBAL_CACHE_DIR ?= $(HOME)/.cache/zig

.PHONY: demo test check lint unit golden interop guest boot fuzz endure bench clean

demo: $(STAMP)-run
	@tools/setup.sh qemu
	@$(BIN)/python tools/demo.py

test: $(STAMP)-dev
	@tools/setup.sh qemu test
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -p no:cacheprovider -n 2 --dist loadfile --no-loadscope-reorder # boots, which take long, come first

check: $(STAMP)-dev lint unit

lint: $(STAMP)-dev
	$(BIN)/ruff check src tests bench tools
	$(BIN)/mypy

unit golden interop guest boot: $(STAMP)-dev
	@tools/setup.sh qemu test
	$(BIN)/python -m pytest -p no:cacheprovider -m $@

# FUZZ_SECONDS for each of the two sides, FUZZ_SEED to repeat what one run has found
fuzz: $(STAMP)-dev
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_SEED=$${FUZZ_SEED:-$$RANDOM} $(BIN)/python -m pytest -p no:cacheprovider -q -s \
		$(wildcard tests/fuzz) tests/guest/test_fuzz.py

endure: $(STAMP)-dev
	@tools/setup.sh qemu test
	PYTHONPATH=tests $(BIN)/python -m endure $(RUNS) $(if $(N),--count $(N))

bench: $(STAMP)-dev
	@tools/setup.sh qemu test
	for b in bench/bench_*.py; do $(BIN)/python $$b || exit 1; done

$(VENV)/pyvenv.cfg:
	@tools/setup.sh python
	python3 -m venv $(VENV)

# The sources are used where they are; they are compiled once, so that the command starts quickly.
$(STAMP)-run: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "==> installing linuxkit into $(VENV)"
	$(BIN)/pip install -q -e '.[kit]'
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q src $(VENV)/lib
	@touch $@

$(STAMP)-dev: pyproject.toml $(STAMP)-run
	$(BIN)/pip install -q -r tools/requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
