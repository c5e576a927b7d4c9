#!/bin/sh
# Make .venv with what requirements.lock names, each file checked against its hash, and darkroom itself.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "darkroom needs Python 3.11 or newer: name it, as in 'make demo PYTHON=python3.12'" >&2
  exit 2
fi
if ! "$python" -m venv .venv 2>/dev/null; then
  # Debian keeps venv's pip in a package of its own.
  rm -rf .venv
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q && apt-get install -qy python3-venv && "$python" -m venv .venv
  else
    echo "'$python -m venv' does not work here: install your system's package for it (on Debian: python3-venv)" >&2
    exit 2
  fi
fi
# uv installs the rest several times faster than pip; pip checks its hash first.
grep -A 40 '^uv==' requirements.lock | awk 'NR > 1 && /^[a-z0-9]/ { exit } { print }' >.venv/uv.lock
.venv/bin/python -m pip install --quiet --require-hashes --no-deps -r .venv/uv.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
