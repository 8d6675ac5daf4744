"""``moveout run``: the whole move in order, skipping what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.rule import Rule

from migrate.bundle import layout
from migrate.case import Case, Endpoint
from migrate.cli import app
from migrate.cli.export import run_export
from migrate.cli.plan import run_plan
from migrate.cli.restore import run_restore
from migrate.cli.session import Answer, Session, verb
from migrate.cli.sources import load_case
from migrate.cli.transfer import run_transfer
from migrate.cli.verify import run_verify
from migrate.errors import OK, DeadlineError, GoneError, IncompleteError, UsageError
from migrate.export import ExportOptions
from migrate.store import open_place
from migrate.verify import Level

_GOES_ON = {OK, IncompleteError.exit_code, DeadlineError.exit_code}
"""A late forecast and a bundle with gaps stop nobody: what there is must still leave."""


@dataclass(frozen=True, slots=True)
class Step:
    """One verb of the move, and what it came to; None where it was done before."""

    name: str
    answer: Answer | None

    @property
    def exit_code(self) -> int:
        """The verb's."""
        return self.answer.exit_code if self.answer else OK


@dataclass(frozen=True, slots=True)
class Evacuated:
    """All steps."""

    case: str
    steps: tuple[Step, ...]

    @property
    def exit_code(self) -> int:
        """The last step's where it stopped the move, else 3 where the bundle has gaps, else 0."""
        if self.steps[-1].exit_code not in _GOES_ON:
            return self.steps[-1].exit_code
        gaps = any(step.exit_code == IncompleteError.exit_code for step in self.steps)
        return IncompleteError.exit_code if gaps else OK

    def as_json(self) -> dict[str, Any]:
        """Return each step's result."""
        steps = [
            {
                "step": step.name,
                "exit_code": step.exit_code,
                "result": step.answer.as_json() if step.answer else None,
            }
            for step in self.steps
        ]
        return {"case": self.case, "steps": steps}

    def draw(self, console: Console) -> None:
        """Say how it ended; the steps were drawn as they went."""
        words = {
            OK: "Everything is out, verified and up again.",
            3: "Everything that could be had is out; see the gaps above.",
        }
        console.print(
            words.get(
                self.exit_code, f"Stopped at {self.steps[-1].name}; once that is mended, run the same again."
            )
        )


@verb(app, "run")
def run_command(
    session: Session,
    case: Annotated[
        Path, typer.Option("--case", "-c", metavar="CASE", help="The case file, moveout.toml.")
    ] = Path("moveout.toml"),
) -> Evacuated:
    """Do all of it in order, skipping what is done.

    Plan, export, transfer, verify, restore, and compare what was restored.
    """
    loaded = load_case(case)
    if loaded is None or loaded.bundle is None or not loaded.sources:
        raise UsageError(
            f"{case} must say [[source]] and [bundle]", next_step="see what `moveout init` writes"
        )
    done: list[Step] = []
    for name, work in _steps(session, loaded, loaded.bundle):
        session.err.print(Rule(name, align="left"))
        step = Step(name, work())
        session.progress.end()
        done.append(step)
        if step.answer is None:
            session.err.print("done before")
        elif not session.json:
            step.answer.draw(session.out)
        if step.exit_code not in _GOES_ON:
            break
    return Evacuated(loaded.name, tuple(done))


def _steps(
    session: Session, case: Case, bundle: Endpoint
) -> Iterator[tuple[str, Callable[[], Answer | None]]]:
    """Yield the verbs of the move. A bundle that is sealed somewhere is not exported again: the source may
    be gone by now.
    """
    away = case.target is not None and _is_sealed(case.target)
    out = away or _is_sealed(bundle)
    last = case.target or bundle
    options = ExportOptions(seal_incomplete=True)
    if not out:
        yield "plan", lambda: run_plan(session, case.sources, case, case.deadline)
    yield "export", lambda: None if out else run_export(session, case.sources, bundle, case, options)
    if case.target is not None:
        target = case.target
        yield "transfer", lambda: None if away else run_transfer(session, bundle, target, case, recheck=False)
    yield "verify", lambda: run_verify(session, last, Level.FULL, {}, case)
    if case.restores:
        yield "restore", lambda: run_restore(session, last, case.restores, case, merge=False)
        yield "compare", lambda: run_verify(session, last, Level.QUICK, case.restores, case)


def _is_sealed(place: Endpoint) -> bool:
    store = open_place(place.url, secrets=place.reveal())
    try:
        store.stat(layout.BAGIT)
        store.stat(layout.TAG_MANIFEST)
    except GoneError:
        return False
    return True
