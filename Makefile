# Each target builds what it needs first. ARGS adds options: make lenet5 ARGS="--trainer.max_epochs 3"
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.DEFAULT_GOAL := help
.PHONY: help setup lenet5 cnn compare demo tensorboard test test-slow screenshot browser lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

setup: .venv/.ready ## build .venv with all dependencies

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -e ".[dev]"
	@touch $@

lenet5: .venv/.ready ## train LeNet5 for 30 epochs and test it (about 7 minutes on two cores)
	$(BIN)/python -m src fit --config configs/lenet5.yaml $(ARGS)

cnn: .venv/.ready ## train CNN for 12 epochs and test it (about 9 minutes on two cores)
	$(BIN)/python -m src fit --config configs/cnn.yaml $(ARGS)

compare: .venv/.ready ## train the missing runs of both networks with five seeds and compare (about 80 minutes on two cores)
	$(BIN)/python -m src compare --train configs/lenet5.yaml configs/cnn.yaml --seeds 5 $(ARGS)

demo: .venv/.ready ## show a page on which you draw digits for the newest run of each network
	$(BIN)/python -m src demo $(ARGS)

tensorboard: .venv/.ready ## show the curves of all runs at http://localhost:6006
	$(BIN)/tensorboard --host localhost --logdir lightning_logs

test: .venv/.ready ## run the tests (about 7 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: .venv/.ready ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

screenshot: .venv/.ready ## write docs/tensorboard.png and docs/demo.png from version_0 of both networks
	RUNS=lightning_logs SCREENSHOT=docs/tensorboard.png $(BIN)/python -m pytest tests/tensorboard/test_tensorboard.py -k both_curves
	RUNS=lightning_logs DEMO_SCREENSHOT=docs/demo.png $(BIN)/python -m pytest tests/inference/test_demo.py -k drawn

browser: ## install Chromium for the tests that open a page (Debian and Ubuntu)
	command -v chromedriver || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends chromium chromium-driver; }

lint: .venv/.ready ## check style and types with ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.ready ## measure the speed of fit against a hand-written loop, the usual pipeline and Keras (about an hour on two cores)
	test -x .venv-keras/bin/python || { $(PYTHON) -m venv .venv-keras && .venv-keras/bin/pip install tensorflow-cpu; } || rm -rf .venv-keras
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv and caches; keep runs and data
	rm -rf .venv .venv-keras *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
