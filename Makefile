# The commands of README.md and CONTRIBUTING.md. Most targets depend on `setup`, which installs into .venv once and
# does nothing after that. PYTHON=python3.12 selects another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/cpu.txt
STAMP := $(VENV)/.installed
# PyTorch's index of CPU wheels, for machines whose pip configuration does not find them.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format soak bench docs bundle lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(STAMP) ## install everything into .venv (other targets run it when needed)

$(STAMP): $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; try 'make $(MAKECMDGOALS) PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "make: $(PYTHON) is $$($(PYTHON) --version), but Python 3.11, 3.12 or 3.13 is needed; set PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# The lock is complete, so nothing is resolved: --no-deps leaves out dependencies of vLLM that text does not need.
	$(BIN)/python -m pip install --quiet --no-deps "$$(grep -E '^torch==' $(LOCK))" \
	  || $(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) "$$(grep -E '^torch==' $(LOCK))" \
	  || { echo "make: PyTorch's CPU wheel is neither on pip's configured index nor at $(TORCH_INDEX); set TORCH_INDEX" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## run the whole pipeline on the embedded model, in runs/demo
	$(BIN)/selfinstruct demo --run runs/demo

# Tests that start the engine or train would use all cores, and oversubscribed threads take ten times as long. So two
# such tests run at a time, with one thread each. Tests of Ray run alone.
LARGE := engine or training
test: lint ## run lint, then the whole test suite
	$(BIN)/python -m pytest -m "not ($(LARGE) or ray)" --numprocesses auto --dist loadfile
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
	  $(BIN)/python -m pytest -m "$(LARGE)" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m ray

lint: setup ## run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/typed && mkdir -p build/typed && cp -rs $(CURDIR)/selfinstruct_local build/typed/
	@for part in kernels prompts requirements seeds; do cp -rs $(CURDIR)/$$part build/typed/selfinstruct_local/; done
	cd build/typed && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml --no-cache
	$(BIN)/mypy

format: setup ## format the code with ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: setup ## run the same tests with full repeat counts
	SELFINSTRUCT_SOAK=1 $(BIN)/python -m pytest

# RUNS='runs/a runs/b' names finished runs, which take hours to make and are only counted (benchmarks/bench_yield.py).
# With Alpaca's 52,002 records as CORPUS the spread is measured too; ARMS='new=runs/a old=runs/b' and EXPERT=FILE add
# trainings (hours).
bench: setup ## run every benchmark, into benchmarks/RESULTS.md (two hours; CORPUS=FILE adds a file of tasks)
	$(BIN)/python benchmarks/bench_filter.py $(CORPUS)
	$(BIN)/python benchmarks/bench_growth.py
	@# Only printed: the table in docs/concepts/rules.md also has the expert tasks and Alpaca's records (--write).
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

# GPU=1 selects the wheels of requirements/gpu.txt; OUT=DIR names another folder; DRY=1 prints what it would hold.
BUNDLED := $(if $(GPU),gpu,cpu)
OUT = build/bundle-$(BUNDLED)
bundle: setup ## build a folder with install.sh for a machine with no network: build/bundle-cpu (GPU=1: bundle-gpu)
	$(BIN)/python requirements/bundle.py --lock requirements/$(BUNDLED).txt --out $(OUT) --torch-index $(TORCH_INDEX) $(if $(DRY),--dry-run)

docs: setup ## build the documentation in build/docs (open build/docs/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# uv resolves for one platform and one Python version at a time; the versions are valid for 3.11 to 3.13.
LOCK_FLAGS := --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --quiet
lock: ## resolve the lock files again (needs uv, and torch's CPU wheel where uv can find it: UV_FIND_LINKS)
	cd requirements && uv pip compile cpu.in --override cpu-overrides.txt $(LOCK_FLAGS) -o cpu.txt
	@# UV_FIND_LINKS is unset because it offers a CPU build of torch.
	cd requirements && env -u UV_FIND_LINKS uv pip compile gpu.in --override gpu-overrides.txt $(LOCK_FLAGS) -o gpu.txt

clean: ## remove everything built, keep runs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
