"""A MySQL server of our own, as distinct from MariaDB.

Debian's unstable distribution has one. Its packages, and all libraries that they need, are fetched by apt from the
mirror that this machine uses anyway and unpacked under our cache. Nothing is installed and nothing of the machine is
used, so it does not matter how old that is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.binaries import cache_dir, only_one, run, say
from scripts.mariadb import Store, write_accounts
from scripts.process import ServerError

SUITE, SERVER = "sid", "mysql-server-core"


@dataclass(frozen=True, slots=True)
class Tree:
    """The unpacked packages."""

    root: Path

    @property
    def command(self) -> list[str | Path]:
        """The server program, started by the loader and with the libraries that came with it."""
        libraries = [self.root / "usr/lib/x86_64-linux-gnu", self.root / "usr/lib/mysql/private"]
        (loader,) = (self.root / "usr/lib64").glob("ld-linux-*.so.*")
        return [
            loader,
            "--library-path",
            os.pathsep.join(map(str, libraries)),
            self.root / "usr/sbin/mysqld",
            "--no-defaults",
            f"--basedir={self.root / 'usr'}",
            f"--lc-messages-dir={self.root / 'usr/share/mysql'}",
            f"--character-sets-dir={self.root / 'usr/share/mysql/charsets'}",
            f"--plugin-dir={self.root / 'usr/lib/mysql/plugin'}",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]


def find_mysql() -> Tree:
    """Return the unpacked server, fetched first where our cache has none. Raises ``ServerError``."""
    root = cache_dir() / "mysql"
    if not root.exists():
        with only_one("mysql"):
            if not root.exists():
                _fetch(root)
    return Tree(root)


def make_store(name: str, password: str, borrow: Callable[[str], Path]) -> Store:
    """Make a data directory. Raises ``ServerError``. ``borrow`` as in ``mariadb.make_store``."""
    tree = find_mysql()
    home = borrow(f"moveout-{name}-")
    (home / "tmp").mkdir()
    program = [*tree.command, f"--secure-file-priv={home / 'tmp'}", "--mysqlx=OFF"]
    run(
        f"making a data directory for {name}",
        [*program, "--initialize-insecure", f"--datadir={home / 'data'}"],
    )
    write_accounts(home, password)
    return Store(program, home)


def _fetch(root: Path) -> None:
    if not shutil.which("apt-get"):
        raise ServerError("MySQL is fetched by apt, which this machine has not")
    say("fetching MySQL and its libraries: once, about 150 MB ...")
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="fetch-mysql-") as name:
        scratch = Path(name)
        for folder in ("lists/partial", "archives/partial"):
            (scratch / folder).mkdir(parents=True)
        (scratch / "status").touch()
        (scratch / "sources").write_text(f"deb {_mirror()} {SUITE} main\n")
        options = [
            f"-oDir::Etc::sourcelist={scratch / 'sources'}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State::lists={scratch / 'lists'}",
            f"-oDir::State::status={scratch / 'status'}",
            f"-oDir::Cache={scratch}",
            f"-oDir::Cache::archives={scratch / 'archives'}",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Languages=none",
        ]
        run("asking for packages", ["apt-get", *options, "-q", "update"])
        arguments = ["install", "-q", "--yes", "--download-only", "--no-install-recommends", SERVER]
        run("fetching MySQL", ["apt-get", *options, *arguments])
        for package in (scratch / "archives").glob("*.deb"):
            run(f"unpacking {package.name}", ["dpkg-deb", "--extract", str(package), str(scratch / "tree")])
        (scratch / "tree").rename(root)
    say(f"MySQL is ready: {root}")


def _mirror() -> str:
    """Return where this machine gets Debian's packages."""
    form = ["--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]
    for line in run("asking for the mirror", ["apt-get", "indextargets", *form]).splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":
            return uri
    raise ServerError("this machine has no mirror of Debian in its list of sources")
