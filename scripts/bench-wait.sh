#!/usr/bin/env bash
# How many questions a second are asked of a provider that takes its time, against what its
# concurrency allows. One process, then several that share the provider's limit.
#
#   scripts/bench-wait.sh [--binary FILE] [QUESTIONS [CONCURRENCY [DELAY_MS]]]    (2000 16 200)
#
# The most that CONCURRENCY questions at once allow is CONCURRENCY / DELAY. Needs what
# scripts/bench.sh needs, and curl.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench/env.sh

bin=target/release/makegood
while [[ $# -gt 0 && $1 == -* ]]; do
  case $1 in
    --binary) bin=$2; shift ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/bench-wait.sh; [[ $1 == --help || $1 == -h ]]; exit ;;
  esac
  shift
done
questions=${1:-2000} concurrency=${2:-16} delay=${3:-200} database=bench_wait port=$((provider_port + 1))

start_servers
settings_of_the_bench
python3 scripts/bench/slow_provider.py "$port" "$delay" &
provider=$!
settings=$(mktemp -d)
trap 'kill "$provider"; rm -rf "$settings"' EXIT
sed -e "s#https://api.replicate.com#http://127.0.0.1:$port#" -e "s/^max_concurrency.*/max_concurrency = $concurrency/" \
  -e 's/^requests_per_second.*/requests_per_second = 10000/' config/providers/replicate.toml >"$settings/replicate.toml"
export MAKEGOOD__PROVIDERS__DIR=$settings

for processes in 1 4; do
  sql postgres -c "drop database if exists $database with (force)" -c "create database $database"
  for each in migrations/reference/postgres/*.sql; do sql $database -f "$each"; done
  sql $database -v n="$questions" -f scripts/bench/items.sql
  export DATABASE_URL
  DATABASE_URL=$(url_of $database)
  "$bin" migrate >/dev/null
  curl -sf "http://127.0.0.1:$port/figures" >/dev/null
  pids=()
  for ((nth = 0; nth < processes; nth++)); do
    "$bin" run --output json >/dev/null &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
  refunded=$(sql $database -c 'select count(*) from makegood_refunds')
  [[ $refunded -eq $questions ]] || { echo "$refunded of $questions refunded" >&2; exit 1; }
  read -r answered seconds most < <(curl -sf "http://127.0.0.1:$port/figures"; echo)
  python3 -c "
a, s, most, allowed = $answered, $seconds, $most, $concurrency / ($delay / 1000)
print(f'$processes process(es): {a} questions in {s:.1f} s, at most {most} at once: {a / s:.1f} a second, {100 * a / s / allowed:.1f} % of {allowed:.0f}')"
done
sql postgres -c "drop database $database with (force)"
