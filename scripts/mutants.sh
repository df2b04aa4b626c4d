#!/usr/bin/env bash
# Mutation testing: changes one thing at a time in what decides and moves money, and asks whether a test notices.
#
# usage: scripts/mutants.sh [LIBRARY|ALL [ARGUMENT…]]      (ALL; arguments are cargo-mutants': --in-diff FILE, --file GLOB)
#
# Three rounds, each over the mutants that the rounds before it let through: the library's tests next to
# the code that is changed, then the other tests of the library that could notice, then the integration
# tests on SQLite and those on PostgreSQL that are about settle (its limits, its locks, refused rows, two
# authorities, the read-back, reversals, the trial of a refund, the brake). At the end
# mutants.out/missed.txt lists the mutants that no test noticed, and timeout.txt those that made the tests
# run out of time. Works on a copy of the sources. On two cores a mutant takes 10 to 30 seconds a round,
# and a minute or more in the last; there are some 900.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked

which=${1:-ALL}
shift || true
more=("$@")

# Nobody reads their backtraces, and without these each is built twice as fast. The dependencies are built once for all rounds.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_TARGET_DIR=$PWD/target/mutants

# 2: some were missed, which is no reason to stop.
round() { cargo mutants --no-shuffle --timeout 300 "${more[@]}" "$@" || [[ $? -eq 2 ]]; }

# Built and run with the same selection, so that nothing else is built.
round --cargo-arg=--lib -- -- brake:: detect:: refund:: store:: pass::
round --iterate --cargo-arg=--lib -- -- policy:: demo:: cli:: ops::
[[ $which == LIBRARY ]] || round --iterate --cargo-arg=--test --cargo-arg=it -- -- \
  on_sqlite limits:: locked:: refused:: raised:: two_authorities:: read_back:: posting:: reversals:: cannot_post:: \
  doctor::posting:: brakes:: commands::p24 a_run_leaves_its_metrics
