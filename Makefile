# Two commands: `make lab` (all set-up, then a region deployed under live calls) and `make test`.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
TOOLS := systemd-container:systemd-nspawn mmdebstrap:mmdebstrap iproute2:ip openssl:openssl \
         sip-tester:sipp apt-utils:apt-ftparchive gnupg:gpg dpkg:dpkg-deb python3-venv:-
# The tests validate the Vagrantfile, load the packet filter and order certificates of a CA of their
# own; the evidence brings machines up.
test: TOOLS += vagrant:vagrant nftables:nft php-cli:php fail2ban:fail2ban-regex pebble:pebble
evidence: TOOLS += vagrant:vagrant vagrant-lxc:- lxc:lxc-start bridge-utils:brctl sudo:sudo \
                   rsync:rsync openssh-client:ssh-keygen sipvicious:svwar pebble:pebble

.PHONY: help lab lab-down test lint setup packages evidence clean

help:           ## Show this.
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

lab: setup      ## Set up, boot a region, deploy a restart of both PBX under live calls.
	@$(PYTHON) -m lab.demo

lab-down: $(VENV)/.complete  ## End the lab; nothing stays behind but the cache in .lab/cache.
	@$(VENV)/bin/guardian lab down

# Most tests wait for hosts and daemons, not for a core, so four files run side by side. Every line of
# the PBX, proxy, certificate and secret modules, states and utils (setup.cfg) must be reached, or it
# does not pass.
test: setup lint  ## Set up, then every test.
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/pytest -n 4 --dist loadfile --no-loadscope-reorder \
	    --cov --cov-report=term --cov-fail-under=100

lint: $(VENV)/.complete
	@$(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --quiet --check . && $(VENV)/bin/mypy --no-error-summary

evidence: setup ## Run the long experiments: make evidence AREA=lab [QUICK=1].
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m tests.evidence $(AREA) $(if $(QUICK),--quick)

setup: packages $(VENV)/.complete

# Asks for apt only when something is missing: TOOLS are package:command, or package:- for one without.
packages:
	@missing=""; for pair in $(TOOLS); do \
	    tool="$${pair#*:}"; package="$${pair%%:*}"; \
	    if [ "$$tool" = - ]; then dpkg-query -Wf '$${Status}' "$$package" 2>/dev/null | grep -q ' installed$$' || missing+=" $$package"; \
	    else PATH="$$PATH:/usr/sbin:/sbin" command -v "$$tool" >/dev/null || missing+=" $$package"; fi; done; \
	if [ -n "$$missing" ]; then \
	    if [ "$$(id -u)" != 0 ]; then echo "make: needs root to install$$missing; use sudo" >&2; exit 1; fi; \
	    echo "installing$$missing"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	        --no-install-recommends $$missing; } >.apt.log 2>&1 || { tail -3 .apt.log >&2; exit 1; }; \
	    rm -f .apt.log; fi

# The hosts of the lab run this very environment, so it is made with Debian's interpreter.
$(VENV)/.complete: requirements/test.txt setup.cfg
	@echo "making the Python environment in $(VENV) (once, a minute)"
	@/usr/bin/python3 -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean: $(VENV)/.complete  ## Remove everything that was made here, the cache included.
	@$(VENV)/bin/guardian lab down
	@rm -rf .lab $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
