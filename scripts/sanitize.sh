#!/usr/bin/env bash
# Run the tests of the compiled core under the address and undefined-behaviour sanitizers of GCC. A copy of the checkout
# gets a core of its own, so that the usual one stays as it is. $1: the virtual environment; the rest goes to pytest.
set -euo pipefail
python=$(cd "$1" && pwd)/bin/python
shift
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r exporters migrate scripts tests pyproject.toml README.md LICENSE "$copy"
rm -f "$copy"/exporters/_rows/*.so "$copy"/migrate/storage/*.so
cd "$copy"

flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
CC=gcc CFLAGS=$flags LDFLAGS=$flags "$python" -c 'from setuptools import setup; setup()' --quiet build_ext --inplace
if ! compgen -G "exporters/_rows/*.so" >/dev/null || ! compgen -G "migrate/storage/*.so" >/dev/null; then
  echo "sanitize: not all of it was built; is there a GCC with its sanitizers?" >&2
  exit 1
fi

# The interpreter is built without the sanitizer, so its library comes first. Servers run without it: some hang below it.
# A Python program that the tests start begins again with it, for the core. What Python keeps to its end is no leak.
library=$(gcc -print-file-name=libasan.so)
cat >sitecustomize.py <<END
import os, sys
if os.environ.pop("LD_PRELOAD", None) is None:
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "LD_PRELOAD": "$library"})
END
LD_PRELOAD=$library ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=$copy \
  "$python" -m pytest -p no:cacheprovider -n 0 tests/exporters/postgres/test_block_parser.py \
  tests/exporters/mysql/test_block_parser.py tests/exporters/mysql/test_protocol_rows.py \
  tests/exporters/sqlite/test_fetched_blocks.py \
  tests/restore/postgres/test_binary_rows.py tests/exporters/postgres/changes/test_pgoutput_rows.py \
  tests/storage/test_checksums.py "$@"
