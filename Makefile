# Every target does its own set-up on a machine that has Python >= 3.11 and git, and reuses it the next time.
# PYTHON=... names another interpreter; PIP_OPTIONS=... adds options to pip install.

BIN := .venv/bin
PACKAGES := devices simulators learning_rules experiments

# One thread per library: numba and BLAS threads together on few cores are slower by up to two orders of magnitude,
# and two pytest workers are already running. Numba may be asked for two threads, by tests that compare the bits.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=2

export PYTHON PIP_OPTIONS

.PHONY: help demo test slow check format bench docs clean distclean setup links

help:
	@echo "make demo    train a relaxing analog network on handwritten digits, beside its controls; prints where the report is"
	@echo "make test    run the tests (at most 4 minutes on two cores)"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make bench   compare our speed with references and with the machine's limit"
	@echo "make docs    pages of the programming interface, in docs/api"
	@echo "make slow    the long tests, among them the study on digits: minutes"
	@echo "make format  sort imports and format the code"
	@echo "make clean   remove what was generated, except .venv and runs (make distclean: .venv too)"

setup:
	@sh .ci/setup test

demo: setup
	$(BIN)/inmaterio compare --quick --data digits \
	    --substrate hopfield-ideal --substrate hopfield-imperfect \
	    --rule equilibrium-propagation --rule contrastive-hebbian --out runs/demo

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

slow: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow -n 2 --dist worksteal $(ARGS)

# Type checkers and import-linter cannot follow the import hook of an editable install, so they get links.
links:
	@mkdir -p .links/inmaterio
	@for folder in $(PACKAGES); do ln -sfn "../../$$folder" ".links/inmaterio/$$folder"; done

check: setup links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addprefix .links/inmaterio/,$(PACKAGES)) benchmarks
	PYTHONPATH=.links $(BIN)/lint-imports --no-logo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(ONE_THREAD) $(BIN)/inmaterio bench

docs:
	@sh .ci/setup docs
	$(BIN)/python -m pdoc --docformat numpy --math -o docs/api $(addprefix inmaterio.,$(PACKAGES))
	@echo "docs/api/index.html"

clean:
	rm -rf .links .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	rm -rf docs/api build dist *.egg-info
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
