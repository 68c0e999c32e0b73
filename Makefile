# `make help` says what each target does. Everything runs from .venv, which the first target makes.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible

.PHONY: help
help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: controller ## Converge the talk's GPU cluster on the simulator (first run: under 5 minutes; again: seconds)
	@$(BIN)/python tools/demo.py up -- $(ARGS)

.PHONY: demo-down
demo-down: ## Stop the demo's simulator and remove what the demo made
	@if [ -x $(BIN)/python ]; then $(BIN)/python tools/demo.py down; else echo "==> nothing to stop"; fi

.PHONY: demo-pool
demo-pool: controller ## From nothing to a GPU pool and a job on it, on real guests: root and podman needed (first run: 10 minutes; again: 3)
	@$(BIN)/python tools/pool_demo.py -- $(ARGS)

.PHONY: lab-up
lab-up: controller ## The demo's lab with real guests: root and podman needed (first run: 5 minutes; again: 1)
	@$(BIN)/python tools/lab_up.py -- $(ARGS)

.PHONY: lab-down
lab-down: demo-down ## Stop the lab; nothing of it stays, no container, mount, process or address

.PHONY: lab-guests
lab-guests: test-env ## Real guests under tools/guest and the simulator (root and podman needed; 4 minutes)
	@tools/guest setup >/dev/null
	$(PYTEST) tests/lab/test_guest.py tests/lab/test_simulator_guests.py

.PHONY: lab-test
lab-test: test-env ## A GPU pool from nothing, grown, shrunk and hurt under load (root and podman needed; 15 minutes)
	@tools/guest setup >/dev/null
	$(PYTEST) tests/lab/test_pool.py

.PHONY: test
test: lint unit integration ## Lint, sanity, unit and integration tests (about 20 minutes)

.PHONY: lint
lint: test-env ## Formatting, lint, types, collection sanity, two at a time (about 2 minutes)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint-sanity lint-code

.PHONY: lint-sanity
lint-sanity:
	tools/sanity

.PHONY: lint-code
lint-code:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p ansible_collections.gpuops.vsphere.plugins
	$(BIN)/mypy simulator/src roles/gpu_benchmark/files/gpubench roles/gpu_pool_client/files/gpurun roles/gpu_pool_monitoring/files/gpumetrics roles/gpu_pool_server/files/gpufence tools/*.py tools/guest tools/guestlib tools/bench
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline
	$(BIN)/antsibull-changelog lint

.PHONY: unit
unit: test-env ## Tests of pure code and of the simulator (about 2 minutes)
	$(PYTEST) -n 2 -m 'not clients' tests/unit simulator/tests

.PHONY: fidelity
fidelity: test-env ## The simulator under clients of others: Ansible collections, pyVmomi, govc built first (5 minutes; again: 2)
	@tools/venv fidelity .cache/fidelity
	@tools/govc-build
	$(PYTEST) -n 2 --dist loadgroup -m clients simulator/tests

.PHONY: integration
integration: test-env ## Modules and playbooks against the simulator over TLS (about 14 minutes)
	$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder $(addprefix tests/integration/,playbooks tools modules)

.PHONY: page-test
page-test: test-env ## The fleet page in headless Chromium, installed first where it is missing (1 minute)
	CHROMIUM=$$(tools/chromium) $(PYTEST) tests/page

.PHONY: harvest-test
harvest-test: test-env ## A simulated week of harvesting, and a night by the playbook (under 5 minutes; HARVEST_SEED=2: another week)
	@rm -f .cache/harvest-week.*
	$(PYTEST) -n 2 --dist loadfile tests/harvest
	@cat .cache/harvest-week.txt; echo "as JSON: .cache/harvest-week.json"

.PHONY: pictures
pictures: test-env ## Make the pictures of the documentation anew: simulator, fleet page, a day of harvesting, Chromium (a minute)
	CHROMIUM=$$(tools/chromium) $(BIN)/python tools/pictures.py

.PHONY: molecule
molecule: test-env ## Every role's scenario on real guests (root, podman; 20 minutes); one role: make molecule ROLE=x
	@tools/guest setup >/dev/null
	tools/molecule test $(ROLE)

.PHONY: crash-test
crash-test: test-env ## Kill playbooks at every changing call, run again, compare (an hour and a half; SAMPLE=20 SEED=1: a sample)
	$(BIN)/python tests/crash/crash_test.py $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: crash-sample
crash-sample: SEED := 1
crash-sample: test-env ## Check mode of every playbook, and 20 crashes of a seeded sample (8 minutes; SEED=2: others)
	$(BIN)/python tests/crash/crash_test.py --sample 20 --seed $(SEED)

.PHONY: mutation
mutation: test-env ## Break roles in named ways and see their scenarios fail (2 minutes a way); one role: make mutation ROLE=x
	@tools/guest setup >/dev/null
	tools/mutation $(ROLE)

.PHONY: release
release: test-env ## Test everything, then build and prove a release: make release VERSION=1.2.3 (three quarters of an hour)
	@tools/release $(or $(VERSION),$(error say which: make release VERSION=1.2.3))

.PHONY: bench
bench: test-env bench-collection ## Tables: the simulator under load, the collection against others, gpurun against srun (an hour; bench-collection ARGS=--quick: 5 minutes)
	$(BIN)/python tools/bench/simulator.py
	$(BIN)/python tools/bench/placement.py
	$(BIN)/python tools/bench/pool.py

.PHONY: bench-collection
bench-collection: test-env
	tools/venv fidelity .cache/fidelity
	$(BIN)/python tools/bench/collection.py $(ARGS)

.PHONY: simulator-docs
simulator-docs: test-env ## Write the simulator's list of methods into its documentation
	$(BIN)/python -m vsphere_simulator.cli methods --into docs/simulator.md

.PHONY: ci
ci: test harvest-test crash-sample page-test lab-guests fidelity molecule lab-test ## What CI runs (an hour and ten minutes)

.PHONY: lock
lock: controller ## Resolve pyproject.toml into requirements/*.txt anew
	@$(BIN)/python -m pip install --quiet uv
	@for lock in controller test fidelity; do \
	  group=(); [ $$lock = controller ] || group=(--group pyproject.toml:$$lock --constraints requirements/controller.txt); \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11 \
	    --custom-compile-command 'make lock' "$${group[@]}" pyproject.toml --output-file requirements/$$lock.txt; \
	done

.PHONY: controller test-env
controller:
	@tools/venv controller

test-env:
	@tools/venv test
