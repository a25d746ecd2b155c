# make demo       install for CPU and take a small model through the whole chain on this machine
# make test       checks and tests; what takes longer is left to make test-full
# make test-nvidia  the tests of the back ends nemo and automodel, in environments of their own (make venvs)
# make coverage   the tests of make test once more, and how much of the code they run, branch by branch
# make soak       random faults over many small chains
# make notebooks  run the notebooks on the demo's model and write them with their outputs into notebooks/built
# make venvs      install NVIDIA's stacks into .venv-nemo and .venv-automodel (7 GB), where a package index has them
# make docs       the pages of docs/ as a site, in build/docs
# make clean      remove everything that make made
#
# Everything is installed into .venv by pip; a stamp there says what is done, so a second make is quick.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off --root-user-action ignore \
	--constraint constraints.txt
# What the README and the tutorial use: the demo's environment submits to a throw-away Slurm, too.
USED := train,data,eval,nemo-run,submitit
EXTRAS := $(USED),hub,tensorboard,notify,watch,notebooks,docs,dev

.DELETE_ON_ERROR:
.PHONY: demo docs test test-slurm test-rest test-nvidia test-full test-slurm24 coverage check soak bench notebooks clean venvs venv-nemo venv-automodel

# What the tests need is more than what the demo needs: one installation is enough.
demo: $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.train)
	$(BIN)/overnight fetch pipelines/pt_pt.yaml
	$(BIN)/overnight run pipelines/pt_pt.yaml --cluster local
	@# That names the page of the run; where somebody looks at a screen, the browser opens it.
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then \
		xdg-open "$$($(BIN)/overnight report --html | sed -n 's/^page: //p')" >/dev/null 2>&1 || true; fi

# The checks and two halves of the tests at the same time, each half in two processes: the half on a real Slurm, with a
# cluster for each process, waits more than it works. The output of the other half comes when it ends.
test: $(VENV)/.dev
	@command -v slurmctld >/dev/null || echo "slurmctld is not installed: the tests on a real Slurm will be skipped"
	@$(MAKE) --keep-going --no-print-directory --jobs=3 check test-slurm test-rest

PYTEST := $(BIN)/python -m pytest
SHORT := not full and not nvidia

test-slurm: $(VENV)/.dev
	$(PYTEST) -m "$(SHORT)" -n 2 --dist loadfile tests/slurm

test-rest: $(VENV)/.dev
	@$(PYTEST) -m "$(SHORT)" -n 2 --dist worksteal tests --ignore=tests/slurm >.test-rest.log 2>&1; rest=$$?; \
		echo; cat .test-rest.log; exit $$rest

# Where an environment cannot be installed, its tests say so and are skipped.
test-nvidia: $(VENV)/.dev
	@$(MAKE) --keep-going --no-print-directory --jobs=1 venvs >.test-nvidia.log 2>&1 || \
		echo "NVIDIA's stacks are not installed (.test-nvidia.log): their tests will be skipped"
	$(PYTEST) -m "nvidia and not full" -n 2 --dist loadfile tests/jobs tests/launch/plan tests/slurm/test_nvidia_chain.py

# Also where a test fails: what was run is measured all the same.
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	-$(MAKE) --keep-going --no-print-directory --jobs=2 test-slurm test-rest PYTEST="$(BIN)/coverage run -m pytest"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --ignore-errors

test-full: check
	$(BIN)/python -m pytest

# The tests on a real Slurm with that of Debian 13 (24.11), in a chroot; as root, 2 GB and a few minutes to make it.
test-slurm24:
	bash tests/slurm/trixie.sh

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/sphinx-build --fail-on-warning --quiet docs build/docs
	@echo "build/docs/index.html"

# Random faults: 10,000 chains on a simulated site, then many small ones on a throw-away Slurm; MINUTES=30 by default.
soak: $(VENV)/.dev
	$(BIN)/python -m tests.faults.simulate --chains 10000
	$(BIN)/python -m tests.slurm.soak --minutes $(or $(MINUTES),30)

bench: $(VENV)/.dev
	for name in cli sweep profile_init status watch submit handoff install gate store large; do \
		echo "== $$name"; $(BIN)/python "benchmarks/$$name.py" || exit 1; \
	done

notebooks: $(VENV)/.dev
	$(BIN)/python notebooks/build.py --run

# Their pins exclude ours and each other, so each has an environment of its own. megatron-core: 0.16 breaks NeMo's
# optimizer. With the Python of .venv: its torch is the one that the others take.
venvs: venv-nemo venv-automodel
venv-nemo: .venv-nemo/.done
venv-automodel: .venv-automodel/.done
.venv-%/.done: constraints-%.txt | $(VENV)/.created
	$(BIN)/python -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip --disable-pip-version-check install --progress-bar off --root-user-action ignore \
		"$$(grep '^torch==' constraints.txt)"
	.venv-$*/bin/python -m pip --disable-pip-version-check install --progress-bar off --root-user-action ignore \
		--requirement $<
	touch $@

clean:
	rm -rf .test-rest.log .test-nvidia.log .coverage .coverage.* $(VENV) .venv-nemo .venv-automodel build dist .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# The first Python of at least 3.11 with a working venv module; PYTHON=/path/to/python3 chooses another.
$(VENV)/.created:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		found=$$python; \
		rm -rf $(VENV); \
		if "$$python" -m venv $(VENV); then touch $@; exit 0; fi; \
	done; \
	rm -rf $(VENV); \
	if [ -n "$$found" ]; then \
		echo "make: $$found cannot make a virtual environment: apt-get install python3-venv, then make again" >&2; \
	else \
		echo "make: Python 3.11 or newer is needed; if you have one: make PYTHON=/path/to/python3" >&2; \
	fi; \
	exit 1

# torch comes first and by its exact version, so that pip takes a CPU build (1 GB installed) where it is set up to find
# one, as by PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS. Where it is not, this is the CUDA build (5 GB), which works, too.
$(VENV)/.torch: $(VENV)/.created
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/.train: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[$(USED)]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[$(EXTRAS)]'
	@# Megatron's own writer, which ours is compared with: without what it depends on, and out of the way of the rest.
	$(PIP) --no-deps --only-binary :all: --upgrade --target $(VENV)/megatron megatron-core==0.15.3 || \
		echo "no megatron-core for this machine: the comparison with it will be skipped"
	touch $@
