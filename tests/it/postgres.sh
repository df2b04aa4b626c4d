#!/bin/sh
# A throwaway PostgreSQL that runs as long as the other end of its standard input is open.
#
# usage: postgres.sh DIRECTORY_OF_THE_BINARIES
#
# Prints "ready DIRECTORY" once it answers on a socket in DIRECTORY, or why it could not start. When
# its input ends, because the test process is done, panicked, was interrupted or killed, it stops
# the server and removes the directory. Nothing listens on TCP, and only this user may enter the
# directory.
set -eu
exec 2>&1
# PIPE too: the test process may be gone before this script prints anything.
trap '' INT HUP TERM PIPE

bin=$1
# Not TMPDIR: a socket's path may have 107 characters, and under root the server's user must be able
# to enter it.
dir=$(mktemp -d /tmp/makegood-postgres.XXXXXXXX)
cd "$dir"

clean_up() {
  "$bin/pg_ctl" --pgdata="$dir/data" --mode=immediate --silent stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap clean_up EXIT

# Sorts text by language and not by bytes, like most servers in production, so that code which
# relies on byte order fails here. Servers before 15 cannot choose it in this way.
locale="--locale=C"
if "$bin/initdb" --help | grep -q -e --icu-locale; then
  locale="--locale=C --locale-provider=icu --icu-locale=en-US"
fi
# shellcheck disable=SC2086  # two words or four
"$bin/initdb" --pgdata="$dir/data" --username=postgres --auth=trust --encoding=UTF8 $locale --no-sync \
  >"$dir/initdb.log" || { cat "$dir/initdb.log"; exit 1; }

# Not UTC, so that a time that is read in the session's zone is noticed. Without fsync, because the
# tests kill makegood and never the machine.
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
port = 5432
timezone = 'Asia/Kathmandu'
max_connections = 300
fsync = off
synchronous_commit = off
full_page_writes = off
CONF

"$bin/pg_ctl" --pgdata="$dir/data" --log="$dir/server.log" --wait --timeout=120 start >"$dir/start.log" ||
  { cat "$dir/start.log" "$dir/server.log"; exit 1; }

echo "ready $dir"
cat >/dev/null
