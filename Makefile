# make demo: set up everything, then train and test small models on the embedded corpus.
# make test: set up everything, then run the tests.

PYTHON ?= python3
FARFEEL := .venv/bin/farfeel
DEMO ?= demo
export FARFEEL_DATA ?= ../shared/data

.PHONY: setup demo test lint bench default clean

setup: .venv/ready

# It is made again when the dependencies change. An interrupted set-up leaves no `ready`.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

demo: setup
	$(FARFEEL) demo --out $(DEMO)

# Two processes, a whole file of tests each: the tests of a file share what they build.
test: setup
	.venv/bin/pytest -n 2 --dist loadfile

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup
	.venv/bin/python -m benchmarks

# Train the checkpoint in the package again. It merges six audio networks, trained on all available speakers, and one video
# network. Three of the audio networks normalise their frequencies. Finished parts are not trained again.
#
#   make -j2 default OMP_NUM_THREADS=1 RUNS=runs
#
# The temperature of the checkpoint comes from the cross-validation: see the card.
RUNS ?= runs
AUDIO := $(foreach one,normed-1 plain-2 plain-1 normed-2 plain-3 normed-3,$(RUNS)/$(one)/best)
RAVDESS := --corpus ravdess --root $(FARFEEL_DATA)/ravdess
TRAIN_AUDIO = $(FARFEEL) train --recipe default $(RAVDESS) --rirs $(RUNS)/rooms --split paper --resume --out $(@D) \
    data.learn_validation=true rooms.renderings=10 train.precision=auto

default: $(AUDIO) $(RUNS)/film/best
	$(FARFEEL) merge $^ --out $(RUNS)/default --half --set data.split=paper
	$(FARFEEL) export --checkpoint $(RUNS)/default --out $(RUNS)/default.onnx --half

$(RUNS)/rooms: | setup
	$(FARFEEL) rooms simulate --recipe default --count 800 --mics 4 --seed 21 --out $@ simulation.sources_per_room=2

$(RUNS)/plain-%/best: | $(RUNS)/rooms
	$(TRAIN_AUDIO) seed=$*

$(RUNS)/normed-%/best: | $(RUNS)/rooms
	$(TRAIN_AUDIO) seed=$* model.frequency_norm=0.1

$(RUNS)/stills: | setup
	$(FARFEEL) stills $(FARFEEL_DATA)/faces/fer2013.parquet --out $@

$(RUNS)/faces/best: | $(RUNS)/stills
	$(FARFEEL) train --recipe faces --corpus stills --root $(RUNS)/stills --resume --out $(@D)

$(RUNS)/surrogate: | $(RUNS)/stills
	$(FARFEEL) surrogate $(RAVDESS) --stills $(RUNS)/stills --split folds-7:1 --out $@

$(RUNS)/film/best: $(RUNS)/faces/best | $(RUNS)/surrogate
	$(FARFEEL) train --recipe htsat --corpus $(RUNS)/surrogate/manifest.parquet --split folds-7:1 --resume --out $(@D) \
	    --video-weights $< modalities=video train.epochs=10 train.learning_rate=5.0e-4 train.warmup_epochs=1

.PRECIOUS: $(RUNS)/plain-%/best $(RUNS)/normed-%/best

clean:
	rm -rf .venv build dist src/*.egg-info
