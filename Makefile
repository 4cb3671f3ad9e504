# What a developer runs; .ci/run runs the same.

CARGO ?= cargo

.PHONY: run build test setup lint check extra bench

# The server on port 6379, its data in the current directory.
run: build
	target/release/damselfly --port=6379 --dir=.

build:
	$(CARGO) build --release --package damselfly

# Everything that must hold before a commit.
test: setup lint check extra

setup:
	@tests/setup.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

# Unit tests, and the sessions of tests/commands on Redis and on our server. Threads of tests have the stack that threads
# with scripts have in the server.
check:
	$(CARGO) build --quiet --package damselfly
	RUST_MIN_STACK=16777216 $(CARGO) test --workspace --no-fail-fast

# Miri over the unsafe modules and short runs of the fuzz targets; what is not installed is skipped with a line.
extra:
	@tests/extra.sh

# The whole server beside others, over TCP.
bench:
	$(CARGO) run --release --package damselfly-benches --bin compare
