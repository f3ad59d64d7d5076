# Everything runs in .venv, which is created on first use from hash-locked requirements.
PYTHON ?= python3
CONFIG ?= default
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
MUTANTS := .mutants/venv
BUILT := .aws-sam/build/template.yaml
SOURCES := template.yaml $(shell find -L functions -type f -not -path '*/__pycache__/*')

export PATH := $(BIN):$(PATH)
export SAM_CLI_TELEMETRY := 0

# `sam build` needs any region, and no profile. `sam deploy` uses the region and the profile of your environment.
$(BUILT): export AWS_DEFAULT_REGION ?= us-east-1

.DEFAULT_GOAL := help
.PHONY: help demo sandbox test test-all coverage audit explore faults mutants pictures bench lint style format build release deploy status known-config lock clean

help: #: Show the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo 'For contributors:'
	@awk -F ':.*#: ' '/^[a-z-]+:.*#: / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) $(BUILT) ## Run the demo on this machine: no AWS account, no Docker
	@python -m sandbox.demo

sandbox: $(INSTALLED) $(BUILT) ## Keep the stack running on this machine
	@python -m sandbox

test: $(INSTALLED) $(BUILT) ## Run the tests, also end to end in the sandbox: 5 minutes
	pytest -n 2 --dist loadfile -m "not long"

test-all: $(INSTALLED) $(BUILT) #: Run every test, with 10 times the examples: 30 minutes
	pytest -n 2 --dist loadfile --hypothesis-profile=thorough

coverage: $(INSTALLED) $(BUILT) #: Show which lines of the functions no test reaches
	pytest -n 2 --dist loadfile --cov --cov-report=term tests/unit tests/integration tests/explorer

explore: $(INSTALLED) #: Check every order of events and faults in small worlds
	@PYTHONPATH=functions:. python -m tests.explorer

faults: $(INSTALLED) $(BUILT) #: Inject faults under load and count the losses; SEED=1
	@PYTHONPATH=functions:. python -m tests.faults --seed $(or $(SEED),1)

mutants: $(MUTANTS)/.installed #: Check that tests notice changed code; ONLY="pace api_calls"
	@$(MUTANTS)/bin/python -m tests.mutants $(ONLY)

pictures: $(INSTALLED) $(BUILT) #: Draw docs/demo.svg and docs/demo-short.svg from a demo
	@python -m sandbox.pictures

bench: $(INSTALLED) $(BUILT) #: Measure speed and cost beside a peer, draw the charts
	@python -m benchmarks

lint: style #: Check style, types, layers, contracts and the template
	mypy
	PYTHONPATH=functions:. lint-imports --no-logo --no-cache
	check-jsonschema --check-metaschema contracts/*.schema.json contracts/earlier/*/*.schema.json
	pytest --quiet --no-header --no-summary tests/unit/test_docs.py -k translated
	actionlint
	zizmor --offline --quiet --strict-collection .github
	check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/fault.yml .github/ISSUE_TEMPLATE/wish.yml
	pre-commit validate-config
	cfn-lint --append-rules cfn_lint_serverless.rules -- template.yaml
	cfn-lint -- deploy/roles.yaml
	bandit --quiet --recursive functions sandbox tools benchmarks release

audit: $(INSTALLED) #: Ask OSV for known vulnerabilities of the packages
	pip-audit --strict --require-hashes --disable-pip --vulnerability-service osv --progress-spinner off \
		--requirement functions/requirements.txt --requirement locks/dev.txt

style: $(INSTALLED)
	ruff format --check .
	ruff check .

format: $(INSTALLED) #: Format the code
	ruff format .
	ruff check --fix .

build: $(INSTALLED) $(BUILT) #: Build the functions

release: $(INSTALLED) $(BUILT) #: Make a release in dist/; TAG=v1.2.3 checks that it is ready
	@python -m release $(if $(TAG),--tag "$(TAG)")

deploy: known-config $(INSTALLED) $(BUILT) ## Deploy to your AWS account; CONFIG=prod asks first
	sam deploy --config-env $(CONFIG) $(SAM_FLAGS)

status: known-config $(INSTALLED) ## Show whether the deployed stack works; CONFIG=prod
	@stopper status --stack-name "$${STACK:-$$(sed -n '/^\[$(CONFIG)\.global\./,/^\[/s/^stack_name = "\(.*\)"/\1/p' samconfig.toml)}"

known-config:
	@grep -qF '[$(CONFIG).global.' samconfig.toml || { \
		echo "samconfig.toml has no settings for CONFIG=$(CONFIG), only for:" \
			$$(sed -n 's/^\[\(.*\)\.global\..*/\1/p' samconfig.toml) >&2; exit 2; }

lock: #: Lock the dependencies of pyproject.toml again (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--group dev pyproject.toml --output-file locks/dev.txt
	uv pip compile --quiet --python-version 3.13 --generate-hashes --no-header \
		--constraint locks/dev.txt --group functions pyproject.toml --output-file functions/requirements.txt
	uv pip compile --quiet --python-version 3.13 --generate-hashes --no-header \
		--constraint locks/dev.txt --group aws pyproject.toml --output-file functions/requirements-aws.txt
	uv pip compile --quiet --python-version 3.13 --generate-hashes --no-header \
		--constraint locks/dev.txt --group callback pyproject.toml --output-file functions/requirements-callback.txt
	uv pip compile --quiet --python-version 3.13 --generate-hashes --no-header \
		--constraint locks/dev.txt --group peer pyproject.toml --output-file locks/peer.txt
	grep -oE '^[^ ]+==[^ ]+' locks/dev.txt | grep -v '^click==' | \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--constraint /dev/stdin --group mutants pyproject.toml --output-file locks/mutants.txt

clean: #: Remove what was installed and built
	rm -rf $(VENV) .aws-sam .sandbox .mutants .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The lock is complete, and every locked package has a hash. -qq hides pip's warnings, but no error.
PIP_INSTALL := install -qq --disable-pip-version-check --no-deps --require-hashes

$(INSTALLED): locks/dev.txt
$(MUTANTS)/.installed: locks/mutants.txt
%/.installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "This needs Python 3.11 or newer, and $(PYTHON) \
	is %d.%d. Name another Python, for example: make PYTHON=python3.13 demo" % sys.version_info[:2])'
	@echo "Installing the tools into $*. This takes 1 minute, once"
	@$(PYTHON) -m venv $*
	@$*/bin/python -m pip $(PIP_INSTALL) -r $<
	@$(if $(filter $(VENV),$*),ln -sf ../../tools/stopper $*/bin/stopper)
	@touch $@

$(BUILT): $(SOURCES) | $(INSTALLED)
	@echo "Building the functions with SAM CLI"
	@env -u AWS_PROFILE -u AWS_DEFAULT_PROFILE sam build > .aws-sam-build.log 2>&1 || { cat .aws-sam-build.log; rm -f .aws-sam-build.log; exit 1; }
	@sed -n '/^No bytecode/{p;q;}' .aws-sam-build.log
	@rm -f .aws-sam-build.log
	@touch $@
