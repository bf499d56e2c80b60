PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Stock OpenAI clients, each in an environment of its own: the tests run them against the service.
CLIENTS := $(VENV)/clients/openai-1/.installed $(VENV)/clients/openai-3/.installed
OUT ?= out/demo
DATA := $(if $(SEED),$(abspath $(OUT))-data,$(abspath examples/quickstart))
JOB_SEED := $(or $(SEED),1)
# Models come from folders in the demo and the tests; nothing asks a hub.
export HF_HUB_OFFLINE = 1

.PHONY: setup demo test test-all check bench bench-learning bench-generation bench-selection mutation clean

setup: $(STAMP) $(CLIENTS)

$(STAMP): requirements/cpu.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet pip==26.3 setuptools==77.0.3 wheel uv
	$(BIN)/pip install --quiet "torch==2.13.0+cpu" \
		|| $(BIN)/uv pip install --python $(BIN)/python --torch-backend cpu "torch==2.13.0"
	$(BIN)/pip install --quiet --no-deps -r requirements/cpu.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/clients/%/.installed: requirements/%.lock | $(STAMP)
	rm -rf $(@D)
	$(PYTHON) -m venv --without-pip $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps -r $<
	touch $@

demo: setup
	$(if $(SEED),$(BIN)/python examples/quickstart/generate.py --seed $(SEED) --out $(DATA))
	$(BIN)/python examples/quickstart/demo.py --out $(OUT) --data $(DATA) --seed $(JOB_SEED)

test: setup
	$(BIN)/python -m pytest --cov --cov-report=term -m "not slow"

test-all: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/python -m pytest -q tests/test_imports.py tests/test_requirements.py

bench: setup
	$(BIN)/python benchmarks/step_similarity.py
	$(BIN)/python benchmarks/verifiers.py
	$(BIN)/python benchmarks/actor_hop.py
	$(BIN)/python benchmarks/cli_start.py
	$(BIN)/python benchmarks/sandbox.py

# Hours on two cores; resumable, a cell at a time. Two processes, one thread each.
bench-learning: setup
	$(BIN)/python -m benchmarks.learning --regimes few_experts & \
		$(BIN)/python -m benchmarks.learning --regimes many_experts; wait
	$(BIN)/python -m benchmarks.learning --report docs/learning.md

# Resumable, a cell at a time.
bench-generation: setup
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.generation --report docs/generation.md

# An hour on two cores; resumable, a cell at a time.
bench-selection: setup
	$(BIN)/python -m benchmarks.selection

# In a clean clone: the tests look for files that are left behind.
mutation: setup
	$(BIN)/python -m benchmarks.mutation --fresh --report docs/mutation.md

clean:
	rm -rf out .pytest_cache .ruff_cache .coverage
