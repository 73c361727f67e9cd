# Needs root (or installed packages) and a Rust toolchain; see README.md.
PREFIX ?= /usr/local
BIN := target/vessel

.PHONY: all test lint ci install clean

all: $(BIN)

$(BIN): FORCE
	cargo build --release --locked

.PHONY: FORCE
FORCE:

test:
	cargo test --locked --all-targets

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

ci: lint all test

install: $(BIN)
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/vessel

clean:
	cargo clean
