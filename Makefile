# The two commands: `make run` (a daemon with demo jobs) and `make test`. Everything is set up in .venv by itself.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
DEV := .venv
BIN := $(DEV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help run test test-systemd faults soak check bench clean install uninstall
.DEFAULT_GOAL := help

help:
	@echo 'make run     the daemon on an embedded Redis, with demo handlers and sample jobs (Ctrl-C ends it)'
	@echo 'make test    the tests, on every redis-server there is (6.2 comes with the embedded extra)'
	@echo 'make test-systemd  the unit, in a Debian booted by systemd-nspawn (needs root, debootstrap, systemd-container)'
	@echo 'make faults  every fault of docs/guarantees.md, long ones too (make soak SEED=7 MINUTES=60 REDIS=6.2: a random mix)'
	@echo 'make check   ruff, mypy --strict, import-linter, package build'
	@echo 'make bench   throughput, pickup and idle figures of this machine'
	@echo 'make clean   remove .venv and what was built; data of make run stays in var/'
	@echo 'make install VENV=… APP_DIR=…  the systemd units, for an environment that jobqd is installed in (docs/operations.md);'
	@echo '             [PREFIX=/usr/local] [DESTDIR=] [USER=jobqd]; make uninstall takes away what install brought'

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'jobqd needs Python 3.11 or later with its venv module (Debian: apt install python3-venv)' >&2; exit 1; }
	@echo 'Setting up $(DEV) with $(PYTHON)...'
	@$(PYTHON) -m venv $(DEV)
	@$(PIP) install --upgrade 'pip>=25.1'

$(DEV)/.run: pyproject.toml | $(BIN)/python
	@echo 'Installing jobqd with an embedded Redis and ffmpeg for the demo...'
	@$(PIP) install --editable '.[embedded,demo]'
	@touch $@

$(DEV)/.test: $(DEV)/.run
	@echo 'Installing what the tests need...'
	@$(PIP) install --group test
	@touch $@

$(DEV)/.check: $(DEV)/.test
	@echo 'Installing what the checks need...'
	@$(PIP) install --group dev
	@touch $@

# jobqd.toml in this directory is what jobqd and jobq read without flags.
run: $(DEV)/.run
	@test -e jobqd.toml || ln -s config/demo.toml jobqd.toml
	@exec $(BIN)/jobqd run

# Two for each core: most of a test's time is spent waiting for daemons and servers.
WORKERS ?= $(shell expr 2 '*' $$(getconf _NPROCESSORS_ONLN))

test: $(DEV)/.test
	@$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

test-systemd: $(DEV)/.test
	@$(BIN)/python -m pytest tests/systemd $(TESTS)

faults: $(DEV)/.test
	@JOBQD_FAULTS=all $(BIN)/python -m pytest tests/fault $(TESTS)

MINUTES ?= 10

soak: $(DEV)/.test
	@$(BIN)/python -m tests.fault.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(REDIS),--redis $(REDIS))

check: $(DEV)/.check
	$(BIN)/ruff format --check daemon tests
	$(BIN)/ruff check daemon tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m build --outdir $(DEV)/dist .

bench: $(DEV)/.test
	$(BIN)/python -m tests.benchmarks.throughput
	$(BIN)/python -m tests.benchmarks.pickup

clean:
	rm -rf $(DEV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# ------------------------------------------------------------------------------------------ on a server: docs/operations.md

PREFIX := /usr/local
# Assigned, because the environment's USER is who runs make.
USER := jobqd
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
SYSUSERS = $(DESTDIR)$(PREFIX)/lib/sysusers.d
TMPFILES = $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
SHARE = $(DESTDIR)$(PREFIX)/share/jobqd
FIRST = $(SHARE)/as-installed
ETC = $(DESTDIR)/etc/jobqd
UNIT = '$(VENV)/bin/jobqd' unit --app-dir '$(APP_DIR)' --user '$(USER)'
# Nothing of the running system is touched when a package is built (DESTDIR), or in an image whose systemd does not run.
ON_HERE = test -n '$(DESTDIR)' || ! test -d /run/systemd/system ||

install:
	@test -n '$(VENV)' -a -n '$(APP_DIR)' || { echo "make install: say where your application is:" \
		"make install VENV=/srv/shop/.venv APP_DIR=/srv/shop" >&2; exit 2; }
	@test -x '$(VENV)/bin/jobqd' || { echo "make install: there is no $(VENV)/bin/jobqd;" \
		"install jobqd into that environment first: $(VENV)/bin/pip install ." >&2; exit 1; }
	@# To files aside first: a unit that cannot be made must not leave half of an installation.
	@set -e; aside=$$(mktemp -d); trap 'rm -rf "$$aside"' EXIT; \
	$(UNIT) > "$$aside/jobqd.service"; $(UNIT) --instance %i > "$$aside/jobqd@.service"; \
	sed 's/^u jobqd /u $(USER) /' systemd/sysusers.d/jobqd.conf > "$$aside/sysusers"; \
	sed 's/ jobqd$$/ $(USER)/' systemd/tmpfiles.d/jobqd.conf > "$$aside/tmpfiles"; \
	sed 's|^# app_dir = .*|app_dir = "$(abspath $(APP_DIR))"|' config/jobqd.toml > "$$aside/jobqd.toml"; \
	install -d '$(UNITS)' '$(SYSUSERS)' '$(TMPFILES)' '$(SHARE)' '$(DESTDIR)$(PREFIX)/bin'; \
	install -m 644 "$$aside/jobqd.service" "$$aside/jobqd@.service" '$(UNITS)'; \
	install -m 644 "$$aside/sysusers" '$(SYSUSERS)/jobqd.conf'; \
	install -m 644 "$$aside/tmpfiles" '$(TMPFILES)/jobqd.conf'; \
	install -m 644 systemd/strict.conf systemd/gpu.conf systemd/relax.conf config/jobqd.env \
		config/redis-acl.conf "$$aside/jobqd.toml" '$(SHARE)'
	@# sudo and administrators find both on their PATH; as links, so that they run in the application's environment.
	@ln -sfn '$(abspath $(VENV))/bin/jobqd' '$(DESTDIR)$(PREFIX)/bin/jobqd'
	@ln -sfn '$(abspath $(VENV))/bin/jobq' '$(DESTDIR)$(PREFIX)/bin/jobq'
	@# New files get the directory's group, such as the settings of an instance. Others see nothing in it: a password that
	@# somebody writes with the usual mode stays one. An administrator who has opened it keeps it open.
	@test -d '$(ETC)' || install -d -m 750 '$(ETC)'
	@chmod g+s '$(ETC)'
	@# Never overwritten. The daemon's group reads the settings; passwords in the environment only systemd does.
	@# What they were at first is kept: by it uninstall knows, after any number of upgrades, whether they were changed.
	@install -d '$(FIRST)'
	@test -e '$(ETC)/jobqd.toml' || { install -m 640 '$(SHARE)/jobqd.toml' '$(ETC)'; cp '$(SHARE)/jobqd.toml' '$(FIRST)'; }
	@test -e '$(ETC)/jobqd.env' || { install -m 600 '$(SHARE)/jobqd.env' '$(ETC)'; cp '$(SHARE)/jobqd.env' '$(FIRST)'; }
	@$(ON_HERE) systemd-sysusers '$(SYSUSERS)/jobqd.conf'
	@$(ON_HERE) systemd-tmpfiles --create '$(TMPFILES)/jobqd.conf'
	@$(ON_HERE) systemctl daemon-reload
	@echo 'Installed $(UNITS)/jobqd.service and jobqd@.service for $(APP_DIR).'
	@$(ON_HERE) echo 'Next: edit /etc/jobqd/jobqd.toml, see "sudo jobqd check", then "sudo systemctl enable --now jobqd".'

# What an administrator has changed stays, as do the user and /var/lib/jobqd: files in backups belong to them.
uninstall:
	@$(ON_HERE) systemctl disable --now --quiet jobqd.service 2>/dev/null || true
	@# The template's name takes the links of every instance away.
	@$(ON_HERE) systemctl disable --quiet jobqd@.service 2>/dev/null || true
	@$(ON_HERE) systemctl stop 'jobqd@*.service'
	@rm -f '$(UNITS)/jobqd.service' '$(UNITS)/jobqd@.service' '$(SYSUSERS)/jobqd.conf' '$(TMPFILES)/jobqd.conf'
	@for name in jobqd jobq; do link='$(DESTDIR)$(PREFIX)'/bin/$$name; ! test -L "$$link" || rm "$$link"; done
	@for name in jobqd.toml jobqd.env; do ! cmp -s '$(FIRST)'/$$name '$(ETC)'/$$name || rm '$(ETC)'/$$name; done
	@rm -rf '$(SHARE)'
	@rmdir '$(ETC)' 2>/dev/null || true
	@# Settings that were changed or made, passwords, drop-ins, units of single instances; and what the handlers wrote.
	@for kept in '$(ETC)'/* '$(DESTDIR)'/etc/systemd/system/jobqd* '$(DESTDIR)/var/lib/jobqd'; do \
		! test -e "$$kept" || echo "Kept $$kept"; done
	@$(ON_HERE) ! id -u '$(USER)' >/dev/null 2>&1 || echo 'Kept the user $(USER)'
	@$(ON_HERE) rm -rf /run/jobqd /run/jobqd-*
	@$(ON_HERE) systemctl daemon-reload
