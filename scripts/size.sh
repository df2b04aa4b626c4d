#!/usr/bin/env bash
# The main job on tables of different sizes: the built binary, PostgreSQL with durable commits, a
# provider over HTTP on loopback.
#
# usage: scripts/size.sh [OPTION…] CHARGES…
#        scripts/size.sh --stop | --purge
#
# For each number of charges (10,000 an hour; the newest 100,000 hold 5,000 orphans) it prints a row
# for the first night, an idle pass, a pass with 10,000 new charges (500 orphans) and a row for 60
# idle passes. The columns: the exit code, wall and client CPU seconds, peak memory, how many
# statements ran, the longest call of any statement and its name, the blocks that all statements
# touched, and the database's execution time. A statement that was cancelled (statement_timeout) is
# in no figure but the exit code.
#
#   --binary FILE       the makegood to measure (target/release/makegood)
#   --orphans N         orphans of the first night (5000)
#   --every N           one charge of so many is an orphan (20). 300,000 orphans need --every 5 or
#                       less to fit into 7 days
#   --waiting N         N more open orphans, of the last day, that are not due for 55 minutes (0)
#   --held N            N more orphans that the brake holds and that are not due for 55 minutes (0)
#   --idle N            idle passes at the end (60; 0: none), one minute after the other: between
#                       two of them every time in makegood_cursors is set back by a minute, as if
#                       a minute had gone by without a charge
#   --passes LIST       first,idle,new,idles: only these (all)
#   --processes N       the first night is run by N processes at once; adds a row with items a
#                       second and lock waits
#   --locked            a session of the platform's holds the row of one balance during the first
#                       night; adds a row that says how many were refunded and how many of other
#                       accounts were not
#   --arguments "A…"    more arguments for the first night's `makegood run`, such as
#                       "--max-duration 5s"
#   --keep              leave the database (size_CHARGES) behind
#   --fill              only load the tables
#   --stop              stop the servers that this script has started; --purge also removes their
#                       files
#
# The tables of each size are loaded once, into a database that is copied for each run: 10 million
# charges take 9 GB, twice, and some minutes. After 12 hours they are loaded anew. Everything is
# kept below MAKEGOOD_BENCH_DIR (/tmp/bench); see scripts/bench/env.sh for that and for the ports.
# Needs PostgreSQL, nginx and GNU time.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench/env.sh

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/size.sh; }

bin=target/release/makegood orphans=5000 every=20 waiting=0 held=0 idles=60 passes=first,idle,new,idles
processes= locked= arguments= keep= fill_only=
while [[ $# -gt 0 && $1 == -* ]]; do
  case $1 in
    --binary) bin=$2; shift ;;
    --orphans) orphans=$2; shift ;;
    --every) every=$2; shift ;;
    --waiting) waiting=$2; shift ;;
    --held) held=$2; shift ;;
    --idle) idles=$2; shift ;;
    --passes) passes=$2; shift ;;
    --processes) processes=$2; shift ;;
    --arguments) arguments=$2; shift ;;
    --locked) locked=yes ;;
    --keep) keep=yes ;;
    --fill) fill_only=yes ;;
    --stop) stop_servers; exit ;;
    --purge) stop_servers; rm -rf "${build:?}/pg" "$build/nginx" "$build/providers" "$build/outputs"; exit ;;
    --help | -h) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $# -gt 0 ]] || { usage >&2; exit 2; }
if [[ -z $fill_only && ! -x $bin ]]; then
  echo "There is no $bin. Build it (cargo build --locked --release) or name another with --binary." >&2
  exit 2
fi
start_servers
settings_of_the_bench
scratch=$(mktemp -d)
holder=
clean_up() {
  [[ -z $holder ]] || kill "$holder" 2>/dev/null || true
  rm -rf "$scratch"
}
trap clean_up EXIT

template_of() { if (($1 % 1000000)); then echo "size$(($1 / 1000))k_template"; else echo "size$(($1 / 1000000))m_template"; fi; }

# Loads the tables of $1 charges, unless that was done less than twelve hours ago.
fill() {
  local template
  template=$(template_of "$1")
  if [[ -n $(sql postgres -c "select 1 from pg_database where datname = '$template'") ]]; then
    local fresh
    fresh=$(sql "$template" -c "select until > now() - interval '12 hours' from bench.filled" 2>/dev/null || true)
    [[ $fresh != t ]] || return 0
    sql postgres -c "drop database $template with (force)"
  fi
  echo "loading $1 charges into $template" >&2
  sql postgres -c "drop database if exists ${template}_loading with (force)" -c "create database ${template}_loading"
  sql "${template}_loading" -f migrations/reference/postgres/0001_contract.sql
  sql "${template}_loading" -v n="$1" -f scripts/bench/fill.sql
  sql postgres -c "alter database ${template}_loading rename to $template"
}

# A database of its own for one run: a copy of the filled one, up to date, with makegood's tables
# and the orphans that were asked for.
prepare() { # database, charges
  fill "$2"
  sql postgres -c "drop database if exists $1 with (force)" \
    -c "create database $1 template $(template_of "$2") strategy file_copy"
  DATABASE_URL=$(url_of "$1") "$bin" migrate >/dev/null
  sql "$1" -v orphans="$orphans" -v every="$every" -v waiting="$waiting" -v held="$held" -f scripts/bench/freshen.sql
  # What a server does by itself in the first minutes; nothing is analyzed that was not before.
  sql "$1" -c 'vacuum stored_outputs' -c checkpoint
}

figures="select coalesce(sum(calls), 0), coalesce(round(max(max_exec_time)::numeric), 0),
    coalesce((array_agg(coalesce(substring(query from '-- ([a-z_]+):'), '(' || left(regexp_replace(query, '[^a-zA-Z_]+', ' ', 'g'), 30) || ')')
                        order by max_exec_time desc))[1], '-'),
    coalesce(sum(shared_blks_hit + shared_blks_read), 0), coalesce(round(sum(total_exec_time)::numeric / 1000, 2), 0)
  from pg_stat_statements where dbid = (select oid from pg_database where datname = current_database())
    and query not like '%pg_stat_statements%'"

reset() { sql "$1" -c 'select pg_stat_statements_reset()' >/dev/null; }

# Runs one pass and leaves `exit wall cpu peak` in $scratch/$2.
run_pass() { # database, name of its files, arguments…
  local database=$1 name=$2 rc=0
  shift 2
  DATABASE_URL=$(url_of "$database") env time -q -f '%e %U %S %M' -o "$scratch/time.$name" \
    timeout 1800 "$bin" run --output json "$@" >"$build/pass.$name.json" 2>"$build/pass.$name.err" || rc=$?
  tail -1 "$scratch/time.$name" | awk -v rc="$rc" '{ printf "%s %s %.2f %d\n", rc, $1, $2 + $3, $4 / 1024 }' >"$scratch/$name"
}

row() { # charges, what, exit, wall, cpu, peak, statements, slowest ms, its name, blocks, database s
  printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n' "$@"
}

measured_pass() { # database, charges, what
  reset "$1"
  run_pass "$1" one
  local rc wall cpu peak calls slowest name blocks seconds
  read -r rc wall cpu peak <"$scratch/one"
  IFS='|' read -r calls slowest name blocks seconds < <(sql "$1" -c "$figures")
  row "$2" "$3" "$rc" "$wall" "$cpu" "$peak" "$calls" "$slowest" "$name" "$blocks" "$seconds"
}

first_night() { # database, charges
  local what="first night" n rc wall cpu peak calls slowest name blocks seconds sampler began
  if [[ -n $locked ]]; then
    # The session of the platform's: an account that has orphans.
    sql "$1" -c "begin" -c "select 1 from balances where bucket = 'subscription' and account_id =
        (select account_id from charges c where not exists (select 1 from stored_outputs s where s.charge_id = c.id)
         order by charged_at limit 1) for update" -c "select pg_sleep(3600)" >/dev/null 2>&1 &
    holder=$!
    until [[ -n $(sql "$1" -c "select 1 from pg_stat_activity where query like 'select pg_sleep%' and datname = current_database()") ]]; do
      sleep 0.1
    done
    what+=", one balance locked"
  fi
  [[ -z $processes ]] || what+=", $processes processes"
  reset "$1"
  # Ten times a second: how many sessions wait for a lock, and how many there are at work.
  if [[ -n $processes$locked ]]; then
    while sleep 0.1; do
      echo "select count(*) filter (where wait_event_type = 'Lock'), count(*) from pg_stat_activity
            where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query not like 'select pg_sleep%';"
    done | sql "$1" >"$scratch/waits" 2>/dev/null &
    sampler=$!
  fi
  began=$(date +%s.%N)
  for ((n = 1; n <= ${processes:-1}; n++)); do
    # shellcheck disable=SC2086  # several arguments
    run_pass "$1" "$n" $arguments &
    eval "pid_$n=$!"
  done
  for ((n = 1; n <= ${processes:-1}; n++)); do eval "wait \$pid_$n"; done
  wall=$(echo "$(date +%s.%N) $began" | awk '{ printf "%.2f", $1 - $2 }')
  IFS='|' read -r calls slowest name blocks seconds < <(sql "$1" -c "$figures")
  for ((n = 1; n <= ${processes:-1}; n++)); do cat "$scratch/$n"; done >"$scratch/all"
  read -r rc cpu peak < <(awk '{ if ($1 > rc) rc = $1; cpu += $3; if ($4 > peak) peak = $4 } END { print rc + 0, cpu, peak }' "$scratch/all")
  row "$2" "$what" "$rc" "$wall" "$cpu" "$peak" "$calls" "$slowest" "$name" "$blocks" "$seconds"

  if [[ -n ${sampler:-} ]]; then
    kill "$sampler" 2>/dev/null || true
    echo
    local refunded span waits
    IFS='|' read -r refunded span < <(sql "$1" -c "select count(*), round(extract(epoch from max(refunded_at) - min(refunded_at)), 2) from makegood_refunds")
    waits=$(awk -F'|' '{ w += $1; a += $2 } END { printf "%d of %d", w, a }' "$scratch/waits")
    echo "$2 charges, $what: $refunded refunded, the first and the last $span s apart:" \
      "$(echo "$refunded $wall $span" | awk '{ printf "%.0f items/s of the wall time, %.0f between first and last", $1 / $2, ($3 > 0 ? $1 / $3 : 0) }')." \
      "Sessions seen at work that waited for a lock: $waits."
    echo "Longest in sum: $(sql "$1" -c "select string_agg(format('%s %s s in %s calls', n, s, c), ', ' order by s desc) from
      (select substring(query from '-- ([a-z_]+):') n, round(sum(total_exec_time)::numeric / 1000, 2) s, sum(calls) c
       from pg_stat_statements where dbid = (select oid from pg_database where datname = current_database()) and query ~ '-- [a-z_]+:'
       group by 1 order by 2 desc limit 5) x")."
    if [[ -n $locked ]]; then
      echo "Open when the pass had ended: $(sql "$1" -c "select format('%s of the locked account, %s of %s others', count(*) filter (where l),
          count(*) filter (where not l), count(distinct account_id) filter (where not l)) from
        (select c.account_id, c.account_id = (select account_id from charges c where exists (select 1 from makegood_orphans o where o.charge_id = c.id)
                                              order by charged_at limit 1) l
         from makegood_orphans o join charges c on c.id = o.charge_id where o.state in ('open', 'held') and o.charge_id not like 'wait-%') x")."
    fi
    echo
  fi
  if [[ -n $holder ]]; then
    sql "$1" -c "select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep%' and datname = current_database()" >/dev/null
    wait "$holder" 2>/dev/null || true
    holder=
  fi
}

idle_passes() { # database, charges
  local n rc wall cpu peak calls slowest name blocks seconds set_back recount
  set_back=$(sql "$1" -c "select 'update makegood_cursors set ' || string_agg(format('%1\$I = %1\$I - interval ''1 minute''', attname), ', ')
    from pg_attribute where attrelid = 'makegood_cursors'::regclass and attnum > 0 and not attisdropped and atttypid = 'timestamptz'::regtype")
  recount=$(sql "$1" -c "select case when count(*) = 0 then 'select 1' else
      'update makegood_cursors c set charges = (select count(*) from charges h where h.charged_at > c.position and h.charged_at <= c.until)
       where charges is not null' end
    from pg_attribute where attrelid = 'makegood_cursors'::regclass and attname = 'charges'")
  : >"$scratch/idles"
  for ((n = 1; n <= idles; n++)); do
    sql "$1" -c "$set_back"
    # The stretches that were counted have moved over the charges: as nothing was committed, their
    # numbers are as counted.
    sql "$1" -c "$recount"
    reset "$1"
    run_pass "$1" one
    read -r rc wall cpu peak <"$scratch/one"
    IFS='|' read -r calls slowest name blocks seconds < <(sql "$1" -c "$figures")
    echo "$rc $wall $cpu $peak $calls $slowest $name $blocks $seconds" >>"$scratch/idles"
    # A pass that fails for its size fails again: the others would take hours.
    ((rc == 0 || rc == 3 || n < 2)) || break
  done
  local what="idle passes in all" most
  read -r rc wall cpu peak calls slowest name blocks seconds most n < <(awk '
    { if ($1 > rc) rc = $1; wall += $2; cpu += $3; if ($4 > peak) peak = $4; calls += $5; if ($6 >= slow) { slow = $6; name = $7 }
      blocks += $8; if ($8 > most) most = $8; seconds += $9 }
    END { printf "%d %.2f %.2f %d %d %s %s %.0f %.2f %.0f %d\n", rc, wall, cpu, peak, calls, slow, name, blocks, seconds, most, NR }' "$scratch/idles")
  row "$2" "$n $what" "$rc" "$wall" "$cpu" "$peak" "$calls" "$slowest" "$name" "$blocks (at most $most)" "$seconds"
}

if [[ -n $fill_only ]]; then
  for n in "$@"; do fill "$n"; done
  exit
fi
asked_for() { [[ ,$passes, == *",$1,"* ]]; }
echo '| charges | pass | exit | wall s | client CPU s | peak MiB | statements | slowest ms | which | blocks | database s |'
echo '|---:|---|---:|---:|---:|---:|---:|---:|---|---:|---:|'
for n in "$@"; do
  database=size_$n
  prepare "$database" "$n"
  ! asked_for first || first_night "$database" "$n"
  ! asked_for idle || measured_pass "$database" "$n" idle
  if asked_for new; then
    sql "$database" -f scripts/bench/newcomers.sql
    measured_pass "$database" "$n" "10,000 new"
  fi
  if asked_for idles && ((idles > 0)); then idle_passes "$database" "$n"; fi
  [[ -n $keep ]] || sql postgres -c "drop database $database with (force)"
done
