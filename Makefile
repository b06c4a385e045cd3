# Every target does its own set-up in .venv, and does again only what changed.
#   make sweep     the bandwidth sweep of all_reduce on 4 local ranks
#   make test      the whole test suite
#   make mpi4pytests   mpi4py's own tests on collx, beside MPICH, into docs/mpi4py.md
#   make pylopstests   pylops-mpi's own, likewise
#   make versus    collx beside Open MPI, MPICH, Intel MPI and Gloo, into perf/results/versus.*; ARGS='--quick'
#   make torchperf collx beside Gloo through torch's API, into perf/results/torch.*; ARGS='--calls broadcast --models='
#   make torchtests torch's own tests of torch.distributed on collx beside Gloo, into docs/torch-suite.md
#   make torchprograms programs of PyTorch, Lightning and Accelerate by every launcher, into docs/torch.md
#   make tcp       as root: collx between two hosts beside Gloo and Open MPI, into perf/results/tcp.*; ARGS='--quick'
#   make regret    as root: what it costs to leave the choice to the selector, into perf/results/regret.*; ARGS='4 2x2'
#   make yardstick the engine beside an all_reduce by hand, and memory's bounds; ARGS='-n 2 --sizes 64K,1M'
#   make checks    what it costs that ranks compare their calls, into perf/results/checks.md
#   make mismatches random mismatched pairs of calls, which must all be found; CASES=100000
#   make kills     N jobs in which ranks are killed at random moments, and how soon the others learn of it; N=1000
#   make gpu       what needs an NVIDIA GPU: tests, compute-sanitizer and sweeps, into perf/results; PYTHON=python3
#   make prove     every schedule for every size 1..256, and random larger ones
#   make lint      ruff and mypy
#   make kernels   the kernels of GPUs, compiled for all that there are, without one
#   make sanitize  the native tests under ASAN + UBSAN and under TSAN
#   make fuzz      what peers may send, changed at random, under ASAN + UBSAN; COUNT=1000000
#   make models    the models of the protocols between ranks, by Spin
#   make docs      what is generated and kept: docs/algorithms.md, collx/_core.pyi

PYTHON ?= python3
BIN := .venv/bin
# An editable install knows every module's file, so that a module that has become a folder takes a new one.
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(wildcard collx/csrc/* transports/*/__init__.py)
INSTALL = $(BIN)/pip $(INTO) install -q --no-build-isolation -C cmake.define.COLLX_WERROR=$(if $(CI),ON,OFF) \
    -C cmake.define.COLLX_UNCHECKED=$(if $(UNCHECKED),ON,OFF)

# The tests start thousands of processes, each of which would compile all of collx anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: gpu sweep versus torchperf tcp regret yardstick checks test mpi4pytests nft mismatches prove lint kernels
.PHONY: environments pylopstests torchtests torchprograms sanitize fuzz models docs
.DELETE_ON_ERROR:

sweep: .venv/.stamp-install
	$(BIN)/collx perf all_reduce -n 4

environments: .venv/.stamp-test .venvs/on-openmpi/.stamp .venvs/on-mpich/.stamp build/mpi4py-4.1.2/test nft

test: environments
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

mpi4pytests: .venv/.stamp-test build/mpi4py-4.1.2/test
	$(BIN)/python -m tests.mpi4py.compare $(ARGS)

pylopstests: .venv/.stamp-test .venvs/on-mpich-pylops/.stamp build/pylops_mpi-0.8.0/tests
	$(BIN)/python -m tests.mpi4py.pylops_tests $(ARGS)

# Sources, for the tests that are in them and in no wheel.
build/mpi4py-4.1.2/test: SOURCES := mpi4py
build/pylops_mpi-0.8.0/tests: SOURCES := pylops-mpi
build/mpi4py-4.1.2/test build/pylops_mpi-0.8.0/tests: tests/mpi4py/sources.txt .venv/.stamp-tools
	grep '^$(SOURCES)==' $< > build/$(SOURCES).txt
	$(BIN)/pip download -q --no-deps --no-binary $(SOURCES) --require-hashes -r build/$(SOURCES).txt -d build
	tar -xf $(@D).tar.gz -C build
	@touch $@

nft:
	@.ci/nftables build/nft

kills: .venv/.stamp-test
	$(BIN)/python -m tests.failures.kills $(N) $(ARGS)

versus: .venv/.stamp-test
	$(BIN)/python -m collx.perf.peers --output perf/results/versus $(ARGS)

torchtests: .venv/.stamp-test
	mkdir -p build/torch
	for size in 2 4; do for backend in gloo collx; do \
	    $(BIN)/python -m tests.torch.suite $$backend $$size build/torch/$$backend-$$size.jsonl || exit 1; done; done
	$(BIN)/python -m tests.torch.page build/torch > build/torch-suite.md
	mv build/torch-suite.md docs/torch-suite.md

torchprograms: .venv/.stamp-test .venvs/on-openmpi/.stamp .venvs/trainers/.stamp
	$(BIN)/python -m tests.torch.matrix $(ARGS)

torchperf: .venv/.stamp-test
	$(BIN)/python -m collx.perf.torch_versus --output perf/results/torch $(ARGS)

tcp: .venv/.stamp-test
	$(BIN)/python -m collx.perf.across --output perf/results/tcp $(ARGS)

regret: .venv/.stamp-test
	$(BIN)/python -m collx.perf.regret --output perf/results/regret $(ARGS)

yardstick: .venv/.stamp-test
	$(BIN)/python -m collx.perf.bounds
	$(BIN)/python -m collx.perf.yardstick $(ARGS)

checks: .venv/.stamp-test .venvs/unchecked/.stamp
	$(BIN)/python -m collx.perf.checks .venvs/unchecked/bin/python --output perf/results/checks.md $(ARGS)

mismatches: .venv/.stamp-test
	$(BIN)/python -m tests.failures.mismatches $(or $(CASES),10000)

# By the PYTHON given and its packages, as where GPUs are nothing can be fetched.
gpu:
	@$(PYTHON) .ci/gpu.py

prove: .venv/.stamp-install
	$(BIN)/collx verify --sizes 1-256 --larger --groupings 300

lint: .venv/.stamp-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

kernels: .venv/.stamp-test
	$(BIN)/python -m tests.cuda.compiled

sanitize: sanitize-thread sanitize-address,undefined

configured-%: .venv/.stamp-install
	$(BIN)/cmake -S tests/native -B build/sanitize-$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	    -DCOLLX_SANITIZE=$* -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python --log-level=WARNING

sanitize-%: configured-%
	$(BIN)/cmake --build build/sanitize-$*
	$(BIN)/ctest --test-dir build/sanitize-$* -j 2 --output-on-failure --no-tests=error

fuzz: configured-address,undefined
	$(BIN)/cmake --build build/sanitize-address,undefined --target wire_fuzz
	build/sanitize-address,undefined/wire_fuzz tests/native/corpus $(or $(COUNT),1000000)

models:
	docs/models/check

docs: .venv/.stamp-install
	$(BIN)/python -m collx.algorithms.table > build/algorithms.md
	mv build/algorithms.md docs/algorithms.md
	$(BIN)/python -m nanobind.stubgen -q -m collx._core -o collx/_core.pyi

.venv/.stamp-tools: pyproject.toml .ci/environment.py
	@test -x $(BIN)/pip || $(PYTHON) .ci/environment.py .venv
	$(BIN)/pip install -q --upgrade 'pip>=25.1'
	$(BIN)/pip install -q --group build
	@touch $@

# A second collx, built without the checks.
.venvs/unchecked/.stamp: INTO := --python .venvs/unchecked/bin/python
.venvs/unchecked/.stamp: UNCHECKED := 1
.venvs/unchecked/.stamp: .venv/.stamp-tools $(BUILD_INPUTS)
	@test -x $(@D)/bin/python || $(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/pip $(INTO) install -q --group build
	$(INSTALL) -C build-dir=build/unchecked --editable .
	@touch $@

# An MPI with its mpi4py, which finds it by where it lies itself; all else is .venv's. Two environments, as the MPIs bring
# programs and libraries of the same names.
.venvs/on-openmpi/.stamp: MPI := 'openmpi>=5,<6'
.venvs/on-mpich/.stamp: MPI := 'mpich>=5,<6'
.venvs/on-mpich-pylops/.stamp: MPI := 'mpich>=5,<6' pylops-mpi==0.8.0 pyproximal pytest-mpi
.venvs/on-%/.stamp: .venv/.stamp-tools
	@test -x $(@D)/bin/python || $(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/pip --python $(@D)/bin/python install -q mpi4py==4.1.2 $(MPI)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	    > $$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/collx.pth
	@touch $@

# Those who train on top of torch, which is .venv's: so pip is to see it first.
.venvs/trainers/.stamp: .venv/.stamp-test
	@test -x $(@D)/bin/python || $(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	    > $$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/collx.pth
	$(BIN)/pip --python $(@D)/bin/python install -q 'lightning>=2.6,<2.7' 'accelerate>=1.15,<1.16'
	@touch $@

.venv/.stamp-install: .venv/.stamp-tools $(BUILD_INPUTS)
	$(INSTALL) --editable .
	@touch $@

.venv/.stamp-test: .venv/.stamp-tools $(BUILD_INPUTS)
	$(INSTALL) --editable '.[test]'
	@touch .venv/.stamp-install $@
