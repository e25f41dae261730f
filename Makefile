# make quickstart: from a bare Python 3.11 or newer to ranked jobs. make test: the same to the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
WORKERS ?= 2
# Huge pages for malloc: a quarter less CPU time in training. Other C libraries ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: quickstart install test lint clean smollm2 gemma3 benchmark

quickstart: $(VENV)/.installed
	$(BIN)/python -m experiments.quickstart --config=configs/quickstart.py --workdir=$(RUN)

install: $(VENV)/.installed

# Two processes, each of which takes whole files: make test ARGS=tests/models. What needs eight devices
# runs apart (tests/shares.py); 5 says that ARGS have no test of a run, and is an error of both.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
test: $(VENV)/.installed-dev
	two=0; JOBREC_TEST_DEVICES=2 $(PYTEST) || two=$$?; \
	[ $$two -eq 0 ] || [ $$two -eq 5 ] || exit $$two; \
	JOBREC_TEST_DEVICES=8 $(PYTEST) || { eight=$$?; [ $$two-$$eight = 0-5 ] || exit $$eight; }

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

# A real, small Llama (Apache-2.0, 98 MB) into ~/.cache/jobrec_jax/models.
smollm2: $(VENV)/.installed
	$(BIN)/python -m jobrec_jax.weights.fetch smollm2-135m-instruct

# A real Gemma 3 of 270 M parameters in mixed quantisation (253 MB) to the same place. Who fetches
# it accepts https://ai.google.dev/gemma/terms.
gemma3: $(VENV)/.installed
	$(BIN)/python -m jobrec_jax.weights.fetch gemma3-270m

# Lists on SmolLM2-135M, ours against PyTorch's: see benchmarks/RESULTS.md. XLA on CPUs: products by
# Eigen, a fifth faster at a backbone's sizes than YNNPACK, which keeps the sums (see BUILD.md).
benchmark: export XLA_FLAGS ?= --xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE
benchmark: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.backbone $(ARGS)

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) must be Python 3.11 or newer; name another: make PYTHON=python3.12" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps hold no content: they are newer than what they were made from, or pip runs again.
$(VENV)/.installed: requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@
