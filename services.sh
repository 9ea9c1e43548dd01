#!/usr/bin/env bash
# Redis and PostgreSQL for this project alone: Debian's packages, loopback only, own ports, data under data/services/.
# Usage: services.sh start | stop | status
set -euo pipefail
cd "$(dirname "$0")"
root=$PWD/data/services
redis_port=16379
postgres_port=15432

need() {  # install Debian package $2 when the command or file pattern $1 is missing
  if command -v "$1" >/dev/null 2>&1 || compgen -G "$1" >/dev/null; then return 0; fi
  command -v apt-get >/dev/null || { echo "services: $2 is missing and apt-get is not to be had here" >&2; exit 1; }
  local sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
  echo "services: installing $2"
  $sudo apt-get update -qq
  # The package's own start-up of a system-wide server is not wanted: ours runs on its own port.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap "$sudo rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$2" >/dev/null
}

postgres_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

as_owner() {  # PostgreSQL refuses to run as root
  if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid=postgres --regid=postgres --clear-groups "$@"); else "$@"; fi
}

start() {
  need redis-server redis-server
  need "/usr/lib/postgresql/*/bin/initdb" postgresql
  mkdir -p "$root/redis"
  if ! redis-cli -p $redis_port ping >/dev/null 2>&1; then
    redis-server --port $redis_port --bind 127.0.0.1 --dir "$root/redis" --appendonly yes --daemonize yes \
      --logfile "$root/redis/redis.log" --pidfile "$root/redis/redis.pid" >/dev/null
  fi
  # PostgreSQL's owner must be able to reach its folder: where the project lies in a closed home, use /var/lib.
  local bin data=$root/postgres
  bin=$(postgres_bin)
  mkdir -p "$data"
  [ "$(id -u)" = 0 ] && chown postgres:postgres "$data"
  if ! as_owner test -w "$data"; then
    data=/var/lib/tradeloop-postgres-$(printf %s "$PWD" | sha256sum | cut -c1-8)
    mkdir -p "$data"; [ "$(id -u)" = 0 ] && chown postgres:postgres "$data"
  fi
  echo "$data" > "$root/postgres.path"
  if [ ! -f "$data/PG_VERSION" ]; then
    as_owner "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
  fi
  if ! "$bin/pg_isready" -q -h 127.0.0.1 -p $postgres_port; then
    as_owner "$bin/pg_ctl" -D "$data" -w -l "$data/server.log" \
      -o "-p $postgres_port -c listen_addresses=127.0.0.1 -c unix_socket_directories=''" start >/dev/null
  fi
  "$bin/psql" -qtA -h 127.0.0.1 -p $postgres_port -U postgres -c "select 1 from pg_roles where rolname='tradeloop'" | grep -q 1 ||
    "$bin/psql" -q -h 127.0.0.1 -p $postgres_port -U postgres -c "create role tradeloop login createdb password 'tradeloop'"
  "$bin/psql" -qtA -h 127.0.0.1 -p $postgres_port -U postgres -c "select 1 from pg_database where datname='tradeloop'" | grep -q 1 ||
    "$bin/psql" -q -h 127.0.0.1 -p $postgres_port -U postgres -c "create database tradeloop owner tradeloop"
  status
}

stop() {
  redis-cli -p $redis_port shutdown >/dev/null 2>&1 || true
  [ -f "$root/postgres.path" ] && as_owner "$(postgres_bin)/pg_ctl" -D "$(cat "$root/postgres.path")" -m fast stop >/dev/null 2>&1 || true
  echo "services: stopped"
}

status() {
  redis-cli -p $redis_port ping >/dev/null 2>&1 && echo "services: redis       127.0.0.1:$redis_port up" || { echo "services: redis down"; return 1; }
  "$(postgres_bin)/pg_isready" -q -h 127.0.0.1 -p $postgres_port && echo "services: postgresql  127.0.0.1:$postgres_port up" || { echo "services: postgresql down"; return 1; }
}

case "${1:-}" in
  start | stop | status) "$1" ;;
  *) echo "usage: services.sh start | stop | status" >&2; exit 2 ;;
esac
