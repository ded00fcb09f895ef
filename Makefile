# Each target builds what it needs first. ARGS adds options: make lenet5 ARGS="--trainer.max_epochs 3"
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
CONSTRAINTS ?= constraints.txt
INSTALL := $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python,$(BIN)/pip install --disable-pip-version-check)
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.DEFAULT_GOAL := help
.PHONY: help quick lenet5 cnn compare demo tune tensorboard setup upgrade test test-slow screenshot browser lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

# What training, testing, prediction and comparison need. CONSTRAINTS= installs the newest versions instead.
.venv/.core: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(INSTALL) $(CONSTRAINTS:%=-c %) -e .
	@touch $@

# What an extra of pyproject.toml adds, for example .venv/.demo
.venv/.%: .venv/.core
	$(INSTALL) $(CONSTRAINTS:%=-c %) -e ".[$*]"
	@touch $@

quick: .venv/.core ## train LeNet5 for one epoch and test it (about a minute on two cores)
	$(BIN)/python -m src fit --config configs/lenet5-one-epoch.yaml $(ARGS)

lenet5: .venv/.core ## train LeNet5 for 30 epochs and test it (about 7 minutes on two cores)
	$(BIN)/python -m src fit --config configs/lenet5.yaml $(ARGS)

cnn: .venv/.core ## train CNN for 12 epochs and test it (about 9 minutes on two cores)
	$(BIN)/python -m src fit --config configs/cnn.yaml $(ARGS)

compare: .venv/.core ## train the missing runs of both networks with five seeds and compare (about 80 minutes on two cores)
	$(BIN)/python -m src compare --train configs/lenet5.yaml configs/cnn.yaml --seeds 5 $(ARGS)

demo: .venv/.demo ## show a page on which you draw digits for the newest run of each network
	$(BIN)/python -m src demo $(ARGS)

tune: .venv/.tune ## search for settings of LeNet5 on held-out training images (docs/tuning.md)
	$(BIN)/python -m src tune --config configs/lenet5.yaml --search configs/search.yaml --trials 30 \
		--data.val_size 10000 --trainer.max_epochs 2 $(ARGS)

tensorboard: .venv/.core ## show the curves of all runs at http://localhost:6006
	$(BIN)/tensorboard --host localhost --logdir lightning_logs

setup: .venv/.dev ## build .venv with all that development needs; the other targets install what they need

upgrade: ## build .venv with the newest versions that pyproject.toml allows, and write them to constraints.txt
	rm -rf .venv
	$(MAKE) setup CONSTRAINTS=
	$(BIN)/pip freeze --exclude-editable | sed 's/+.*//' > constraints.txt
	@touch .venv/.core .venv/.dev

test: .venv/.dev ## run the tests (about 7 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: .venv/.dev ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

screenshot: .venv/.dev ## write docs/tensorboard.png and docs/demo.png from version_0 of both networks
	RUNS=lightning_logs SCREENSHOT=docs/tensorboard.png $(BIN)/python -m pytest tests/tensorboard/test_tensorboard.py -k both_curves
	RUNS=lightning_logs DEMO_SCREENSHOT=docs/demo.png $(BIN)/python -m pytest tests/inference/test_demo.py -k drawn

browser: ## install Chromium for the tests that open a page (Debian and Ubuntu)
	command -v chromedriver || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends chromium chromium-driver; }

lint: .venv/.dev ## check style and types with ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.core ## measure the speed of fit against a hand-written loop, the usual pipeline and Keras
	test -x .venv-keras/bin/python || { $(PYTHON) -m venv .venv-keras && .venv-keras/bin/pip install tensorflow-cpu; } || rm -rf .venv-keras
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv and caches; keep runs and data
	rm -rf .venv .venv-keras *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
