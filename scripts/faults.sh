#!/usr/bin/env bash
# Faults on the real thing: workers killed, cut off, paused and misled, PostgreSQL restarted under
# them, round after round, until so many workers were killed and so many restarts were made. After
# every step the books are checked; in the end, that every kind of fault has struck.
#
# usage: scripts/faults.sh [KILLS [RESTARTS]]      (1000 and 100: about half an hour on two cores)
#
#   MAKEGOOD_TEST_SEED=N        the seed of the first round; each round prints its own
#   MAKEGOOD_TEST_BINARY=FILE   another build of makegood
#   MAKEGOOD_TEST_TELL=1        tell everything that was done to each worker
#
# Needs what scripts/test.sh needs, and a PostgreSQL installed here: a server elsewhere cannot be
# restarted.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAKEGOOD_TEST_KILLS=${1:-1000} MAKEGOOD_TEST_RESTARTS=${2:-100}
exec cargo test --locked --profile long --test it faults::the_long_round -- --ignored --exact --nocapture
