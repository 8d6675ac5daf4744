"""``--dry-run``: what a command would do, and what speaks against it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from exporters.structs import as_dict
from migrate.cli.common.terminal import Console, Text, plain
from migrate.errors import OK

if TYPE_CHECKING:
    from migrate.doctor.run import Examined

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


class WouldDo(Struct, frozen=True):
    """What a command would do; ``problems`` speak against it."""

    location: str
    actions: Sequence[str]
    problems: Sequence[str] = ()
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return all fields."""
        return as_dict(self) | {"dry_run": True}

    def draw(self, console: Console) -> None:
        """Print what would be done, then the problems."""
        for action in self.actions:
            console.print(Text(plain(action)))
        for problem in self.problems:
            console.print(Text(f"! {plain(problem)}", style="yellow"))
        console.print("Nothing was touched.")


def problems_of(examined: Sequence[Examined], allowed: Collection[str] = ()) -> list[str]:
    """Return what examinations say against it. ``allowed``: checks whose findings an option permits."""
    return [
        f"{entry.name}: {finding.problem}. {finding.consequence}"
        for entry in examined
        for finding in entry.examination.findings
        if finding.severity in {"blocks", "loses"} and finding.check not in allowed
    ]
