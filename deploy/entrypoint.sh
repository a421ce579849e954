#!/bin/sh
# Run a command with each file of /run/secrets as the variable of its name, and what it writes its user's alone.
set -eu
umask 077
for file in "${SECRETS:-/run/secrets}"/*; do
    [ -f "$file" ] || continue
    value=$(cat "$file")
    export "$(basename "$file")=$value"
done
exec "$@"
