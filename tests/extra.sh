#!/usr/bin/env bash
# The checks that need more than a stable toolchain: Miri over the modules with unsafe code, and each fuzz target
# for a short while. What is not installed is skipped with one line that says how to get it.
set -euo pipefail
cd "$(dirname "$0")/.."

# Long enough to find what a careless change breaks at once; hunting takes `cargo +nightly fuzz run TARGET`.
fuzz_seconds=20

# The modules of structures/ with unsafe code of their own. The others are safe Rust over these, and Miri would take
# an hour for them. A test of sizes needs a hundred thousand keys and no Miri.
miri_filters=(outside:: thin:: list:: slab:: table:: --skip small_entries_are_small)

if cargo +nightly miri --version >/dev/null 2>&1; then
    echo "Miri: ${miri_filters[*]}"
    # Permissive: the table packs pointers into its entries as bytes, which exposes them by design.
    MIRIFLAGS=-Zmiri-permissive-provenance cargo +nightly miri test --quiet \
        --package damselfly-structures --lib -- "${miri_filters[@]}"
else
    echo "Miri: skipped, not installed (rustup toolchain install nightly --component miri)"
fi

if cargo +nightly fuzz --version >/dev/null 2>&1; then
    found=$(mktemp -d)
    trap 'rm -rf "$found"' EXIT
    for target in $(cargo +nightly fuzz list); do
        # A corpus of earlier hunts is read where there is one; what this run finds goes elsewhere.
        mkdir -p "$found/$target" "fuzz/corpus/$target"
        options=(-max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048)
        options+=(-verbosity=0 -print_final_stats=1)
        [ ! -e "fuzz/$target.dict" ] || options+=(-dict="fuzz/$target.dict")
        echo "fuzz $target: $fuzz_seconds s"
        cargo +nightly fuzz run "$target" "$found/$target" "fuzz/corpus/$target" -- "${options[@]}" 2>&1 |
            { grep -v -e '^ *\(Compiling\|Finished\|Running\)' -e '^stat::[^n]' -e '^stat::new' || true; }
    done
else
    echo "fuzz: skipped, not installed (rustup toolchain install nightly; cargo install cargo-fuzz --locked)"
fi
