"""What an installed moveout consists of."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("migrate", "exporters")


def test_a_wheel_has_every_module_and_every_file_beside_them(tmp_path):
    for name in PACKAGES:
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tmp_path)
    # It makes empty files. The real one takes seconds, and every setup of a checkout runs it.
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done\nexit 0\n')
    compiler.chmod(0o700)
    environment = os.environ | {"CC": str(compiler), "LDSHARED": str(compiler)}
    build = "from setuptools.build_meta import build_wheel; build_wheel('out')"  # what pip calls, too
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, env=environment, check=True)
    (wheel,) = (tmp_path / "out").glob("moveout-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(tmp_path))
        for name in PACKAGES
        for path in (tmp_path / name).rglob("*")
        if path.is_file()
    }
    assert "migrate/report/templates/bundle.html" in expected
    assert expected - packed == set()
