# Two commands for users: `make eval` and `make test`; each sets up all it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Tests run beside each other, with one thread each; but those of the sandbox look at every process
# of the machine, and come last by themselves.
WORKERS ?= 2
BESIDE = OMP_NUM_THREADS=1 $(BIN)/pytest -q --durations 40 --durations-min 5 --numprocesses $(WORKERS) \
  --dist loadfile --no-loadscope-reorder --ignore tests/sandbox
TESTS = $(BESIDE) $(1) || failed=1; $(BIN)/pytest -q tests/sandbox $(1) && test -z "$$failed"

# Besides the tiny suite; together they may take two minutes on two cores.
GATE_MMLU ?= 60
GATE_GSM8K ?= 4
GATE_HUMANEVAL ?= 8
# Neither a hub nor a mirror: the questions are those that the project brings, everywhere.
GATE_RUN = HF_HUB_OFFLINE=1 QWEN_EVAL_DATA= $(BIN)/qwen-eval run \
  --tasks tiny,mmlu,gsm8k,humaneval --model tiny --dtype float32 \
  --limit mmlu=$(GATE_MMLU),gsm8k=$(GATE_GSM8K),humaneval=$(GATE_HUMANEVAL)

.PHONY: eval test test-fast lint format gate gate-baseline tiny clean help

help:
	@echo "make eval       set up, judge the bundled model on MMLU, HumanEval and its own suite, write report.html"
	@echo "make test       set up and run the whole test suite"
	@echo "make test-fast  the tests that take seconds"
	@echo "make lint       ruff and mypy"
	@echo "make tiny       train the bundled model anew from raw text: make tiny DATA=MIRROR"
	@echo "make gate       hold the default model's answers to tests/gate/baseline"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "venv is missing: apt install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

eval: $(READY)
	$(BIN)/qwen-eval run --tasks mmlu,humaneval,tiny --limit 40
	$(BIN)/qwen-eval report --out report.html

test: $(READY)
	$(BIN)/qwen-eval models pull smollm2
	$(call TESTS)

test-fast: $(READY)
	$(call TESTS,-m 'not slow')

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Without what an earlier run left: a run that is resumed would judge the code of that day.
gate: $(READY)
	rm -rf build/gate build/gate.xml build/gate.json
	mkdir -p build
	$(GATE_RUN) --out build/gate
	$(BIN)/qwen-eval gate --rules tests/gate/gate.yaml --baseline tests/gate/baseline \
	  --candidate build/gate --junit build/gate.xml --out build/gate.json

# When the default model, a prompt or a scorer changes: make gate-baseline REASON="..."
gate-baseline: $(READY)
	@test -n "$$REASON" || { echo 'Say why: make gate-baseline REASON="..."'; exit 1; }
	rm -rf build/aa1 build/aa2 build/aa3
	mkdir -p build
	$(GATE_RUN) --out build/aa1
	$(GATE_RUN) --out build/aa2
	$(GATE_RUN) --out build/aa3
	$(BIN)/qwen-eval gate promote build/aa1 --to tests/gate/baseline \
	  --aa build/aa2 --aa build/aa3 --reason "$$REASON"

# From raw text to the bundled models, about two hours of two cores; each step resumes.
tiny: $(READY)
	@test -n "$(DATA)" || { echo 'Name the folder of the raw text: make tiny DATA=...'; exit 1; }
	$(BIN)/qwen-eval train data tiny --data $(DATA) --out build/tiny/corpus
	$(BIN)/qwen-eval train tokenizer --text build/tiny/corpus/5-heldout/kept --vocab-size 7984 \
	  --weights zh_modern=3,code=3 --out build/tiny/tokenizer
	$(BIN)/qwen-eval train data tiny --data $(DATA) --tokenizer build/tiny/tokenizer \
	  --out build/tiny/corpus
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 -m qwen_eval \
	  train pretrain tiny --corpus build/tiny/corpus --out build/tiny/base
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 -m qwen_eval \
	  train sft tiny-chat --model build/tiny/base/model --data $(DATA) --out build/tiny/chat
	$(BIN)/qwen-eval convert build/tiny/chat/model --delta-from build/tiny/base/model \
	  --size 2.9MiB --out build/tiny/tiny-chat

clean:
	rm -rf $(VENV) build dist *.egg-info
