# Everything one types. `make` alone lists it.

python := .venv/bin/python
# The fast tests need one core each, so two processes of pytest-xdist run them, one file at a time. The others start
# several processes themselves, which on two cores would only delay each other.
fast := -n 2 --dist loadgroup --no-loadscope-reorder -m "not slow and not long and not extra and not gpu and not real"
slow := slow and not long and not extra and not gpu and not real
long := long and not gpu

.DEFAULT_GOAL := help
.PHONY: help env env-clients quickstart pictures test test-fast test-long test-all test-extra test-real chaos lint

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

env: ## the environment in .venv (PYTHON=... chooses the interpreter, DEVICE=gpu one with CUDA)
	@bash locks/install.sh

env-clients: ## other people's clients of the endpoint in .venv-clients, which tests run
	@bash locks/clients.sh

quickstart: env ## the whole regime on the sample clinic; ARGS='--seed=1' overrides settings
	@$(python) -m trainers.quickstart $(ARGS)

pictures: env ## the README's pictures, from the runs of the quickstart; needs Chromium
	@$(python) -m benchmarks.pictures --chat $(ARGS)

test: test-fast ## every test but the long ones, the extra ones, and those that need a GPU
	@$(python) -m pytest -m "$(slow)" $(ARGS)

test-fast: env ## the tests of a few seconds
	@$(python) -m pytest $(fast) $(ARGS)

test-long: env ## whole runs that are killed, interrupted, and rolled over
	@$(python) -m pytest -m "$(long)" $(ARGS)

test-all: test-fast ## test and test-long, whose tests share what they start
	@$(python) -m pytest -m "($(slow)) or ($(long))" $(ARGS)

test-extra: env env-clients ## measurements, and other people's clients of the endpoint
	@$(python) -m pytest -m "extra and not gpu" $(ARGS)

test-real: env ## tests on real checkpoints: MODELS=DIR has the folders qwen05 and gemma270
	@CHIMED_REAL_MODELS=$(MODELS) $(python) -m pytest -m real $(ARGS)

chaos: env ## runs whose processes are killed must end as if nothing had happened; ARGS='--runs=2' is a short form
	@$(python) -m benchmarks.chaos $(ARGS)

lint: env ## ruff, its security rules included, and mypy
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
