#!/usr/bin/env bash
# Real input at full size, on a release build: charges of mixed kinds on PostgreSQL, with questions
# over real HTTP. Undisturbed, run twice, killed at random and restarted, and run twice at once, all
# must end the same, and the books must agree. Then it measures items a second, CPU for each item,
# memory and the database's share, and the same for plain SQL and HTTP.
#
# usage: scripts/real-input.sh [CHARGES [ORPHANS]]
#
# The defaults are 50000 and 5000. The second measurement takes four times the orphans.
#
#   MAKEGOOD_TEST_FIGURES_ONLY=1    only measure
#   MAKEGOOD_TEST_BINARY=FILE       another build of makegood, under the same conditions
#   MAKEGOOD_TEST_POSTGRES=URL      uses this server instead of starting one, which does not flush
#                                   to disk
#   MAKEGOOD_TEST_SEED=N            repeats the moments of killing
#
# Needs what scripts/test.sh needs. The first release build takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAKEGOOD_TEST_CHARGES=${1:-50000} MAKEGOOD_TEST_ORPHANS=${2:-5000}
exec cargo test --locked --release --test it real_input::at_full_size -- --ignored --exact --nocapture
