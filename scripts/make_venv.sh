#!/usr/bin/env bash
# Make the virtual environment $1 unless a whole one is there already. PYTHON=… chooses the interpreter.
set -euo pipefail
venv=$1

works() { "$@" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if works "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  exit 0
fi

for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
  if works "$candidate"; then
    chosen=$candidate
    break
  fi
done
if [ -z "${chosen:-}" ]; then
  echo "setup: moveout needs Python 3.11 or newer; found: $(python3 --version 2>&1 || true)." >&2
  echo "setup: install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
  exit 1
fi

echo "setup: making $venv with $("$chosen" --version) ..."
if ! output=$("$chosen" -m venv --clear "$venv" 2>&1); then
  rm -rf "$venv"
  printf '%s\n' "$output" >&2
  echo "setup: '$chosen -m venv' does not work here; on Debian and Ubuntu: apt-get install python3-venv" >&2
  exit 1
fi
