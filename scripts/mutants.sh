#!/usr/bin/env bash
# Mutation testing: changes one thing at a time in what decides and moves money, and asks whether a test notices.
#
# usage: scripts/mutants.sh [LIBRARY|ALL]      (ALL)
#
# Two rounds, since the first is quick: the library's tests, then for what they let through the integration tests on
# SQLite, and those on PostgreSQL that are about settle: its limits, refused rows, two authorities. What nobody noticed
# stands in mutants.out/missed.txt at the end, and what made the tests run out of time in timeout.txt. Works on a copy of
# the sources. On two cores 10 to 20 seconds for each of some 400 mutants in the first round, and about a minute for each
# that is left in the second.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked

# Nobody reads their backtraces, and without these each is built twice as fast.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0

# 2: some were missed, which is no reason to stop.
round() { cargo mutants --no-shuffle --timeout 300 "$@" || [[ $? -eq 2 ]]; }

# Built and run with the same selection, so that nothing else is built.
round --cargo-arg=--lib
[[ ${1:-ALL} == LIBRARY ]] || round --iterate --cargo-arg=--test --cargo-arg=it -- -- \
  on_sqlite limits:: refused:: two_authorities:: a_run_leaves_its_metrics
