# Everything works from an empty clone: the first target that needs the environment makes it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Compiled once and kept: without its bytecode every import of torch or mlflow takes seconds more.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow check docs lock clean

demo: $(READY)  ## from a bare checkout to a registered model of digits
	$(BIN)/darkroom run recipes/digits.toml

test: $(READY)  ## the test suite
	sh infra/test_services.sh
	$(BIN)/python -m pytest

test-slow: $(READY)  ## the longer proofs: kills, seeds, figures
	sh infra/test_services.sh
	$(BIN)/python -m pytest -m "slow or not slow"

check: $(READY)  ## style, types, the direction of imports, the stages' versions, the house rules, the reference
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m darkroom.stages
	$(BIN)/python infra/house.py
	$(BIN)/python docs/make_reference.py --check

docs: $(READY)  ## write the recipe's reference anew, in both languages
	$(BIN)/python docs/make_reference.py

$(READY): pyproject.toml requirements.lock infra/environment.sh
	PYTHON="$(PYTHON)" sh infra/environment.sh
	touch $@

lock: $(READY)  ## resolve the dependencies anew
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
	  --no-header --upgrade pyproject.toml -o requirements.lock

clean:  ## remove the environment; mlruns/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
