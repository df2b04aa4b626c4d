#!/usr/bin/env bash
# Mutation testing: changes one thing at a time in the code that decides and moves money, and checks
# that a test fails.
#
# usage: scripts/mutants.sh [LIBRARY|ALL [ARGUMENT…]]
#
# The default is ALL. Arguments go to cargo-mutants, for instance --in-diff FILE or --file GLOB.
#
# Three rounds, each over the mutants that survived the one before: the library's tests next to the
# changed code; the other tests of the library that could fail; the integration tests on SQLite, and
# those on PostgreSQL that are about settle (its limits and locks, refused rows, two authorities,
# the read-back, reversals, the trial of a refund, the brake). At the end, mutants.out/missed.txt
# lists the mutants that no test noticed, and timeout.txt those that made the tests time out. It
# works on a copy of the sources. On two cores 10 to 30 seconds a mutant and round, a minute or more
# in the last; there are some 900.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked

which=${1:-ALL}
shift || true
more=("$@")

# Debug information is not needed, and without it each mutant is built twice as fast. The
# dependencies are built once for all rounds.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_TARGET_DIR=$PWD/target/mutants

# Exit code 2: some were missed. The next round still runs.
round() { cargo mutants --no-shuffle --timeout 300 "${more[@]}" "$@" || [[ $? -eq 2 ]]; }

# Built and run with the same selection, so that nothing else is built.
round --cargo-arg=--lib -- -- brake:: detect:: refund:: store:: pass::
round --iterate --cargo-arg=--lib -- -- policy:: demo:: cli:: ops::
[[ $which == LIBRARY ]] || round --iterate --cargo-arg=--test --cargo-arg=it -- -- \
  on_sqlite limits:: locked:: refused:: raised:: two_authorities:: read_back:: posting:: reversals:: cannot_post:: \
  doctor::posting:: brakes:: commands::p24 a_run_leaves_its_metrics
