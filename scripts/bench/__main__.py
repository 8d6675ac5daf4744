"""``make bench``: the benchmarks one after the other, each in a process of its own, each against another tool.

``make bench ARGS=transfer`` runs one of them. For their own options call them: ``python -m scripts.bench.transfer -h``.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.process import ServerError
from scripts.servers import Servers, environment_for

NAMES = (
    "objects",
    "listing",
    "sync",
    "transfer",
    "postgres",
    "restore",
    "many_tables",
    "mysql",
    "memory",
    "million",
    "custody",
)
_WITH_POSTGRES = ("postgres", "restore", "many_tables")
_WITH_MARIADB = ("mysql",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure moveout beside other tools.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    names = parser.parse_args(argv).names or NAMES
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; known are {', '.join(NAMES)}")
    try:
        failed = [name for name in names if _run(name) != 0]
    except ServerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str) -> int:
    """Run one benchmark, return its exit code; a database's needs a server that others start for themselves."""
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-m", f"scripts.bench.{name}"]
    if name not in _WITH_POSTGRES + _WITH_MARIADB:
        return subprocess.run(command, check=False).returncode
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        url = (servers.mariadb("mariadb") if name in _WITH_MARIADB else servers.postgres("postgres")).url
        return subprocess.run([*command, "--url", url], check=False, env=environment_for(servers)).returncode


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
