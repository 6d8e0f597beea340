# make demo: set up everything and run the main job on the embedded corpus.   make test: set up everything and test.

PYTHON ?= python3
FARFEEL := .venv/bin/farfeel
DEMO ?= demo
export FARFEEL_DATA ?= ../shared/data

.PHONY: setup demo test lint bench default clean

setup: .venv/ready

# Stale when the dependencies change; an interrupted set-up leaves no `ready`.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

demo: setup
	$(FARFEEL) demo --out $(DEMO)

test: setup
	.venv/bin/pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup
	.venv/bin/python -m benchmarks

# The checkpoint in the package, trained again: sound by cross-validation (each of seven networks has not heard three
# actors), film once, merged. Six hours on two cores; what is done is not done again. make -j2 OMP_NUM_THREADS=1 default
RUNS ?= runs
FOLDS := $(foreach fold,1 2 3 4 5 6 7,$(RUNS)/sound-$(fold)/best)
RAVDESS := --corpus ravdess --root $(FARFEEL_DATA)/ravdess

default: $(FOLDS) $(RUNS)/film/best
	$(FARFEEL) merge $^ --set data.split=paper --out $(RUNS)/default
	$(FARFEEL) export --checkpoint $(RUNS)/default --out $(RUNS)/default.onnx

$(RUNS)/rooms: | setup
	$(FARFEEL) rooms simulate --recipe default --count 800 --mics 4 --seed 21 --out $@

$(RUNS)/sound-%/best: | $(RUNS)/rooms
	$(FARFEEL) train --recipe default $(RAVDESS) --rirs $(RUNS)/rooms --split folds-7:$* --resume --out $(@D) \
	    rooms.renderings=10 train.compile=true

$(RUNS)/stills: | setup
	$(FARFEEL) stills $(FARFEEL_DATA)/faces/fer2013.parquet --out $@

$(RUNS)/faces/best: | $(RUNS)/stills
	$(FARFEEL) train --recipe faces --corpus stills --root $(RUNS)/stills --resume --out $(@D)

$(RUNS)/surrogate: | $(RUNS)/stills
	$(FARFEEL) surrogate $(RAVDESS) --stills $(RUNS)/stills --split folds-7:1 --out $@

$(RUNS)/film/best: $(RUNS)/faces/best | $(RUNS)/surrogate
	$(FARFEEL) train --recipe htsat --corpus $(RUNS)/surrogate/manifest.parquet --split folds-7:1 --resume --out $(@D) \
	    --video-weights $< modalities=video train.epochs=10 train.learning_rate=5.0e-4 train.warmup_epochs=1

.PRECIOUS: $(RUNS)/sound-%/best

clean:
	rm -rf .venv build dist src/*.egg-info
