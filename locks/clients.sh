#!/usr/bin/env bash
# Makes .venv-clients from locks/clients.txt; what `make env-clients` runs. At once when there is nothing to do; safe to run again after a
# failure. PYTHON=... chooses the interpreter. Writes to .venv-clients and to pip's cache, nowhere else.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv-clients
stamp=$venv/installed
lock=$root/locks/clients.txt

say() { echo "env-clients: $*"; }
fail() {
  echo "env-clients: error: $*" >&2
  exit 1
}

wanted=$(printf '%s\n' "$root"; cat "$lock" "${BASH_SOURCE[0]}" | sha256sum)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say "up to date"
  exit 0
fi
began=$SECONDS

# A candidate is run, not just found: a version manager's shim exists for versions that are not installed.
suits() { "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }
for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
  if suits "$candidate"; then
    python=$candidate
    break
  fi
done
[ -n "${python:-}" ] || fail "no Python 3.11 or 3.12 with venv found; install one or name it with PYTHON=..."

# Starts from an empty environment: without its resolver, pip keeps what an older lock installed.
"$python" -m venv --clear "$venv" || fail "$python cannot make a virtual environment in $venv"
say "installing $(grep -cv '^#' "$lock") packages"
"$venv/bin/python" -m pip install --no-deps --no-compile --no-input --disable-pip-version-check --progress-bar off -qq -r "$lock" \
  >"$venv/install.log" 2>&1 || {
  cat "$venv/install.log" >&2
  fail "pip could not install the packages (its output is above); run make env-clients again when that is repaired"
}
printf '%s\n' "$wanted" >"$stamp"
say "ready after $((SECONDS - began)) s, $(du -sm "$venv" | cut -f 1) MB"
