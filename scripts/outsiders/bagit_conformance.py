"""The Library of Congress's BagIt conformance suite: bags that a validator must refuse, and bags that are whole and not
moveout's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from scripts.outsiders.program import Program
from scripts.outsiders.suite import Context, Skipped, SuiteRow

_VARIABLE = "OUTSIDERS_BAGIT"
_NOT_OURS, _DAMAGED = 2, 6


class BagitConformance:
    """``moveout verify`` on each bag. ``equal``: it was refused, by the code that such a bag is to give."""

    name = "bagit-conformance"
    origin = f"LibraryOfCongress/bagit-conformance-suite, from the checkout that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the checkout."""
        checkout = os.environ.get(_VARIABLE)
        if not checkout:
            return Skipped(
                f"set {_VARIABLE} to a checkout of github.com/LibraryOfCongress/bagit-conformance-suite"
            )
        manifest = next(Path(checkout).glob("v*/*/*/manifest-*"), None)
        return Path(checkout) if manifest else Skipped(f"{_VARIABLE}={checkout}: there is no bag in it")

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Verify each bag; a row for each kind of a version."""
        program = Program.for_servers(context.servers, context.scratch / "verify")
        for kind in sorted(context.material.glob("v*/*")):
            row = SuiteRow(str(kind.relative_to(context.material)))
            for bag in context.choose(sorted(path for path in kind.iterdir() if path.is_dir())):
                if context.out_of_time:
                    break
                _verify(program, bag, row)
            if row.moved:
                yield row


def _verify(program: Program, bag: Path, row: SuiteRow) -> None:
    outcome = program.run("verify", str(bag))
    row.moved += 1
    output = " ".join((outcome.stderr or outcome.stdout).split())
    if outcome.traceback or outcome.exit_code not in {_NOT_OURS, _DAMAGED}:
        row.errors.append(f"{bag.name}: exit code {outcome.exit_code}: {output[:300]}")
    elif bag.parent.name == "valid" and "not one of moveout's" not in output:
        row.unreported.append(f"{bag.name}: a valid bag, of which it is said: {output[:300]}")
    else:
        row.equal += 1


SUITE = BagitConformance()
