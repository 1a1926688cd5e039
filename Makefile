# Everything lives in .venv; delete it to start again.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
EXTRAS := plan,train,wasm,report,postgres,mqtt,nvml,build,test
KERNELS := gridsched/_built/kernels.wasm
PAGES  := gridsched/_built/pages

.PHONY: setup pages demo test check format long sim bench clean

setup: $(READY) $(KERNELS) $(PAGES)

pages: $(PAGES)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"gridsched needs Python 3.11 or newer, and $(PYTHON) is {v[0]}.{v[1]}. Try: make setup PYTHON=python3.12")'
	@echo "==> Installing into .venv (once; one to three minutes, about 1.8 GB, nearly half of it PyTorch)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
	@echo "==> Ready. Next: make demo"

# The WebAssembly kernels; some ten seconds, once and after every change.
$(KERNELS): $(READY) gridsched/train/plan/kernels.py $(wildcard kernels/*.c kernels/*.h kernels/*.py)
	@$(BIN)/python kernels/build.py
	@touch $@

# What browsers are served: a second, once and after every change.
$(PAGES): $(READY) scripts/build_pages.py $(shell find browser -name node_modules -prune -o -type f -print)
	@$(BIN)/python scripts/build_pages.py
	@touch $@

demo: $(READY) $(KERNELS) $(PAGES)
	@$(BIN)/gridsched demo $(ARGS)

test: $(READY) $(KERNELS) $(PAGES)
	$(BIN)/pytest -m "not long" -n 2 --dist worksteal $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/build_pages.py --check

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What runs real sites goes one by one: a second one beside it would take its processor.
long: $(READY) $(KERNELS)
	$(BIN)/pytest -m long --ignore=tests/e2e -n 2 --dist worksteal $(ARGS)
	$(BIN)/pytest -m long tests/e2e $(ARGS)

sim: $(READY) $(KERNELS)
	$(BIN)/pytest tests/sim $(ARGS)

# All of them, one after another: several hours. Each can be run alone and says how.
bench: $(READY) $(KERNELS)
	@for file in $(filter-out benchmarks/flower_% $(addprefix benchmarks/,fashion_mlp.py fleet.py proxy.py small_cnn.py),$(sort $(wildcard benchmarks/*.py))); do echo "==> $$file"; $(BIN)/python "$$file" || exit 1; done

clean:
	rm -rf .venv build dist gridsched/_built .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
