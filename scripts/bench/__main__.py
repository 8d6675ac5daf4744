"""``make bench``: the benchmarks one after the other, each in a process of its own, each against another tool.

``make bench ARGS=transfer`` runs one of them. For their own options call them: ``python -m scripts.bench.transfer -h``.
``--quick`` takes a few minutes for each of those that it knows, on a busy machine too: less data, fewer turns.
At the end stands a table of all ratios, with their targets.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.bench import ratios
from scripts.process import ServerError
from scripts.servers import Servers, environment_for

NAMES = (
    "objects",
    "listing",
    "sync",
    "transfer",
    "postgres",
    "source.row_shapes",
    "source.load",
    "restore",
    "many_tables",
    "mysql",
    "sqlite",
    "moves",
    "memory",
    "million",
    "custody",
)
_WITH_POSTGRES = ("postgres", "source.row_shapes", "source.load", "restore", "many_tables")
_WITH_MARIADB = ("mysql",)
_QUICK = {
    "objects": ("--objects", "5000", "--runs", "2"),
    "transfer": ("--large", "2", "--runs", "1"),
    "postgres": ("--scale", "0.1", "--runs", "1"),
    "source.row_shapes": ("--shapes", "narrow,types", "--runs", "1"),
    "source.load": ("--scale", "0.05", "--runs", "1"),
    "many_tables": ("--tables", "100", "--runs", "1"),
    "mysql": ("--scale", "0.1", "--runs", "1"),
    "sqlite": ("--rows", "200000", "--runs", "1"),
    "restore": ("--scale", "0.1", "--runs", "1"),
    "moves": (
        *("--scale", "0.05", "--runs", "1", "--data", "lineitem"),
        *("--tools", "pgcopydb", "pg_dump, pg_restore", "mariadb-dump", "mydumper"),
    ),
}
"""Options with which a benchmark takes minutes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measure moveout compared with other tools."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"less of each of {', '.join(_QUICK)}")
    options = parser.parse_args(argv)
    names = options.names or (tuple(_QUICK) if options.quick else NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; known are {', '.join(NAMES)}")
    with tempfile.NamedTemporaryFile(prefix="moveout-bench-") as file:
        os.environ[ratios.FILE] = file.name
        try:
            failed = [
                name for name in names if _run(name, _QUICK.get(name, ()) if options.quick else ()) != 0
            ]
        except ServerError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            _print_ratios(Path(file.name), is_whole=not options.quick)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _print_ratios(file: Path, *, is_whole: bool) -> None:
    if measured := ratios.noted(file):
        print("\n== How many times as fast as others, and the target")
        print(ratios.table(measured))
        if not is_whole:
            print("The targets are for the data without --quick.")


def _run(name: str, arguments: Sequence[str]) -> int:
    """Run one benchmark with these options, and return its exit code. A database's needs a server, others start their
    own.
    """
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-m", f"scripts.bench.{name}", *arguments]
    if name not in _WITH_POSTGRES + _WITH_MARIADB:
        return subprocess.run(command, check=False).returncode
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        url = (servers.mariadb("mariadb") if name in _WITH_MARIADB else servers.postgres("postgres")).url
        return subprocess.run([*command, "--url", url], check=False, env=environment_for(servers)).returncode


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
