#!/bin/sh
# What the public postgres image's entrypoint does with an empty data folder: POSTGRES_USER, POSTGRES_PASSWORD (or _FILE), POSTGRES_DB, POSTGRES_HOST_AUTH_METHOD,
# POSTGRES_INITDB_ARGS, /docker-entrypoint-initdb.d/*.sql and *.sh; arguments go to the server. Writes only to PGDATA, /var/run/postgresql and /tmp.
set -eu

case "${1:-}" in -*) set -- postgres "$@" ;; esac
if [ "${1:-}" != postgres ]; then exec "$@"; fi
if [ "$(id -u)" = 0 ]; then
    echo "entrypoint: run this image as a user other than root (its own is 999)" >&2
    exit 1
fi

if [ -s "$PGDATA/PG_VERSION" ]; then
    chmod 0700 "$PGDATA" 2>/dev/null || true # fsGroup may have opened it to the group
    exec "$@"
fi

if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
host_auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$host_auth" != trust ]; then
    echo "entrypoint: the data folder is empty; set POSTGRES_PASSWORD for its first start" >&2
    exit 1
fi

# A start that was cut short leaves no half-made folder: all is made beside it and renamed at the end, where PGDATA is a folder of ours.
mkdir -p "$PGDATA"
chmod 0700 "$PGDATA" 2>/dev/null || true
made=$PGDATA/.making
rm -rf "$made"
printf '%s' "${POSTGRES_PASSWORD:-unused}" >/tmp/password
# shellcheck disable=SC2086 # POSTGRES_INITDB_ARGS is meant to be several words
initdb --pgdata "$made" --username "$user" --pwfile /tmp/password --auth-local trust --auth-host "$host_auth" ${POSTGRES_INITDB_ARGS:-} >/dev/null
rm /tmp/password
printf '\nhost all all all %s\n' "$host_auth" >>"$made/pg_hba.conf"

pg_ctl --pgdata "$made" --options "-c listen_addresses='' -c unix_socket_directories=/tmp" --silent --wait start
sql() { psql --host /tmp --username "$user" --no-password --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@"; }
if [ "$database" != postgres ]; then
    sql --dbname postgres --set name="$database" <<'SQL'
CREATE DATABASE :"name";
SQL
fi
for file in /docker-entrypoint-initdb.d/*; do
    case $file in
        *.sql) sql --dbname "$database" --file "$file" ;;
        *.sh) . "$file" ;;
    esac
done
pg_ctl --pgdata "$made" --silent --wait --mode fast stop

# PG_VERSION comes last: it says that the folder is complete.
for entry in "$made"/*; do
    [ "$entry" = "$made/PG_VERSION" ] || { rm -rf "${PGDATA:?}/${entry##*/}" && mv "$entry" "$PGDATA/"; }
done
mv "$made/PG_VERSION" "$PGDATA/"
rmdir "$made"
exec "$@"
