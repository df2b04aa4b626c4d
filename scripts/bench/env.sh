# Settings and functions that the measuring scripts share. Source it.
#
#   MAKEGOOD_BENCH_DIR      everything is kept below it (/tmp/bench)
#   MAKEGOOD_BENCH_PGPORT   the port of the throwaway PostgreSQL (54999)
#   MAKEGOOD_BENCH_PORT     the port of the provider, which is nginx (18080)
#   PGBIN                   where initdb and pg_ctl are (the newest of /usr/lib/postgresql/*/bin)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
build=${MAKEGOOD_BENCH_DIR:-/tmp/bench}
pgport=${MAKEGOOD_BENCH_PGPORT:-54999}
provider_port=${MAKEGOOD_BENCH_PORT:-18080}
pgbin=${PGBIN:-$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -1)}
# Debian keeps nginx here, which is not in everybody's PATH.
PATH=$PATH:/usr/sbin

url_of() { echo "postgres://bench@127.0.0.1:$pgport/$1"; }

# psql on database $1. It fails at the first error, asks for no password and reads no .psqlrc.
sql() {
  local database=$1
  shift
  PGOPTIONS='-c client_min_messages=warning' psql -qXAt -v ON_ERROR_STOP=1 "$(url_of "$database")" "$@"
}

# PostgreSQL does not run as root.
as_postgres() { if [[ $(id -u) -eq 0 ]]; then runuser -u postgres -- "$@"; else "$@"; fi; }

is_running() { [[ -s $1 ]] && kill -0 "$(head -1 "$1")" 2>/dev/null; }

start_servers() {
  local missing=()
  [[ -x $pgbin/initdb ]] || missing+=(postgresql)
  command -v nginx >/dev/null || missing+=(nginx-light)
  command -v time >/dev/null || missing+=(time)
  if [[ ${#missing[@]} -gt 0 ]]; then
    echo "Please install what Debian calls: ${missing[*]}" >&2
    exit 1
  fi
  mkdir -p "$build/nginx"
  if [[ ! -d $build/pg/base ]]; then
    mkdir -p "$build/pg"
    [[ $(id -u) -ne 0 ]] || chown postgres "$build/pg"
    chmod 700 "$build/pg"
    (cd / && as_postgres "$pgbin/initdb" -D "$build/pg" -U bench --auth=trust --locale=C.UTF-8 >/dev/null)
    # Durable commits as in production. wal_level minimal only makes the loading of the tables
    # faster.
    cat >>"$build/pg/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $pgport
unix_socket_directories = ''
shared_buffers = 512MB
max_wal_size = 4GB
wal_level = minimal
max_wal_senders = 0
shared_preload_libraries = 'pg_stat_statements'
pg_stat_statements.track_utility = off
CONF
  fi
  is_running "$build/pg/postmaster.pid" ||
    (cd / && as_postgres "$pgbin/pg_ctl" -D "$build/pg" -l "$build/pg/server.log" -w start >/dev/null)

  # The provider answers at once that the job failed: what is measured is the cost of the work, not
  # of waiting.
  cat >"$build/nginx/nginx.conf" <<CONF
worker_processes 1;
pid $build/nginx/nginx.pid;
error_log $build/nginx/error.log;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_timeout 75s;
  keepalive_requests 10000000;
  client_body_temp_path $build/nginx; proxy_temp_path $build/nginx;
  fastcgi_temp_path $build/nginx; uwsgi_temp_path $build/nginx; scgi_temp_path $build/nginx;
  server {
    listen 127.0.0.1:$provider_port backlog=1024;
    location ~ ^/v1/predictions/(?<job>[^/]+)\$ {
      default_type application/json;
      return 200 '{"id":"\$job","status":"failed","output":null,"error":"generation failed on the provider side"}';
    }
  }
}
CONF
  is_running "$build/nginx/nginx.pid" || nginx -e "$build/nginx/error.log" -c "$build/nginx/nginx.conf"

  # The shipped file of a provider, asked here and as fast as it can be.
  mkdir -p "$build/providers"
  sed -e "s#https://api.replicate.com#http://127.0.0.1:$provider_port#" -e 's/^max_concurrency.*/max_concurrency = 64/' \
    -e 's/^requests_per_second.*/requests_per_second = 10000/' \
    "$repository/config/providers/replicate.toml" >"$build/providers/replicate.toml"
}

stop_servers() {
  ! is_running "$build/nginx/nginx.pid" || kill "$(head -1 "$build/nginx/nginx.pid")"
  ! is_running "$build/pg/postmaster.pid" ||
    (cd / && as_postgres "$pgbin/pg_ctl" -D "$build/pg" -m fast -w stop >/dev/null)
}

# What makegood reads from its environment, but for its database.
settings_of_the_bench() {
  export REPLICATE_API_TOKEN=bench MAKEGOOD__PROVIDERS__DIR=$build/providers MAKEGOOD__LOG__LEVEL=${MAKEGOOD__LOG__LEVEL:-error}
  export MAKEGOOD__STORAGE__URL=file://$build/outputs
  export MAKEGOOD__BRAKE__MAX_REFUNDS_PER_HOUR=0 MAKEGOOD__BRAKE__MAX_REFUNDS_PER_DAY=0
  export MAKEGOOD__BRAKE__MAX_REFUND_SHARE_PER_DAY=0 MAKEGOOD__BRAKE__MAX_CREDIT_SHARE_PER_DAY=0
  export MAKEGOOD__BRAKE__MAX_REFUNDS_PER_DAY_PER_ACCOUNT=0 MAKEGOOD__BRAKE__MAX_CREDIT_SHARE_PER_DAY_PER_ACCOUNT=0
}
