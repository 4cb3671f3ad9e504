#!/usr/bin/env bash
# Installs what the tests need beside Rust: redis-server, the oracle of the scripts, and moto, which stands for S3. Does
# nothing where they are present.
set -euo pipefail

# 7.0 is what the scripts are written against; another version answers some of them differently.
oracle_version=7.0

if ! command -v redis-server >/dev/null || ! command -v redis-cli >/dev/null; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    # The package would start a service on the port that `make run` uses. The policy hook, where there is none yet,
    # forbids services for the time of this installation.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod +x "$policy"
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        redis-server redis-tools >/dev/null
fi

found=$(redis-server --version | sed 's/.* v=\([0-9]*\.[0-9]*\).*/\1/')
if [ "$found" != "$oracle_version" ]; then
    echo "tests/setup.sh: the scripts are written against redis-server $oracle_version, here is $found" >&2
fi

# A bucket without Amazon. Where it cannot be had, the tests that need it say so and pass.
moto=$(cd "$(dirname "$0")/.." && pwd)/target/moto
if ! "$moto/bin/python" -c 'import moto.server' 2>/dev/null; then
    if ! { python3 -m venv "$moto" && "$moto/bin/python" -m pip install --quiet 'moto[s3]==5.2.5' flask flask-cors; }; then
        echo "tests/setup.sh: moto cannot be installed; tests of buckets will be skipped" >&2
    fi
fi
