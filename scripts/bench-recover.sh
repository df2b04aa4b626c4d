#!/usr/bin/env bash
# Recoveries of 100 KB files a second, against `curl | sha256sum` into the same storage with as many
# at once.
#
#   scripts/bench-recover.sh [--binary FILE] [FILES [CONCURRENCY [ROUNDS]]]    (2000 8 3)
#
# Provider and files are one nginx. Both write below the same folder. Needs what scripts/bench.sh
# needs, and curl.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/bench/env.sh

bin=target/release/makegood
while [[ $# -gt 0 && $1 == -* ]]; do
  case $1 in
    --binary) bin=$2; shift ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/bench-recover.sh; [[ $1 == --help || $1 == -h ]]; exit ;;
  esac
  shift
done
files=${1:-2000} concurrency=${2:-8} rounds=${3:-3} database=bench_recover port=$((provider_port + 2))

start_servers
settings_of_the_bench
work=$(mktemp -d)
chmod 755 "$work"
trap 'kill "$(cat "$work/nginx.pid")"; rm -rf "$work"' EXIT
mkdir "$work/files" "$work/outputs" "$work/floor" "$work/providers"
{ printf '\x89PNG\r\n\x1a\n'; head -c 99992 /dev/zero; } >"$work/files/output.png"
cat >"$work/nginx.conf" <<CONF
worker_processes 1;
pid $work/nginx.pid;
error_log $work/error.log;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 10000000;
  sendfile on;
  types { image/png png; }
  client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
  server {
    listen 127.0.0.1:$port backlog=1024;
    location = /output.png { root $work/files; }
    location ~ ^/v1/predictions/(?<job>[^/]+)\$ {
      default_type application/json;
      return 200 '{"id":"\$job","status":"succeeded","output":["http://127.0.0.1:$port/output.png"],"error":null}';
    }
  }
}
CONF
nginx -e "$work/error.log" -c "$work/nginx.conf"
sed -e "s#https://api.replicate.com#http://127.0.0.1:$port#" -e "s/^max_concurrency.*/max_concurrency = 64/" \
  -e 's/^requests_per_second.*/requests_per_second = 10000/' \
  -e 's/^output_hosts.*/output_hosts = ["127.0.0.1"]/' -e 's/^key_hosts.*/key_hosts = ["127.0.0.1"]/' \
  config/providers/replicate.toml >"$work/providers/replicate.toml"
export MAKEGOOD__PROVIDERS__DIR=$work/providers MAKEGOOD__STORAGE__URL=file://$work/outputs
export MAKEGOOD__RECOVERY__CONCURRENCY=$concurrency MAKEGOOD__RECOVERY__ALLOW_LOOPBACK=true

one="curl -sf http://127.0.0.1:$port/output.png | tee $work/floor/\$1.png | sha256sum"
seconds() { # command…
  local begun=$EPOCHREALTIME
  "$@" >/dev/null
  python3 -c "print(f'{$EPOCHREALTIME - $begun:.2f}')"
}
for ((round = 1; round <= rounds; round++)); do
  sql postgres -c "drop database if exists $database with (force)" -c "create database $database"
  for each in migrations/reference/postgres/*.sql; do sql $database -f "$each"; done
  sql $database -v n="$files" -f scripts/bench/items.sql
  export DATABASE_URL
  DATABASE_URL=$(url_of $database)
  "$bin" migrate >/dev/null
  floor=$(seq "$files" | seconds xargs -P "$concurrency" -I{} sh -c "$one" sh {})
  ours=$(seconds "$bin" run --output json)
  recovered=$(sql $database -c "select count(*) from stored_outputs where size_bytes = 100000")
  [[ $recovered -eq $files ]] || { echo "$recovered of $files recovered" >&2; exit 1; }
  python3 -c "print(f'round $round: curl | sha256sum {$files / $floor:.0f} files a second, makegood {$files / $ours:.0f}: {100 * $floor / $ours:.0f} %')"
  rm -rf "$work/outputs" "$work/floor"
  mkdir "$work/outputs" "$work/floor"
done
sql postgres -c "drop database $database with (force)"
