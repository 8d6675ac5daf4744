"""Debian packages, source and binary, unpacked into our cache without installing them.

The machine's own package sources are used. Where they do not list source packages, a copy of them that does is kept in
the cache, so the machine's configuration stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.binaries import cache_dir, only_one, say
from scripts.outsiders.suite import Skipped

_APT = Path("/etc/apt")
_LISTS_STAY_FRESH_SECONDS = 24 * 3600


def fetch_source(package: str, version: str = "") -> Path | Skipped:
    """Return the unpacked upstream source of a source package. ``version`` is the upstream version to prefer."""

    def unpack(directory: Path, destination: Path) -> None:
        (archive,) = directory.glob("*.orig.tar.*")
        with tarfile.open(archive) as tar:
            tar.extractall(destination, filter="tar")

    return _fetch(package, version, "source", ("source", "--download-only"), unpack)


def fetch_package(package: str, version: str = "") -> Path | Skipped:
    """Return the unpacked files of a binary package. ``version`` is the upstream version to prefer."""

    def unpack(directory: Path, destination: Path) -> None:
        (archive,) = directory.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, destination], check=True)

    return _fetch(package, version, "package", ("download",), unpack)


def _fetch(
    package: str, version: str, kind: str, command: Sequence[str], unpack: Callable[[Path, Path], None]
) -> Path | Skipped:
    parent = cache_dir() / "outsiders" / f"{kind}-{package}"
    with only_one(f"outsiders-{kind}-{package}"):
        cached = _cached(parent, version)
        if cached is not None:
            return cached
        if shutil.which("apt-get") is None:
            return Skipped(f"there is no apt-get to fetch {package} with")
        say(f"fetching the {kind} {package} from the machine's package sources ...")
        return _download(parent, package, version, command, unpack)


def _cached(parent: Path, version: str) -> Path | None:
    """Return what an earlier run unpacked: of the version wanted, else of any."""
    directories = sorted(parent.glob("*")) if parent.exists() else []
    matching = [path for path in directories if version and path.name == version]
    chosen = matching or directories
    return chosen[0] if chosen else None


def _download(
    parent: Path, package: str, version: str, command: Sequence[str], unpack: Callable[[Path, Path], None]
) -> Path | Skipped:
    options = _apt_options()
    failure = _update_lists(options)
    if failure:
        return Skipped(f"apt-get update fails: {failure}")
    names = _versions(options, package, source=command[0] == "source")
    names.sort(key=lambda name: upstream_version(name) != version)
    if not names:
        return Skipped(f"the machine's package sources have no {package}")
    parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory(dir=parent.parent) as scratch:
            down, up = Path(scratch) / "down", Path(scratch) / "up"
            down.mkdir()
            up.mkdir()
            argv = ["apt-get", *options, "-qq", *command, f"{package}={name}"]
            failure = _failure(argv, down)
            if failure:
                continue  # an index may name a file that its server has replaced
            unpack(down, up)
            destination = parent / upstream_version(name)
            up.rename(destination)
            return destination
    return Skipped(f"apt-get cannot fetch {package}: {failure}")


def upstream_version(version: str) -> str:
    """Return a Debian version without its epoch and revision: 15.18 of 1:15.18-0+deb12u1."""
    return version.partition(":")[2].rpartition("-")[0] if ":" in version else version.rpartition("-")[0]


def _apt_options() -> list[str]:
    """Return options by which apt reads a copy of the machine's package sources that lists source packages too."""
    home = cache_dir() / "outsiders" / "apt"
    for name in ("lists/partial", "archives/partial", "sources"):
        (home / name).mkdir(parents=True, exist_ok=True)
    for path in [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]:
        if path.suffix in {".list", ".sources"} and path.exists():
            (home / "sources" / path.name).write_text(with_sources(path.read_text()))
    settings = {
        "Dir::Etc::sourcelist": os.devnull,
        "Dir::Etc::sourceparts": home / "sources",
        "Dir::State::lists": home / "lists",
        "Dir::Cache": home,
        "APT::Sandbox::User": "",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def with_sources(text: str) -> str:
    """Return a list of package sources, of either format, in which each entry has its source packages too."""
    text = re.sub(r"(?mi)^types:.*$", "Types: deb deb-src", text)
    return re.sub(r"(?m)^deb(\s.*)$", r"deb\1\ndeb-src\1", text)


def _update_lists(options: Sequence[str]) -> str:
    """Bring the package lists up to date once a day; return why that failed, or ""."""
    stamp = cache_dir() / "outsiders" / "apt" / "updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_STAY_FRESH_SECONDS:
        return ""
    failure = _failure(["apt-get", *options, "-qq", "update"], stamp.parent)
    if not failure:
        stamp.touch()
    return failure


def _versions(options: Sequence[str], package: str, *, source: bool) -> list[str]:
    argv = ["apt-cache", *options, "madison", package]
    completed = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = [[word.strip() for word in line.split("|")] for line in completed.stdout.splitlines()]
    names = [line[1] for line in lines if len(line) == 3 and line[2].endswith("Sources") == source]
    return list(dict.fromkeys(names))


def _failure(argv: Sequence[str | Path], directory: Path) -> str:
    """Run apt; return the last line of its errors, or "" where it succeeds."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    completed = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    if completed.returncode == 0:
        return ""
    errors = [line for line in completed.stderr.splitlines() if line.startswith("E:")]
    return errors[0] if errors else f"exit code {completed.returncode}"
