# The commands of README.md and CONTRIBUTING.md. Everything stands on `setup`, which installs once into .venv and
# does nothing the second time. PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/cpu.txt
STAMP := $(VENV)/.installed
# Where PyTorch keeps its CPU wheels, for machines whose pip does not find them by itself.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format soak bench docs bundle lock clean

help: ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(STAMP) ## install everything into .venv (done by the others when needed)

$(STAMP): $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; try 'make $(MAKECMDGOALS) PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "make: $(PYTHON) is $$($(PYTHON) --version); Python 3.11, 3.12 or 3.13 is needed (PYTHON=python3.12)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# The lock is complete, so nothing is resolved: --no-deps keeps out what vLLM asks for and text does not need.
	$(BIN)/python -m pip install --quiet --no-deps "$$(grep -E '^torch==' $(LOCK))" \
	  || $(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) "$$(grep -E '^torch==' $(LOCK))" \
	  || { echo "make: PyTorch's CPU wheel was found neither by pip's configuration nor at $(TORCH_INDEX)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## the main job on the embedded model, in runs/demo
	$(BIN)/selfinstruct demo --run runs/demo

# What starts the engine or trains would take all cores, and threads that wait for each other ten times as long: two such
# tests at a time, with a thread each. Ray has the machine for itself.
LARGE := engine or training
test: lint ## lint, then the whole test suite
	$(BIN)/python -m pytest -m "not ($(LARGE) or ray)" --numprocesses auto --dist loadfile
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
	  $(BIN)/python -m pytest -m "$(LARGE)" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m ray

lint: setup ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/typed && mkdir -p build/typed && cp -rs $(CURDIR)/selfinstruct_local build/typed/
	@for part in kernels prompts requirements seeds; do cp -rs $(CURDIR)/$$part build/typed/selfinstruct_local/; done
	cd build/typed && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml --no-cache
	$(BIN)/mypy

format: setup ## put the code into ruff's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: setup ## the long counts: the same tests with full numbers
	SELFINSTRUCT_SOAK=1 $(BIN)/python -m pytest

# Of finished runs, which take hours, only counts are made: RUNS='runs/a runs/b', see benchmarks/bench_yield.py.
# Alpaca's 52,002 records as CORPUS add the spread; ARMS='new=runs/a old=runs/b' and EXPERT=FILE add trainings (hours).
bench: setup ## every benchmark, into benchmarks/RESULTS.md (two hours; CORPUS=FILE measures on a file of tasks too)
	$(BIN)/python benchmarks/bench_filter.py $(CORPUS)
	$(BIN)/python benchmarks/bench_growth.py
	@# Printed only: the table in docs/concepts/rules.md has the expert tasks and Alpaca's records too (--write).
	$(BIN)/python benchmarks/bench_rules.py $(CORPUS)
	$(BIN)/python benchmarks/bench_generate.py decisions --write
	$(BIN)/python benchmarks/bench_generate.py engine --write
	$(BIN)/python benchmarks/bench_ledger.py --write
	$(if $(RUNS),$(BIN)/python benchmarks/bench_yield.py $(RUNS) --write)
	$(if $(and $(RUNS),$(CORPUS)),$(BIN)/python benchmarks/bench_spread.py $(RUNS) --alpaca $(CORPUS) --write)
	$(BIN)/python benchmarks/bench_train.py $(if $(CORPUS),--data $(CORPUS)) --write
	$(BIN)/python benchmarks/bench_report.py $(CORPUS) --write
	$(BIN)/python benchmarks/bench_cluster.py --write
	$(if $(and $(ARMS),$(EXPERT)),$(BIN)/python benchmarks/bench_data_value.py $(addprefix --arm ,$(ARMS)) --expert $(EXPERT) --write)
	$(BIN)/python benchmarks/simulate_gpu.py

# GPU=1 takes the wheels of requirements/gpu.txt; OUT=DIR puts the folder elsewhere; DRY=1 says what it would hold.
BUNDLED := $(if $(GPU),gpu,cpu)
OUT = build/bundle-$(BUNDLED)
bundle: setup ## one folder for a machine without a network, with an install.sh: build/bundle-cpu (GPU=1: bundle-gpu)
	$(BIN)/python requirements/bundle.py --lock requirements/$(BUNDLED).txt --out $(OUT) --torch-index $(TORCH_INDEX) $(if $(DRY),--dry-run)

docs: setup ## the documentation, into build/docs (opens as a file: build/docs/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# uv resolves for one platform and one Python at a time; the versions hold for 3.11 to 3.13.
LOCK_FLAGS := --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --quiet
lock: ## resolve the locks anew (needs uv, and torch's CPU wheel where uv can find it: UV_FIND_LINKS)
	cd requirements && uv pip compile cpu.in --override cpu-overrides.txt $(LOCK_FLAGS) -o cpu.txt
	@# What UV_FIND_LINKS offers is a CPU build of torch.
	cd requirements && env -u UV_FIND_LINKS uv pip compile gpu.in --override gpu-overrides.txt $(LOCK_FLAGS) -o gpu.txt

clean: ## remove what was built, keep runs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
