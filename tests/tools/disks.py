"""Small disks."""

from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import pytest


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    mounted = run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(
            f"NOT TESTED: a full disk needs the right to mount one: {mounted.stderr.decode().strip()}"
        )
    yield path
    run(["umount", str(path)], check=True)


def grow(path: Path) -> None:
    """Make a small disk large enough."""
    resize(path, "256m")


def resize(path: Path, size: str) -> None:
    """Give a small disk another size, as ``mount`` names it."""
    run(["mount", "-o", f"remount,size={size}", str(path)], check=True)
