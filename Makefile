# Needs a Rust toolchain. What else is needed is installed by hack/needs.sh. See README.md.
PREFIX ?= /usr/local
CARGO ?= cargo
TARGET = $(shell rustc --print host-tuple)
# Where `make` leaves the program.
BIN := build/vessel
# Passed to the test program: the begin of a test's name, --nocapture, ...
TESTS ?=

.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: all
all: needs
	$(CARGO) build --release --locked
	install -D target/$(TARGET)/release/vessel $(BIN)

# A real container, of a bundle that is made for it.
.PHONY: run
run: all
	hack/demo.sh $(BIN)

.PHONY: test
test: unit integration

.PHONY: unit
unit: needs
	$(CARGO) test --locked --lib --bins

# Needs root. `make integration RUNTIME=runc TESTS=lifecycle` runs some of the tests against another runtime.
.PHONY: integration
integration: build/suite
	@mkdir -p build/report
	@hack/needs.sh podman
	PROBE=build/suite/probe RUNTIME=$${RUNTIME:-build/suite/vessel} build/suite/integration $(TESTS) 2>&1 | tee build/report/here.log

# The same in throwaway machines with systemd and cgroup v2 (hack/testbed): first with AppArmor, where the engines take as
# long as all else, and have a machine of their own, as one uses one processor; then, as a kernel has one of the two, what is
# about SELinux with that. `make -j2 testbed` runs two at a time.
.PHONY: testbed testbed-apparmor testbed-engines testbed-selinux
testbed: testbed-apparmor $(if $(TESTS),,testbed-engines) testbed-selinux

testbed-apparmor: WANTED = $(or $(TESTS),--skip engines::)
testbed-engines: WANTED = engines::
testbed-selinux: WANTED = selinux::
testbed-selinux: LSM = selinux
testbed-apparmor testbed-engines: LSM = apparmor
testbed-apparmor testbed-engines testbed-selinux: testbed-%: build/suite
	@mkdir -p build/report
	hack/testbed run --timeout 3000 --lsm $(LSM) -- env RUNTIME="$${RUNTIME:-}" hack/testbed-suite.sh build/suite $(WANTED) 2>&1 | tee build/report/$*.log

# docs/spec-conformance.md: measures another runtime (runc, crun, youki) by the same tests, here and in the test bed.
# `make conformance RUNTIME=/usr/sbin/runc`
.PHONY: conformance
conformance: build/suite
	@mkdir -p build/report build/other
	cp $(RUNTIME) build/other/
	name=$(notdir $(RUNTIME)); wanted=$$(hack/conformance.sh tests); export CONFORMANCE=1; \
	PROBE=build/suite/probe RUNTIME=$(CURDIR)/build/other/$$name build/suite/integration --exact $$wanted 2>&1 | tee build/report/$$name.log || true; \
	hack/testbed run --lsm apparmor -- env CONFORMANCE=1 RUNTIME=$(CURDIR)/build/other/$$name hack/testbed-suite.sh build/suite \
		--exact $$wanted 2>&1 | tee build/report/$$name-testbed.log || true; \
	hack/conformance.sh record $$name build/report/$$name.log build/report/$$name-testbed.log

# The same in an emulated machine (hack/vm/vm), for what the others lack: all controllers of cgroup v2. It
# is slow, and no part of ci. `make vm TESTS=resources`; VM_KERNEL=7. takes the newest kernel that begins so;
# VM_CGROUP=1 has it with cgroup v1 (for the tests of resources).
.PHONY: vm
vm: build/suite
	@mkdir -p build/report
	hack/vm/vm run $(if $(VM_KERNEL),--kernel $(VM_KERNEL)) $(if $(filter 1,$(VM_CGROUP)),--cgroup1) -- env RUNTIME="$${RUNTIME:-}" hack/testbed-suite.sh build/suite $(TESTS) 2>&1 | tee build/report/vm.log

# The test program with what it needs, which run without cargo.
.PHONY: build/suite
build/suite: needs
	$(CARGO) build --locked --bin vessel --example probe
	@mkdir -p $@
	$(CARGO) test --locked --test integration --no-run --message-format json | \
		sed -n 's/.*"name":"integration".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1 | xargs -I{} cp {} $@/integration
	cp target/$(TARGET)/debug/vessel target/$(TARGET)/debug/examples/probe $@/

.PHONY: lint
lint: needs
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) run --quiet --locked --example docs -- --check
	hack/layers.sh
	hack/conformance.sh check

# The manual pages and completions, from the table that --help comes from.
.PHONY: docs
docs: needs
	$(CARGO) run --quiet --locked --example docs

.PHONY: layers
layers:
	hack/layers.sh

# Times vessel beside other runtimes; see docs/benchmarks.md. `make bench RUNTIMES="crun /path/to/runc" BENCH="--rounds 10"`
RUNTIMES ?= crun runc
BENCH ?=
BENCHES = target/$(TARGET)/release/examples
.PHONY: bench
bench: all benches
	[ "$(RUNTIMES)" != "crun runc" ] || hack/needs.sh crun runc
	$(BENCHES)/bench $(BENCH) $(BIN) $$(command -v $(RUNTIMES))

# The same in the test bed, beside its own crun and runc. Others are given by absolute paths, and are seen below /host there.
.PHONY: bench-testbed
bench-testbed: all benches
	hack/testbed run -- $(BENCHES)/bench $(BENCH) $(BIN) $(if $(filter crun runc,$(RUNTIMES)),/usr/bin/crun /usr/sbin/runc,$(addprefix /host,$(RUNTIMES)))

# Fails where a command of vessel makes more system calls, or takes more memory, than benches/budget.json allows.
# `make budget` accepts what it does.
.PHONY: budget-check budget
budget-check budget: all benches
	@failed=0; for view in v1 v2; do \
		$(BENCHES)/bench --cgroup $$view --budget $(if $(filter budget,$@),renew,check) benches/budget.json $(BIN) || failed=1; \
	done; exit $$failed

.PHONY: benches
benches: needs
	$(CARGO) build --release --locked --example bench --example floor

# All that must pass before a change lands. Every machine runs to its end, so that one report tells all.
.PHONY: ci
ci: lint unit budget-check
	rm -rf build/report
	$(MAKE) --no-print-directory integration || touch build/report/failed
	$(MAKE) --no-print-directory --keep-going -j2 testbed || touch build/report/failed
	cd build/report && ../../hack/report.sh here.log apparmor.log engines.log selinux.log && [ ! -e failed ]

.PHONY: install
install: $(BIN)
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/vessel
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/man/*.8
	install -D -m 644 docs/completion/vessel.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vessel
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions docs/completion/_vessel
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d docs/completion/vessel.fish

$(BIN):
	$(MAKE) all

.PHONY: needs
needs:
	@hack/needs.sh

.PHONY: clean
clean:
	$(CARGO) clean
	rm -rf build
