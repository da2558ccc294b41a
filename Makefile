# Ringbridge's verbs. `make help` lists them. Each does the set-up it needs, says so, and is quick when there is
# nothing to do: what it needs of the system is looked at every time (milliseconds), the rest is behind stamps.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export LC_ALL := C.UTF-8
export PYTHON

PY := .venv/bin/python
STAMPS := build/stamp
VENV := .venv/ringbridge-lock
c_files := $(shell find csrc/core csrc/relay csrc/etf csrc/include workers/c/kit workers/c/include workers/python/src -name '*.[ch]' 2>/dev/null)
elixir_files := $(shell find elixir_client/lib -name '*.ex' 2>/dev/null)
nif_files := $(wildcard csrc/nif/*.exs csrc/nif/*.[ch] csrc/core/*.[ch] csrc/include/ringbridge/*.h)
# What the generator writes is its own business.
c_sources := git ls-files '*.c' '*.h' ':!csrc/include/ringbridge/layout.h' ':!csrc/include/ringbridge/lane_layout.h'
say = @printf '== %s\n'

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

# ---- the verbs

.PHONY: demo test bench large lint types format lint-generated lint-python lint-c lint-elixir lint-dialyzer lint-rust lint-zig lint-bugs
demo: all ## an Elixir node has work done in C, Rust, Zig and Python, each answer held against an outside source
	@$(PY) -m integration.demo

test: ## every test: C (plain and under sanitizers), Python, Elixir; closes with "N passed, N failed"
	@$(MAKE) all || { echo '0 passed, 1 failed'; exit 1; }
	@$(PY) scripts/run-tests

bench: all ## every row of the table of speed beside its peer (ROWS=calls,large QUICK=1); writes integration/bench/report/
	@$(PY) -m integration.bench $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),--quick)

lint: setup system-lint ## formatters as checks, linters, stale generated files
	@$(MAKE) -k lint-generated lint-python lint-c lint-elixir lint-dialyzer lint-rust lint-zig lint-bugs

# The tests find each other as pytest lets them: the folder of each is on the path, unless it is a package. Every conftest.py is one by
# itself, as two of one name cannot be checked at once.
test_folders = $(shell git ls-files 'tests/*.py' 'integration/*.py' | xargs -n 1 dirname | sort -u | \
	while read -r folder; do [ -e "$$folder/__init__.py" ] || printf '%s:' "$$folder"; done)
types: setup ## mypy --strict over bridge and the tests
	$(PY) -m mypy
	@export MYPYPATH='$(test_folders)csrc:workers/python:.' && check='$(PY) -m mypy --cache-dir .mypy_cache/tests --explicit-package-bases' && \
		$$check --exclude 'conftest\.py$$' tests integration && git ls-files '*conftest.py' | xargs -n 1 $$check

format: setup ## let the formatters decide the layout: ruff, clang-format, mix format, zig fmt
	$(PY) -m ruff check --fix-only --exit-zero
	$(PY) -m ruff format
	$(c_sources) | xargs -r .venv/bin/clang-format -i
	mix format
	$(MAKE) -C workers/zig format

.PHONY: matrix soak fuzz clean distclean
matrix: all system-matrix ## the tests that talk to a real Erlang node, against OTP 25 (here), 27, 28 and 29
	@integration/matrix/run

# make soak SOAK_SECONDS=28800 for a night; SOAK_SEED=... makes the moves of an earlier run again.
SOAK_SECONDS ?= 60
SOAK_SEED ?=
large: all ## a payload of LARGE_BYTES (1 GiB) there and back through a worker; needs six times as much memory
	@RINGBRIDGE_LARGE_BYTES=$(or $(LARGE_BYTES),1073741824) mix test integration/large_test.exs

soak: all ## load with faults, and deaths at random, for SOAK_SECONDS (60): each answer is its caller's own, nothing is left
	@integration/soak/run $(SOAK_SECONDS) $(SOAK_SEED)

# make fuzz FUZZ_SECONDS=3600 for a long run; csrc/tests/fuzz/keep then takes what it found in C into the corpus.
FUZZ_SECONDS ?= 30
fuzz: native system-fuzz ## coverage-guided fuzzing of what parses bytes of others, FUZZ_SECONDS (30) for each fuzzer
	@csrc/tests/fuzz/run $(FUZZ_SECONDS)
	@$(PY) tests/fuzz/run $(FUZZ_SECONDS)

.PHONY: wheel wheelhouse package
# Put together anew: setuptools takes along whatever an earlier build left in build/lib.*
wheel: native core ## the wheel, with shepherd and relay, and its SHA256SUMS, in build/wheel (docs/packaging.md)
	@rm -rf build/wheel build/lib build/lib.* build/bdist.*
	@$(PY) -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --no-index -w build/wheel .
	@cd build/wheel && sha256sum -- *.whl >SHA256SUMS && cat SHA256SUMS

# Of the versions that requirements.lock has; fetched from pip's index.
wheelhouse: wheel ## the wheel and all that it needs, in build/wheel: mix ringbridge.install --from build/wheel
	@sed -n 's/^\([a-z][^ ]*==[^ ]*\).*/\1/p' requirements.lock >build/constraints.txt
	@$(PY) -m pip --disable-pip-version-check download --quiet --only-binary :all: -c build/constraints.txt \
		-d build/wheel build/wheel/ringbridge-*.whl
	@cd build/wheel && sha256sum -- *.whl >SHA256SUMS

package: wheelhouse ## install, release and run an application with its bridge in folders of their own, as a stranger would
	@scripts/try-package build/wheel

clean: ## remove everything that was compiled (make distclean: .venv too)
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find bridge workers/python -name '*.so' -delete

distclean: clean
	rm -rf .venv

# ---- set-up and building

.PHONY: setup all native core workers elixir lock system system-lint system-matrix system-fuzz
setup: system $(VENV) ## system packages (when root or with sudo) and the virtual environment

all: native core workers elixir ## build everything, run nothing

native: $(STAMPS)/native $(STAMPS)/editable ## the Python extensions: the codec, the core with the relay

system:
	@scripts/setup-system base

system-lint:
	@scripts/setup-system lint

system-matrix:
	@scripts/setup-system matrix

system-fuzz:
	@scripts/setup-system fuzz

$(STAMPS):
	@mkdir -p $@

$(VENV): requirements.lock scripts/setup-python | system
	@scripts/setup-python

native_sources := setup.py pyproject.toml $(wildcard csrc/layout.toml bridge/fabric/build_core.py) $(c_files)
$(STAMPS)/native: $(native_sources) $(VENV) | $(STAMPS)
	$(say) 'Python extensions'
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

$(STAMPS)/editable: setup.py pyproject.toml $(VENV) | $(STAMPS)
	$(say) 'the ringbridge command, editable'
	@RINGBRIDGE_METADATA_ONLY=1 $(PY) -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# make's own question (-q) keeps these silent when nothing is stale.
sub_make = $(MAKE) -q $(1) >/dev/null 2>&1 || { printf '== %s\n' '$(2)'; $(MAKE) -s $(1); }
core: system
	@$(call sub_make,-C csrc all,C core and shepherd)

workers: system $(VENV)
	@$(call sub_make,-C workers/c all,C workers)
	@$(call sub_make,-C workers/rust all,Rust workers)
	@$(call sub_make,-C workers/zig all,Zig workers)

elixir: $(STAMPS)/elixir

$(STAMPS)/elixir: mix.exs $(elixir_files) $(nif_files) | system $(STAMPS)
	$(say) 'Elixir client'
	@mix compile --warnings-as-errors
	@touch $@

# ---- the parts of lint, each complete, so that one failing does not hide the next

lint-generated:
	$(PY) csrc/generate_layout.py --check

lint-python:
	$(PY) -m ruff check
	$(PY) -m ruff format --check

lint-c:
	$(c_sources) | xargs -r .venv/bin/clang-format --dry-run -Werror

lint-elixir:
	mix format --check-formatted

# Looked at again when the client was compiled since; the beams are those of `make elixir`.
lint-dialyzer: $(STAMPS)/dialyzer

$(STAMPS)/dialyzer: $(STAMPS)/elixir scripts/run-dialyzer | system-lint
	$(say) 'dialyzer over the Elixir client'
	@scripts/run-dialyzer build/mix/dev/lib/ringbridge/ebin build/dialyzer/plt
	@touch $@

# Clippy is there where rustup is; Debian's cargo has neither it nor rustfmt.
lint-rust:
	@if cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; then \
		$(MAKE) -C workers/rust lint; \
	else echo 'lint-rust is skipped: no rustfmt and clippy here'; fi

lint-zig:
	$(MAKE) -C workers/zig lint

# clang-tidy sees each file by itself, and what runs in production only: tests have the sanitizers, and
# their programs crash on purpose. One file a run: of several, the analyzer takes a va_list of the later for uninitialised.
python_include = $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')
erlang_include = $(patsubst %/bin/erl,%/usr/include,$(shell readlink -f "$$(command -v erl)"))
tidy_flags = -std=gnu99 -Icsrc/include -Icsrc -Iworkers/c/include -isystem $(python_include) -isystem $(erlang_include)
lint-bugs:
	git ls-files 'csrc/*.c' 'workers/c/*.c' 'workers/python/*.c' ':!csrc/tests' ':!csrc/nif/tests' ':!workers/c/tests' | \
		xargs -r -n 1 -P 2 bash -c 'clang-tidy --quiet "$$@" -- $(tidy_flags)' _

# ---- dependencies

lock: setup ## pin what pyproject.toml asks for, with hashes, into requirements.lock
	@[ -x build/uv/bin/uv ] || \
		{ $(PY) -m venv build/uv && build/uv/bin/pip --disable-pip-version-check install -q uv; }
	build/uv/bin/uv pip compile --quiet pyproject.toml --extra dev --generate-hashes --universal \
		--python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' --output-file requirements.lock
