#!/usr/bin/env bash
# Print .env.example with a generated secret in place of every empty value:
#   (umask 077 && deploy/new-env.sh > .env)
set -euo pipefail
cd "$(dirname "$0")/.."

hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

while IFS= read -r line; do
    case $line in
        AIRFLOW_FERNET_KEY=) echo "$line$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" ;;
        AIRFLOW_JWT_SECRET=) echo "$line$(hex 64)" ;; # long enough for HS512
        [A-Z]*=) echo "$line$(hex 24)" ;;
        *) printf '%s\n' "$line" ;;
    esac
done <.env.example
