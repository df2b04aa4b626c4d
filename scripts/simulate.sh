#!/usr/bin/env bash
# Worlds of 48 hours, each from a seed: the whole pipeline on SQLite, or on PostgreSQL, by a clock
# that the test moves.
#
# usage: scripts/simulate.sh [--postgres] [WORLDS [FIRST]]
#
# The default is 10000 worlds from seed 1; 200 on PostgreSQL.
#
# --postgres: on the tests' PostgreSQL, which is started for it (or the server that
# MAKEGOOD_TEST_POSTGRES names, as a superuser). The passes connect as the role of docs/adopting.md,
# so that makegood_post_refunds and its rights are tried too.
#
# One world in a hundred has some two hundred charges, one in a thousand some thousands. It prints
# its progress every half minute, and at the end which faults the worlds had. A world that fails
# prints its seed and the history of the item; `scripts/simulate.sh [--postgres] 1 SEED` repeats
# that one alone. docs/testing.md says more.
set -euo pipefail
cd "$(dirname "$0")/.."

round=many_worlds worlds=10000
if [[ ${1:-} == --postgres ]]; then
  round=many_worlds_on_postgres worlds=200
  shift
fi
export MAKEGOOD_TEST_WORLDS=${1:-$worlds} MAKEGOOD_TEST_SEED=${2:-1}
exec cargo test --locked --profile long --test it "simulation::$round" -- --ignored --exact --nocapture
