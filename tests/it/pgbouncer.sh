#!/bin/sh
# A throwaway PgBouncer that runs as long as the other end of its standard input is open.
#
# usage: pgbouncer.sh BINARY, with the configuration (@dir@ stands for the directory), the list of
# users, and the TLS key and certificate in CONFIGURATION, USERS, KEY and CERTIFICATE.
#
# Prints "ready DIRECTORY" once it has created its socket in DIRECTORY, or why it could not start.
# When its input ends, because the test process is done, panicked, was interrupted or killed, it
# stops PgBouncer and removes the directory.
set -eu
exec 2>&1
trap '' INT HUP TERM PIPE

# Not TMPDIR: a socket's path may have 107 characters.
dir=$(mktemp -d /tmp/makegood-pgbouncer.XXXXXXXX)
cd "$dir"
pid=
clean_up() {
  [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean_up EXIT

printf '%s\n' "$CONFIGURATION" | sed "s|@dir@|$dir|g" >pgbouncer.ini
printf '%s\n' "$USERS" >users.txt
printf '%s\n' "$KEY" >server.key
printf '%s\n' "$CERTIFICATE" >server.pem
chmod 600 server.key

"$1" pgbouncer.ini >log 2>&1 </dev/null &
pid=$!
tries=0
until [ -S "$dir/.s.PGSQL.6432" ] || [ -e "$dir/listening" ]; do
  tries=$((tries + 1))
  if [ $tries -gt 400 ] || ! kill -0 "$pid" 2>/dev/null; then
    cat log
    exit 1
  fi
  # Over TCP there is no socket to wait for, but its log says so.
  if grep -q 'listening on 0.0.0.0' log; then touch listening; fi
  sleep 0.05
done

echo "ready $dir"
cat >/dev/null
