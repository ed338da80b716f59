# Two commands: `make run` and `make test`. Everything lands in .venv and in HONED_STATE.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 2000

.PHONY: help run test test-model test-gpu test-crash test-api demo bench bench-learning bench-peers bench-swaps bench-independence bench-training \
  bench-overload bench-log bench-curation bench-lessons bench-arms bench-nights bench-train bench-detection bench-labels \
  bench-preference bench-scale bench-retention lint fix clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: .venv/installed  ## Fetch the models and start the daemon in the foreground
	@$(BIN)/honed fetch
	@exec $(BIN)/honed serve

test: .venv/tested lint  ## Lint, types and tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not model"

test-model: .venv/tested  ## The whole cycle on the real default model, end to end (about ten minutes)
	$(BIN)/python -m pytest -m model -s tests/test_demo.py

test-gpu: .venv/tested  ## The tests of whole runs, with the models on a GPU (HONED_TEST_DEVICE names it; cuda)
	HONED_TEST_DEVICE=$${HONED_TEST_DEVICE:-cuda} $(BIN)/python -m pytest -n 2 --dist loadfile -m "not model" tests/agent tests/service

test-crash: .venv/tested  ## Kill the daemon at 30 random moments (about ten minutes)
	HONED_TEST_KILLS=30 $(BIN)/python -m pytest -m crash tests/test_crash.py

test-api: .venv/tested  ## 2,000 requests that our OpenAPI document knows or forbids (a few minutes)
	HONED_TEST_CASES=220 $(BIN)/python -m pytest -s tests/service/test_openapi.py

demo: .venv/installed  ## The whole cycle on the real model, in a directory of its own
	@$(BIN)/honed demo

bench: .venv/tested  ## All of serving's figures, in one table and in docs/serving.md (fifty minutes; ten more once, to build the others)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.bench

bench-learning: .venv/tested  ## All of learning's figures, in tables and in docs/learning.md (two hours on quick cores, up to four on slow ones)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning

bench-peers: .venv/tested  ## Tokens a second beside llama.cpp, vLLM, transformers serve and generate()
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.serving

bench-swaps: .venv/tested  ## 10,000 requests while the weights change 20 times
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.swaps

bench-independence: .venv/tested  ## 200 seeded requests alone and in company
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.independence

bench-training: .venv/tested  ## Serving beside a training run, and the run beside serving
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.beside_training

bench-overload: .venv/tested  ## A minute at ten times what the daemon can do
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.overload

bench-log: .venv/tested  ## What a durable row costs
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.durability

bench-curation: .venv/tested  ## What curation drops of 100,000 rows, and what it leaves (two minutes)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning curation

bench-lessons: .venv/tested  ## What one run on 20 invented facts teaches, and what it makes forget (three minutes)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.lessons

bench-arms: .venv/tested  ## What keeps what the base knew: four ways to hold an adapter, on 100 invented facts (twelve minutes)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning arms

bench-nights: .venv/tested  ## Twenty nights of five corrections each, and what is left of the first (an hour)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning nights

bench-train: .venv/tested  ## How fast training is, and 45 corrections to a verdict (ten minutes)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning training

bench-detection: .venv/tested  ## How well uncertainty tells wrong answers from right ones (two minutes)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning detection

bench-labels: .venv/tested  ## Labels to the same accuracy: active beside random, over five seeds (35 minutes; takes up where it stopped)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning labels

bench-preference: .venv/tested  ## Do hidden preferences of simulated raters reach the model, does flattery raise the alarm (ten minutes)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning preference

bench-retention: .venv/installed  ## Which retention questions the default base gets right by luck (five minutes)
	PYTHONPATH=. $(BIN)/python tests/benchmarks/retention_stability.py

bench-scale: .venv/tested  ## Choosing questions among a million interactions, and their neighbours (four minutes, 3 GB of disk)
	PYTHONPATH=. $(BIN)/python -m tests.benchmarks.learning scale

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: .venv/tested  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and caches (not the state)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build

# torch first and alone: a later request that its version satisfies then fetches no other build of it.
.venv/installed: pyproject.toml .constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --constraint .constraints.txt torch
	$(PIP) install --constraint .constraints.txt --editable .
	touch $@

.venv/tested: .venv/installed
	$(PIP) install --constraint .constraints.txt --editable '.[dev]'
	touch $@
