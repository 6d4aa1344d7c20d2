#!/usr/bin/env bash
# Makes .venv of this checkout, or with DEVICE=gpu one for GPUs; what `make env` runs. PYTHON=... chooses the interpreter. An
# environment keeps its DEVICE until another one is given. Everything else is in install.py.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A candidate is run, not just found: a version manager's shim exists for versions that are not installed.
suits() { "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

for python in ${PYTHON:-python3.12 python3.11 python3 python}; do
  suits "$python" && exec "$python" -m locks.install --venv .venv ${DEVICE:+--device "$DEVICE"}
done
if [ -n "${PYTHON:-}" ]; then
  echo "env: error: PYTHON=$PYTHON is not a working Python 3.11 or 3.12 with its venv module" >&2
else
  echo "env: error: no Python 3.11 or 3.12 with its venv module found; install one (apt-get install python3 python3-venv python3-dev)" \
    "or name it with PYTHON=..." >&2
fi
exit 1
