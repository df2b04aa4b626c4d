#!/usr/bin/env bash
# The distance from the floor: makegood and the smallest program that does the same job, in the same
# round on the same data.
#
# usage: scripts/bench.sh [OPTION…] [ITEMS [ROUNDS]]        (10000 items, 3 rounds)
#
# ITEMS charges of one item each, whose jobs failed, half of them paid from one balance and half
# from two; durable commits; a provider that answers at once, on the same machine. In each round, on
# a fresh database:
#
#   floor: SQL    set-based postings by psql, 1,000 items a transaction (scripts/bench/floor.sql);
#                 asks no provider
#   floor: HTTP   a bare client, 64 questions at a time (scripts/bench/floor); writes nothing
#   makegood      the built binary: detects, leases, asks, decides, proves and settles, with every
#                 limit of the brake set
#
# Every result is checked (scripts/bench/verify.sql). It prints medians; × is the ratio to both
# floors one after the other; `other` is the share of the machine that other processes used
# meanwhile. Repeat a round in which it is more than a few percent. Then, for the last round:
# statements for 1,000 items, the longest in sum, and how large makegood's tables are.
#
#   --binary FILE   the makegood to measure (target/release/makegood)
#   --keep          leave the database (bench_items) behind
#
# scripts/size.sh --stop and --purge stop the servers and remove their files. Needs PostgreSQL,
# nginx, GNU time, Python 3 and cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench/env.sh

bin=target/release/makegood keep=
while [[ $# -gt 0 && $1 == -* ]]; do
  case $1 in
    --binary) bin=$2; shift ;;
    --keep) keep=yes ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/bench.sh; [[ $1 == --help || $1 == -h ]]; exit ;;
  esac
  shift
done
items=${1:-10000} rounds=${2:-3} database=bench_items
[[ -x $bin ]] || { echo "There is no $bin. Build it (cargo build --locked --release) or name another with --binary." >&2; exit 2; }

start_servers
settings_of_the_bench
# All of the brake's limits are counted, and none is reached.
export MAKEGOOD__BRAKE__MAX_REFUNDS_PER_HOUR=100000000 MAKEGOOD__BRAKE__MAX_REFUNDS_PER_DAY=100000000
export MAKEGOOD__BRAKE__MAX_REFUND_SHARE_PER_DAY=100 MAKEGOOD__BRAKE__MAX_CREDIT_SHARE_PER_DAY=100
export MAKEGOOD__BRAKE__MAX_REFUNDS_PER_DAY_PER_ACCOUNT=100000000 MAKEGOOD__BRAKE__MAX_CREDIT_SHARE_PER_DAY_PER_ACCOUNT=100

client=$build/floor/release/bench-floor
cargo build --quiet --release --manifest-path scripts/bench/floor/Cargo.toml --target-dir "$build/floor"
results=$(mktemp)
trap 'rm -f "$results"' EXIT

measured() { # round, name, command…
  local round=$1 name=$2
  shift 2
  python3 scripts/bench/measure.py run "$results" "$name" "$round" "$build/pg/postmaster.pid" "$build/nginx/nginx.pid" -- "$@"
}

floor_sql() {
  for ((lo = 0; lo < items; lo += 1000)); do
    printf '\\set lo %d\n\\set hi %d\n' "$lo" $((lo + 1000 < items ? lo + 1000 : items))
    cat scripts/bench/floor.sql
  done >"$build/floor_items.sql"
  measured "$1" 'floor: SQL' psql -qX -v ON_ERROR_STOP=1 -f "$build/floor_items.sql" "$(url_of $database)"
}

for ((round = 1; round <= rounds; round++)); do
  echo "round $round" >&2
  sql postgres -c "drop database if exists $database with (force)" -c "create database $database"
  for each in migrations/reference/postgres/*.sql; do sql $database -f "$each"; done
  sql $database -v n="$items" -f scripts/bench/items.sql
  floor_sql "$round"
  measured "$round" 'floor: HTTP' "$client" "$items" "http://127.0.0.1:$provider_port"
  DATABASE_URL=$(url_of $database) "$bin" migrate >/dev/null
  sql $database -c checkpoint -c 'select pg_stat_statements_reset()' >/dev/null
  DATABASE_URL=$(url_of $database) measured "$round" makegood "$bin" run --output json >"$build/bench.json"
  wrong=$(sql $database -v n="$items" -f scripts/bench/verify.sql)
  [[ -z $wrong ]] || { printf 'not done right (check|got|want):\n%s\n' "$wrong" >&2; exit 1; }
done

python3 scripts/bench/measure.py table "$results" "$items"
echo
of_makegood="from pg_stat_statements where dbid = (select oid from pg_database where datname = current_database()) and query ~ '-- [a-z_]+:'"
sql $database -c "select 'Statements for 1,000 items: ' || round(sum(calls) * 1000 / $items, 1) || '; their execution: '
  || round((sum(total_exec_time) * 1000 / $items)::numeric) || ' µs an item.' $of_makegood"
echo 'Longest in sum, µs an item: '"$(sql $database -c "select string_agg(n || ' ' || s, ' · ' order by s desc) from
  (select substring(query from '-- ([a-z_]+):') n, round((sum(total_exec_time) * 1000 / $items)::numeric) s $of_makegood
   group by 1 order by 2 desc limit 16) x")"
echo 'Bytes an item, with indexes: '"$(sql $database -c "select string_agg(relname || ' ' || b, ' · ' order by b desc) from
  (select relname, pg_total_relation_size(oid) / $items b from pg_class where relname like 'makegood\_%' and relkind = 'r') x where b >= 10")"
[[ -n $keep ]] || sql postgres -c "drop database $database with (force)"
