# Two commands for a fresh machine: `make demo` and `make test`. Both set everything up by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := demo
FILES := --dataset digits --checkpoint $(DEMO)/checkpoint --save-path $(DEMO)/results
TRAIN := OMP_NUM_THREADS=1 $(BIN)/python train.py --dataset digits --checkpoint $(DEMO)/checkpoint --resume \
         -n 32 --epochs 80 --lr 1e-3

.PHONY: demo test faults bench gpu pretrained lint clean

# One thread each, side by side, is the fastest way through two small trainings on two cores. A second `make demo`
# finds them done and only draws.
demo: $(INSTALLED)
	@mkdir -p $(DEMO)
	$(TRAIN) -l 0 2> $(DEMO)/ae.log & ae=$$!; $(TRAIN) -l 4 && wait $$ae || { cat $(DEMO)/ae.log; exit 1; }
	@$(BIN)/python singular.py $(FILES) --model-name ae irmae
	@for model in ae irmae; do $(BIN)/python generation.py $(FILES) --task mvg --fit-to train --model-name $$model || exit 1; done
	@$(BIN)/python generation.py $(FILES) --task pca --fit-to train --model-name irmae

# The small models of pretrained/ again, and how far they are from those: a minute or two (a second time it compares only;
# `make clean`). pretrained/README.md has the budget.
pretrained: $(INSTALLED)
	for l in 0 4; do OMP_NUM_THREADS=1 $(BIN)/python train.py --dataset digits --checkpoint build/pretrained --resume \
	    --arch relu:100 -n 32 --epochs 80 --lr 1e-3 -l $$l || exit 1; done
	$(BIN)/python benchmarks/pretrained.py build/pretrained

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --ignore tests/faults
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 tests/faults  # forks: no other test trained there

# Random kills over all models and seven scripts, and 1,000 damaged inputs: a quarter of an hour. docs/reliability.md has the result.
faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/long.py --json docs/data/reliability.json \
	    --page docs/reliability.md

# About a minute; python benchmarks/throughput.py --help says what else can be measured.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/throughput.py --models irmae --datasets mnist --batch-sizes 32 --rounds 3

# All that needs a GPU, a quarter of an hour: does it compute what the CPU computes, how fast, and with which loss and rank.
# `make gpu DATA=DIR` where MNIST lies elsewhere than in ./datasets; `make gpu RUN=python3` for an interpreter that has
# everything already, on a machine without a network.
DATA ?= ./datasets
RUN ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(RUN)),$(INSTALLED))
	$(RUN) -m pytest -m gpu -n 4
	$(RUN) benchmarks/throughput.py --gpu --models irmae --datasets mnist celeba --batch-sizes 32 \
	    --precisions fp32 tf32 bf16 --rounds 2 --json results/gpu/throughput.json
	$(RUN) benchmarks/gpu.py variants --json results/gpu/variants.json
	$(RUN) benchmarks/gpu.py together --json results/gpu/together.json
	$(RUN) benchmarks/paths.py --gpu --dataset mnist --data-path $(DATA) -l 8 --epochs 5 --json results/gpu/paths.json

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy models data utils experiments

$(INSTALLED): requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) $(DEMO) build .pytest_cache .ruff_cache .mypy_cache
