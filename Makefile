# Every target does its own set-up on a machine that has Python >= 3.11 and git, and reuses it the next time.
# PYTHON=... names another interpreter; PIP_OPTIONS=... adds options to pip install.

BIN := .venv/bin
PACKAGES := devices simulators learning_rules experiments

# One thread per library: numba and BLAS threads together on few cores are slower by up to two orders of magnitude,
# and two pytest workers are already running. Numba may be asked for two threads, by tests that compare the bits.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=2

export PYTHON PIP_OPTIONS

.PHONY: help demo test slow check format bench docs physical physical-mnist1d parity vowels knock homeostasis dual-propagation delays clean distclean setup links

help:
	@echo "make demo    train a relaxing analog network on handwritten digits, beside its controls; prints where the report is"
	@echo "make test    run the tests (at most 4 minutes on two cores)"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make bench   compare our speed with references and with the machine's limit"
	@echo "make physical, physical-mnist1d, parity, vowels, knock"
	@echo "             studies of rules on waves: two CPU-hours the first, minutes the others; each goes on where it was stopped"
	@echo "make homeostasis, dual-propagation"
	@echo "             studies of couplings that are not symmetric (an hour) and of dual propagation on mnist1d (minutes)"
	@echo "make delays  do delays earn their keep in spiking networks? 70 minutes of one core; needs the program espeak-ng"
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

# Studies of rules on driven physics: docs/physical.md says what came out. Each can be stopped and goes on.
STUDY := --quick --optimiser adam --loss cross_entropy

physical: setup
	$(BIN)/inmaterio compare $(STUDY) --data digits --train-limit 1000 --epochs 10 --seeds 3 --hidden 32 --hidden 32 \
	    --substrate cavity --substrate metasurface --substrate cavity-tunable --substrate metasurface-tunable \
	    --rule model-free-forward-forward --rule forward-forward --rule node-perturbation --rule simultaneous-perturbation \
	    --rule multiplexed-gradient-descent --rule physics-aware-training --rule in-situ-adjoint \
	    --hyper model-free-forward-forward.head=true --out runs/physical

parity: setup
	$(BIN)/inmaterio compare $(STUDY) --data parity-3 --epochs 20 --seeds 5 --hidden 0 --rule delta-rule \
	    --substrate linear-cavity --substrate cubic-cavity --out runs/parity \
	    --option linear-cavity.detectors=16 --option linear-cavity.labels=false \
	    --option cubic-cavity.detectors=16 --option cubic-cavity.labels=false

vowels: setup
	$(BIN)/inmaterio compare $(STUDY) --data vowels-synthetic --epochs 10 --seeds 3 --batch-size 9 \
	    --substrate wave-medium --rule in-situ-adjoint --out runs/vowels
	$(BIN)/inmaterio compare $(STUDY) --data "vowels-synthetic?bands=40" --epochs 40 --seeds 3 --batch-size 9 \
	    --substrate digital-feedforward --rule backpropagation --out runs/vowels-levels

physical-mnist1d: setup
	$(BIN)/inmaterio compare --quick --optimiser adam --loss cross_entropy --data mnist1d \
	    --train-limit 1000 --test-limit 360 --epochs 10 --seeds 3 --hidden 32 --hidden 32 \
	    --substrate cavity --substrate metasurface --rule model-free-forward-forward \
	    --rule physics-aware-training --rule in-situ-adjoint \
	    --hyper model-free-forward-forward.head=true --out runs/physical-mnist1d

KNOCK := disturb --data digits --train-limit 400 --hidden 32 --epoch 5 --epochs 10 --seeds 3 --size 0.05 \
    --substrate metasurface --rule model-free-forward-forward --rule node-perturbation \
    --rule physics-aware-training --rule in-situ-adjoint

knock: setup
	$(BIN)/inmaterio $(KNOCK) --recalibrate --out runs/knock-recalibrated
	$(BIN)/inmaterio $(KNOCK) --out runs/knock-as-it-is

# Strengths were chosen on the validation rows, each among four, by measured nudges with one seed.
HOMEOSTASIS := compare --fit-on train --batch-size 50 --rate 0.01 --factor 1 --momentum 0.9 --seeds 3 --substrate hopfield-asymmetric
FASHION_MNIST ?= /usr/share/datasets/fashion-mnist
homeostasis: SETTLED = tolerance=1e-4&free_steps=4000
homeostasis: setup
	$(BIN)/inmaterio $(HOMEOSTASIS) --data digits --epochs 60 --hidden 64 --hidden 64 \
	    --rule "generalised-equilibrium-propagation?$(SETTLED)&nudged_steps=4000&radius=0.05" \
	    --rule "jacobian-homeostasis?derivative=twin&strength=7&$(SETTLED)" \
	    --rule "jacobian-homeostasis?points=2&radius=0.05&strength=7&$(SETTLED)&nudged_steps=4000" \
	    --rule "jacobian-homeostasis?points=4&radius=0.05&strength=7&$(SETTLED)&nudged_steps=4000" \
	    --rule "asymmetric-equilibrium-propagation?$(SETTLED)&nudged_steps=4000&beta=0.05" \
	    --rule "jacobian-homeostasis?base=exact&strength=7&$(SETTLED)" --out runs/homeostasis-digits
	if [ -d "$(FASHION_MNIST)" ]; then $(BIN)/inmaterio $(HOMEOSTASIS) --data "idx:$(FASHION_MNIST)" --train-limit 6000 \
	    --validation-fraction 0.16667 --epochs 6 --hidden 256 --hidden 256 --option hopfield-asymmetric.damping=0.5 \
	    --rule "generalised-equilibrium-propagation?$(SETTLED)&nudged_steps=4000&radius=0.1" \
	    --rule "jacobian-homeostasis?derivative=twin&strength=26&$(SETTLED)" \
	    --rule "jacobian-homeostasis?points=2&radius=0.1&strength=26&$(SETTLED)&nudged_steps=4000" \
	    --rule "jacobian-homeostasis?points=4&radius=0.05&strength=26&$(SETTLED)&nudged_steps=4000" \
	    --rule "asymmetric-equilibrium-propagation?$(SETTLED)&nudged_steps=4000&beta=0.1" \
	    --rule "jacobian-homeostasis?base=exact&strength=26&$(SETTLED)" --out runs/homeostasis-fashion-mnist; \
	else echo "no folder $(FASHION_MNIST): the Debian package dataset-fashion-mnist has it, or make homeostasis FASHION_MNIST=FOLDER"; fi

dual-propagation: setup
	$(BIN)/inmaterio compare --data mnist1d --hidden 128 --hidden 128 --epochs 30 --batch-size 32 --loss cross_entropy \
	    --momentum 0.9 --rate 0.1 --seeds 5 --substrate digital-feedforward --rule "dual-propagation?beta=0.01" \
	    --rule "dual-propagation?alpha=0&beta=0.01" --rule "dual-propagation?alpha=1&beta=0.01" --out runs/dual-propagation

# First couplings as wide as suits the network without delays, on validation rows of one seed, among 1, 2 and 4 times.
DELAYS := compare --substrate spiking-ideal --hidden 64 --optimiser adam --schedule one-cycle --weight-decay 1e-5 --seeds 5 \
    --loss cross_entropy --factor 1 --factor 2 --factor 4 --rule dcls-delay-learning \
    --rule "dcls-delay-learning?delays=fixed" --rule "dcls-delay-learning?delays=none"
SPOKEN := --data spoken-digits --epochs 40 --batch-size 40 --gain 1
CROSSINGS := --data mnist1d-crossings --epochs 30 --batch-size 50 --gain 2
# The steps after an input's end belong to the trained network: its biases act in each of them.
ON_LOIHI := --option weight_max=5.0 --option tail_steps=24
MISMATCH := --vary tau_mismatch,threshold_mismatch,gain_mismatch=0,0.05,0.1,0.2,0.3 --chips 10

delays: setup
	$(BIN)/inmaterio $(DELAYS) $(SPOKEN) --option spiking-ideal.leak=0.9 --out runs/delays-spoken
	$(BIN)/inmaterio $(DELAYS) $(SPOKEN) --option spiking-ideal.leak=0.5 --out runs/delays-spoken-forgetful
	$(BIN)/inmaterio $(DELAYS) $(CROSSINGS) --option spiking-ideal.leak=0.9 --out runs/delays-crossings
	for set in spoken spoken-forgetful crossings; do \
	    $(BIN)/inmaterio deploy runs/delays-$$set --to spiking-loihi $(ON_LOIHI) --out runs/loihi-$$set || exit 1; done
	$(BIN)/inmaterio deploy runs/delays-spoken --to spiking-loihi $(ON_LOIHI) $(MISMATCH) --out runs/mismatch-spoken

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
