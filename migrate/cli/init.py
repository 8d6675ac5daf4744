"""``moveout init``: a commented case file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from migrate.case.template import new_text
from migrate.cli import app
from migrate.cli.common.session import Session, verb
from migrate.errors import OK, NotEmptyError
from migrate.storage.local.errors import translate_os


@dataclass(frozen=True, slots=True)
class WrittenCase:
    """The case file that was written."""

    path: Path
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the path."""
        return {"case": str(self.path)}

    def draw(self, console: Console) -> None:
        """Print what to do with it."""
        console.print(
            f"{self.path} is written. Fill in where things are, then: moveout doctor -c {self.path}",
        )


@verb(app, "init")
def init(
    _session: Session,
    path: Annotated[Path, typer.Argument(metavar="CASE", help="Where to write it.")] = Path("moveout.toml"),
) -> WrittenCase:
    """Write a commented case file."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(new_text(datetime.now(UTC)))
    except FileExistsError:
        raise NotEmptyError(
            f"{path} exists already", next_step="edit it, or name another file: moveout init other.toml"
        ) from None
    except OSError as exc:
        raise translate_os(exc, path) from exc
    return WrittenCase(path)
