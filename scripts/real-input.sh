#!/usr/bin/env bash
# Real input at full size, on a release build: charges of mixed fates on PostgreSQL, asked over real
# HTTP. Left alone, looked at twice, killed at random and begun again, and run twice at once, they
# must end alike and the books must agree; then the same is measured: items a second, CPU an item,
# memory, the database's share, and plain SQL and HTTP beside it.
#
# usage: scripts/real-input.sh [CHARGES [ORPHANS]]
#
# The defaults are 50000 and 5000. The second measurement takes four times the orphans.
#
#   MAKEGOOD_TEST_FIGURES_ONLY=1    only measure
#   MAKEGOOD_TEST_BINARY=FILE       another build of makegood, measured by the same stick
#   MAKEGOOD_TEST_POSTGRES=URL      uses this server instead of starting one, which does not flush
#                                   to disk
#   MAKEGOOD_TEST_SEED=N            the same dice for the moments of killing
#
# Needs what scripts/test.sh needs. The first release build takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAKEGOOD_TEST_CHARGES=${1:-50000} MAKEGOOD_TEST_ORPHANS=${2:-5000}
exec cargo test --locked --release --test it real_input::at_full_size -- --ignored --exact --nocapture
