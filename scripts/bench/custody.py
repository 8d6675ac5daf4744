"""What the proofs cost: a million index rows become a sealed, signed bundle with its tree, and some of them a proof.

    python -m scripts.bench.custody [--objects 1000000]

Every command runs in a process of its own. Printed are the clock's seconds, the processor's, and the peak of its memory
(``ru_maxrss``); the exit code is 1 where one goes above its bar. The bars are judged by the processor's seconds: other
work on the machine makes the clock's longer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from migrate.bundle import layout
from migrate.errors import GoneError
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from scripts.bench.turns import beside
from scripts.cost import MB, Cost, cost_of
from scripts.shelf import LONG_KEYS, ODD_KEY, Shelf
from tests.faults import Fault, FaultPlan, Faulty, fail

SEAL_SECONDS, SEAL_MB = 30, 400
PROOF_BYTES, CHECK_SECONDS = 4096, 0.1
SCRIPT = Path(__file__).parents[2] / "docs" / "check_proof.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.custody", description="Measure proofs.")
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--leave", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.leave:
        leave(Path(options.leave), options.objects)
        return 0
    with tempfile.TemporaryDirectory(prefix="moveout-bench-") as directory:
        return measure(Path(directory), options.objects)


def leave(location: Path, objects: int) -> None:
    """Export so many objects, and die before the seal."""
    store = open_location(str(location))
    broken = Faulty(store, FaultPlan(Fault("put", fail(GoneError("it ends here")), prefix=layout.CATALOG)))
    with suppress(GoneError):
        export([Shelf(objects, odd=(*LONG_KEYS, ODD_KEY))], broken, workers=1, progress=Silent())


def measure(directory: Path, objects: int) -> int:
    """Seal, prove and check; return 1 where a bar is missed."""
    location, key_file = directory / "bundle", directory / "host.key"
    moveout, python = beside("moveout"), sys.executable
    taken(
        [python, "-m", "scripts.bench.custody", "--leave", location, "--objects", objects],
        "made (not measured)",
    )
    taken([moveout, "keys", "init", key_file, "--name", "host"], "a key")
    seal = taken(
        [moveout, "seal", location, "--key", key_file, "-q"], f"seal, tree and signature, {objects:,} rows"
    )
    taken([moveout, "prove", location, ODD_KEY, "--to", directory, "-q"], "prove one object")
    for key in LONG_KEYS:
        taken(
            [moveout, "prove", location, key, "--to", directory, "-q"],
            f"prove one with a long key of {key[0]!a}",
        )
    proofs = sorted(directory.glob("*.tlog-proof"), key=lambda file: file.stat().st_size)
    sizes = [file.stat().st_size for file in proofs]
    public = f"{key_file}.pub"
    (directory / "allowed").write_text(f"host {Path(public).read_text()}")
    taken(
        [moveout, "check-proof", proofs[-1], "--signers", directory / "allowed", "-q"],
        "check-proof, a whole process",
    )
    start = taken([python, "-I", "-c", "pass"], "Python's own start")
    script = taken([python, "-I", SCRIPT, proofs[-1], public], "check_proof.py, with it")
    check = script.cpu_seconds - start.cpu_seconds
    print(
        f"proofs have {sizes[0]:,} to {sizes[-1]:,} bytes; check_proof.py checks the largest in {check * 1000:.0f} ms"
    )
    bars = {
        f"seal in {SEAL_SECONDS} s of CPU": seal.cpu_seconds <= SEAL_SECONDS,
        f"seal in {SEAL_MB} MB": seal.peak_bytes <= SEAL_MB * MB,
        f"proofs of {PROOF_BYTES} bytes at most": sizes[-1] <= PROOF_BYTES,
        f"checked in {CHECK_SECONDS} s": check < CHECK_SECONDS,
    }
    for bar, holds in bars.items():
        print(f"{'holds' if holds else 'MISSED':8} {bar}")
    return 0 if all(bars.values()) else 1


def taken(argv: Sequence[object], label: str) -> Cost:
    """Run a program; say and return what it took."""
    cost = cost_of([str(word) for word in argv])
    print(f"{label:44} {cost}", flush=True)
    return cost


if __name__ == "__main__":
    sys.exit(main())
