#!/usr/bin/env bash
# The checks that need more than a stable toolchain: Miri over the modules with unsafe code, and each fuzz target
# for a short while. What is not installed is skipped with one line that says how to get it.
set -euo pipefail
cd "$(dirname "$0")/.."

# Long enough to find what a careless change breaks at once; hunting takes `cargo +nightly fuzz run TARGET`.
fuzz_seconds=20

# Tests of the modules with unsafe code, as many as Miri does in three minutes; all of them would take it most of an
# hour. Before a change of such a module: `cargo +nightly miri test --package damselfly-structures MODULE::`.
miri_filters=(
    outside:: thin:: keytable::tests::agrees_with_a_map table::tests::invented_cursors
    list::tests::{a_write_copies_one_node,clones_do_not_see_writes,giant_elements,scan_in_steps}
)

if cargo +nightly miri --version >/dev/null 2>&1; then
    echo "Miri: the unsafe modules of structures/, about three minutes"
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
        if ! cargo +nightly fuzz run "$target" "$found/$target" "fuzz/corpus/$target" -- "${options[@]}" \
            >"$found/log" 2>&1; then
            tail -n 60 "$found/log"
            exit 1
        fi
        sed -n 's/^stat::number_of_executed_units: */fuzz '"$target"': inputs tried: /p' "$found/log"
    done
else
    echo "fuzz: skipped, not installed (rustup toolchain install nightly; cargo install cargo-fuzz --locked)"
fi
