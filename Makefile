# Two cores and an empty machine are enough. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
OUT    ?= out/demo
PYTEST_ARGS ?= -n 2 --dist worksteal

bin := $(VENV)/bin
pip := $(bin)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow check format doctor readme clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.demo ## the main job on embedded data; writes out/demo/report.html and record.json
	$(bin)/billhook demo --out $(OUT)

test: $(VENV)/.dev ## all tests that need no GPU, no device and no patience
	$(bin)/python -m pytest $(PYTEST_ARGS) tests/none tests/tvm

test-slow: $(VENV)/.dev ## tests that take minutes each
	$(bin)/python -m pytest tests/slow

check: $(VENV)/.dev ## style, types, and who may import whom
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright
	$(bin)/lint-imports

format: $(VENV)/.dev ## rewrite all files in the house style
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

doctor: $(VENV)/.demo ## what this machine has, what is missing, and how to get it
	$(bin)/billhook doctor

readme: $(VENV)/.demo ## put the numbers of the last demo into README.md
	$(bin)/python tools/measured_table.py $(OUT)/record.json

clean: ## remove what was built and measured here, and keep the environment
	rm -rf out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks

# Stamps: an environment is brought up to date when pyproject.toml is newer. torch comes first and by its exact version,
# because a range asked for by another package would fetch the newest build with gigabytes of CUDA libraries.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; run make PYTHON=python3.11" >&2; exit 1; }
	test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(pip) --upgrade pip
	$(pip) $(TORCH)
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.torch
	$(pip) --editable '.[tvm,demo,peers]'
	@touch $@

# torchvision asks for one exact torch and is only imported by tests; its dependencies are there already.
$(VENV)/.dev: pyproject.toml $(VENV)/.demo
	$(pip) --editable '.[tvm,demo,peers,dev]'
	@touch $@
