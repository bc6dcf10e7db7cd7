# The two commands of the README, and what CI and long runs add. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 30

.PHONY: run test check proof conformance kill9 powercut canary fuzz guided mutants million clean

run: $(VENV)/run.ok
	$(BIN)/amqpd --config config/amqpd.toml

test: check
	@echo "The tests take about 9 minutes on two cores: all of the code 2, brokers that crash 6, one under attack 1."
	@begun=$$(date +%s); \
	$(BIN)/python -m pytest -n 2 tests --ignore tests/crash --ignore tests/examples --ignore tests/canary && \
	$(BIN)/python -m pytest -n 2 tests/crash tests/examples && \
	$(BIN)/python -m pytest tests/canary; \
	result=$$?; echo "The tests took $$(($$(date +%s) - begun)) s."; exit $$result

# The tests that look at a sample in `make test`, at full length: 5,000 sessions of the fuzzer, 20,000 requests to the
# management API, 200,000 inputs of the guided one, far more faults and cuts of the disk, more programs against the models, the canary beside each attack. CI
# runs both.
proof: $(VENV)/test.ok
	@echo "The proof takes about 10 minutes on two cores, 4 of them with the canary."
	@begun=$$(date +%s); export PROOF=1; \
	$(BIN)/python -m pytest -n 2 --timeout 300 -m "proof or hypothesis" tests --ignore tests/canary && \
	$(BIN)/python -m pytest -m proof tests/canary; \
	result=$$?; echo "The proof took $$(($$(date +%s) - begun)) s."; exit $$result

check: $(VENV)/test.ok
	$(BIN)/python -m flake8 amqpd tests conformance
	$(BIN)/python -m mypy

# Against a broker that is running: make conformance BROKER=amqp://guest:guest@127.0.0.1:5672/ OPTIONS="-k tx"
BROKER ?= amqp://guest:guest@127.0.0.1:5672/
conformance: $(VENV)/test.ok
	$(BIN)/python -m conformance $(BROKER) $(OPTIONS)

# All that is killed over and over, N times, with its figures; the faulty brokers are for make test.
kill9: $(VENV)/test.ok
	KILLS=$(N) $(BIN)/python -m pytest -s --timeout 0 tests/crash -k "not caught"

powercut: $(VENV)/test.ok
	STATES=$(N) $(BIN)/python -m pytest -s --timeout 0 tests/disk/test_power_cut.py

# The canary beside every attack in its long form, or beside those whose names have a part in SHAPES. On a broker that
# runs, with CTL as its operator's program and PID as its process:
# make canary BROKER=amqp://127.0.0.1:5680 CTL="python3 conformance/rabbitmq.py --ctl-of DIR --" PID=123
canary: $(VENV)/test.ok
	$(BIN)/python -m tests.canary --seconds $(or $(SECONDS),10) $(if $(CTL),--broker $(BROKER) --ctl "$(CTL)" --pid $(or $(PID),0)) $(SHAPES)

# Sessions of the fuzzer, from a SEED or by chance; their numbers are printed, and each fault with its own.
fuzz: $(VENV)/test.ok
	$(BIN)/python -m tests.fuzz --sessions $(N) $(if $(SEED),--seed $(SEED)) --processes 2

# The guided fuzzer, with INPUTS inputs from a SEED or by chance, for all TARGETS or some. KEEP=1 keeps what reaches more.
guided: $(VENV)/test.ok
	$(BIN)/python -m tests.fuzz.guided $(TARGETS) --inputs $(or $(INPUTS),200000) $(if $(SEED),--seed $(SEED)) \
		--processes 2 $(if $(KEEP),--keep)

# Mutants of the broker's code, N of them by a SEED or by chance: those that no test notices, and a table.
mutants: $(VENV)/test.ok
	$(BIN)/python -m tests.mutation --count $(N) $(if $(SEED),--seed $(SEED))

# A backlog of a million messages of 1 KiB, or of MESSAGES of SIZE octets, with its figures.
million: $(VENV)/test.ok
	MESSAGES=$(or $(MESSAGES),1000000) $(BIN)/python -m pytest -s --timeout 0 tests/crash/test_backlog.py -k whole

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.ok: setup.cfg .ci/constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable .
	touch $@

$(VENV)/test.ok: setup.cfg .ci/constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[test]'
	touch $@ $(VENV)/run.ok

clean:
	rm -rf $(VENV)
