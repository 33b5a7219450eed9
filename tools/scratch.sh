#!/usr/bin/env bash
# usage: scratch.sh [COMMAND...]
# Runs a command whose temporary files lie in a folder of their own, which goes when the command ends. First the folders
# go that were left by runs that were killed: a run and what it started hold a lock on theirs. Without a command, only that.
set -euo pipefail

find /tmp /dev/shm -maxdepth 1 -type d -name 'isthmus-tests-*' -mmin +1 2>/dev/null |
	while read -r dir; do flock --nonblock "$dir" rm -rf "$dir" || true; done || true
(($#)) || exit 0

dir=$(mktemp -d /tmp/isthmus-tests-XXXX)
trap 'rm -rf "$dir"' EXIT
exec {lock}<"$dir"
flock --shared "$lock"
chmod 711 "$dir" # PostgreSQL and some programs of tests run as other users
TMPDIR=$dir "$@"
