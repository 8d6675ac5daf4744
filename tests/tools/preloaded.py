"""Libraries in C that tests load into commands by LD_PRELOAD."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest


def compile_library(name: str, directory: Path) -> Path:
    """Compile ``tests/tools/NAME.c``, return the library; skip and say so where there is no compiler."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if not _compiles(compiler):
        pytest.skip(f"NOT TESTED: {name}.c needs a C compiler")
    library = directory / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*compiler, *options, "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def _compiles(compiler: list[str]) -> bool:
    """Tell whether there is such a compiler: ``CC=false`` names a program that is none."""
    empty = [*compiler, "-E", "-x", "c", os.devnull]
    if shutil.which(compiler[0]) is None:
        return False
    return subprocess.run(empty, check=False, capture_output=True).returncode == 0
