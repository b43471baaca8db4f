# Two targets need only Python and make:
#   make demo    serves the example over HTTPS
#   make test    runs every test
# "make help" lists the other targets.
# HOST, PORT, AUTH_PORT and PROMETHEUS_PORT set where the demos listen; PYTHON sets the interpreter.

HOST ?= 127.0.0.1
PORT ?= 8443
AUTH_PORT ?= 9443
PROMETHEUS_PORT ?= 9090
RESOURCE ?=
PYTHON ?=
FUZZ_EXAMPLES ?= 25000
PARALLEL ?= 2
TABLES ?=
PROOFS ?=

CANDIDATES = $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
VENV = .venv
BIN = $(VENV)/bin
METADATA = pyproject.toml setup.cfg

.PHONY: help demo demo-oauth demo-monitoring test test-fast prove bench fuzz docs clean
.DEFAULT_GOAL = help

help:
	@echo 'make demo    serve the example on https://$(HOST):$(PORT) (HOST=... and PORT=... override)'
	@echo 'make demo-oauth  serve it with an authorization server on https://$(HOST):$(AUTH_PORT) (AUTH_PORT=... overrides)'
	@echo 'make demo-monitoring  attack the example, and show alerts of Prometheus on http://127.0.0.1:$(PROMETHEUS_PORT)'
	@echo 'make test    run every test with tox, on every installed Python, $(PARALLEL) environments at a time'
	@echo 'make test-fast  run the tests that start no server, on one Python, $(PARALLEL) at a time: for daily work'
	@echo 'make prove   run the long proofs in full, and print a table of their results (PROOFS=... selects some)'
	@echo 'make bench   compare with the bare app, a hand-assembled stack and FastAPI (TABLES=... selects tables)'
	@echo 'make fuzz    run each property test with $(FUZZ_EXAMPLES) random inputs (FUZZ_EXAMPLES=... overrides)'
	@echo 'make docs    build the documentation in docs/_build/html'
	@echo 'make clean   remove everything that these commands created'

demo: export HOST := $(HOST)
demo: export PORT := $(PORT)
demo: $(VENV)/.installed-demo
	@exec $(BIN)/python -m example_app.demo

demo-oauth: export HOST := $(HOST)
demo-oauth: export PORT := $(PORT)
demo-oauth: export AUTH_PORT := $(AUTH_PORT)
demo-oauth: export RESOURCE := $(RESOURCE)
demo-oauth: $(VENV)/.installed-demo
	@exec $(BIN)/python -m example_app.demo_oauth

demo-monitoring: export HOST := $(HOST)
demo-monitoring: export PORT := $(PORT)
demo-monitoring: export PROMETHEUS_PORT := $(PROMETHEUS_PORT)
demo-monitoring: $(VENV)/.installed-demo
	@exec $(BIN)/python -m example_app.demo_monitoring

test: export UV_PYTHON_DOWNLOADS = never
test: $(VENV)/.installed-tox
	@$(BIN)/tox run-parallel --parallel $(PARALLEL) --parallel-no-spinner

test-fast: $(VENV)/.installed-test-fast
	@FUZZ_EXAMPLES=10 PYTHONHASHSEED=0 $(BIN)/python -m pytest -q -n $(PARALLEL) -m 'not server and not proxy' --ignore=tests/example_app --ignore=tests/ecosystem tests

prove: export FUZZ_EXAMPLES := $(FUZZ_EXAMPLES)
prove: export UV_PYTHON_DOWNLOADS = never
prove: $(VENV)/.installed-prove
	@$(BIN)/python .ci/prove.py $(PROOFS)

bench: $(VENV)/.installed-bench
	@$(BIN)/python -m benchmarks $(TABLES)

fuzz: export FUZZ_EXAMPLES := $(FUZZ_EXAMPLES)
fuzz: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -q -m hypothesis tests

docs: $(VENV)/.installed-docs
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo 'The documentation is in docs/_build/html/index.html'

clean:
	rm -rf $(VENV) .tox .demo .tls .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist *.egg-info docs/_build

# One stamp per extra: packages are installed again only if the metadata changed.
$(VENV)/.installed-%: $(METADATA) | $(BIN)/python
	@echo 'Installing the dependencies of "make $(MAKECMDGOALS)" in $(VENV) (a minute or two, once) ...'
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --editable '.[$*]' || { \
	  echo 'The installation failed, see above. Is the package index reachable?' >&2; exit 1; }
	@touch $@

$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'Python 3.11 or newer is required, and none of these is: $(CANDIDATES).' >&2; \
	  echo 'Install one, or pass its path: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "$$found has no venv module. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
