# Everything a developer types. Each target installs what it lacks (packaging/dev/need).
SHELL := bash
NEXTEST := $(shell cargo nextest --version 2>/dev/null)
CARGO_TEST := $(if $(NEXTEST),cargo nextest run,cargo test)

TIME ?= 60

.PHONY: help run demo test test-dovecot soak test-boot test-trixie test-machine manuals bench timing fuzz mutants deb vendor lintian deny fmt clippy doc fmt-check

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build sasld and run it in the foreground, from ./var
	@packaging/dev/run

demo: ## a private Postfix lets a client in through sasld; about ten seconds, on the terminal
	@packaging/dev/demo

# The tests come last and in one run, so that the last line is the runner's own summary.
# nextest leaves out the examples in the documentation, and shows what a passed test said only when told.
test: ## everything that CI runs; a test that cannot run is a failure
	@packaging/dev/need test
	@$(MAKE) --no-print-directory fmt-check clippy doc
	$(if $(NEXTEST),cargo test --quiet --doc)
	packaging/dev/deb
	$(CARGO_TEST) $(if $(and $(NEXTEST),$(SASLD_ALLOW_SKIP)),--success-output final)

test-dovecot: ## the dialogs against Debian's Dovecot (a part of `make test`)
	@packaging/dev/need test
	$(CARGO_TEST) --test dovecot

soak: export SASLD_SOAK := $(CURDIR)/target/soak.md
soak: ## limits, restarts under Postfix, killed rewrites and faults in reloads, in full; tens of minutes
	@packaging/dev/need test
	@rm -f $(SASLD_SOAK); mkdir -p target
	cargo test --release --test limits -- --test-threads=1
	cargo test --release --test postfix life -- --test-threads=1
	cargo test --release --test user a_killed_rewrite
	cargo test --release --test units reload_faults
	@cat $(SASLD_SOAK)

test-boot: ## the package and Postfix under a real systemd, in a container (a part of `make test`)
	@packaging/dev/need boot
	$(CARGO_TEST) --test boot $(if $(NEXTEST),--no-capture,-- --nocapture)

test-trixie: ## the same package and Dovecot 2.4 under Debian 13; makes that Debian first, some minutes; rewrites docs/trixie.md
	@packaging/dev/need boot
	SASLD_BOOT_RELEASE=trixie SASLD_BOOT_PAGE=$(CURDIR)/docs/trixie.md $(CARGO_TEST) --test boot $(if $(NEXTEST),--no-capture,-- --nocapture)
	SASLD_DOVECOT_ROOT=$(abspath $(or $(CARGO_TARGET_DIR),target))/boottrixie/tree $(CARGO_TEST) --test dovecot

test-machine: ## AppArmor and limits of memory under a kernel of its own, in qemu, some ten minutes; rewrites docs/machine.md
	@packaging/dev/need machine
	SASLD_MACHINE_PAGE=$(CURDIR)/docs/machine.md cargo test --test machine -- --nocapture

manuals: ## manual pages and shell completions, into target/manuals
	@packaging/dev/need build
	cargo run --quiet --example manuals -- target/manuals

bench: ## sasld beside Dovecot and saslauthd; rewrites docs/performance.md
	@packaging/dev/need bench
	cargo bench --bench peers

timing: ## does the time of an answer tell anything? t-tests over a million samples; minutes
	@packaging/dev/need build
	cargo bench --bench timing

fuzz: ## libFuzzer on every target, TIME seconds each (60); finds stay in target/fuzz
	@packaging/dev/need build
	fuzz/run $(TIME)

mutants: ## small mistakes in the code, one by one: does a test notice? hours; lists stay in target/mutants.out
	@packaging/dev/need build
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants
	CARGO_PROFILE_DEV_DEBUG=0 PROPTEST_CASES=64 SASLD_SCHEDULES=2000 cargo mutants --timeout 60 --output target \
	  $(foreach path,src/session.rs 'src/session/**' 'src/sasl/**' 'src/wire/**' 'src/credential/**' 'src/secrets/**',-f $(path)) \
	  -C=--lib $(foreach test,session secrets schemes model,-C=--test=$(test))

deb: ## the Debian package, target/deb/sasld_VERSION_ARCH.deb
	@packaging/dev/need deb
	@packaging/dev/deb

vendor: ## the source with all crates in it, to build without a network: target/deb/sasld-VERSION.tar.xz
	@packaging/dev/need deb
	@packaging/dev/vendor "$(or $(CARGO_TARGET_DIR),target)/deb"

lintian: ## Debian's checks of the package and its source (a part of `make test`)
	@packaging/dev/need package
	lintian --display-info --pedantic --fail-on=error,warning,info,pedantic "$$(packaging/dev/deb)" "$$(packaging/dev/source)"

deny: ## cargo-deny, built first, which takes minutes; `make test` compares licences and sources without it
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny --all-features --config packaging/deny.toml check licenses sources bans

fmt: ## format the sources
	cargo fmt

fmt-check:
	@packaging/dev/need build
	cargo fmt --check

clippy: ## lints, warnings as errors
	@packaging/dev/need build
	cargo clippy --all-targets -- -D warnings

doc: ## API documentation, warnings as errors
	@packaging/dev/need build
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --no-deps --document-private-items
