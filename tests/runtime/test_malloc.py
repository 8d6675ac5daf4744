"""Memory that is free goes back to the system, and Arrow shares the heap."""

import platform
import subprocess
import sys

import pytest

_MANY = """
import re, sys
from pathlib import Path
from migrate.runtime import malloc

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

del [bytes(30 * 2**20)][:]  # from now on glibc keeps what is smaller
kept, parts = [], []
for _ in range(8):
    parts.append(bytearray(16 * 2**20))
    parts[-1][:] = b"x" * len(parts[-1])
    kept.append(bytearray(100_000))
before = resident()
parts.clear()
if sys.argv[1] == "given back":
    malloc.give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("what", ["given back", "kept"])
def test_what_buffers_took_is_given_back(what):
    done = subprocess.run(
        [sys.executable, "-c", _MANY, what], capture_output=True, text=True, check=True, timeout=60
    )
    assert (int(done.stdout) > 7 * 16 * 2**20) == (what == "given back")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_arrow_takes_its_buffers_from_the_shared_heap():
    script = (
        "from migrate.runtime import malloc; malloc.share()\n"
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "system"
