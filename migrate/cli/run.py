"""``moveout run``: the whole move in order, skipping what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.rule import Rule

from exporters.errors import SourceError
from migrate.bundle import bundle_json
from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.cluster_options import THREADS, Executor, Scheduler, which_scheduler
from migrate.cli.common.session import Answer, Session, verb
from migrate.cli.common.signing_keys import load_keys
from migrate.cli.common.sources import load_case
from migrate.cli.export import run_export
from migrate.cli.plan import run_plan
from migrate.cli.restore import RestoreOptions, run_restore
from migrate.cli.transfer import run_transfer
from migrate.cli.verify import run_verify
from migrate.custody.signing.keys import Signer
from migrate.errors import OK, IncompleteError, UsageError
from migrate.export import ExportOptions
from migrate.storage.registry import open_location
from migrate.verify import Level

_NEVER_STOPS = "plan"
"""A late forecast stops nobody."""


@dataclass(frozen=True, slots=True)
class CommandStep:
    """One verb of the move, and what it came to; None where it was done before."""

    name: str
    answer: Answer | None

    @property
    def exit_code(self) -> int:
        """The verb's."""
        return self.answer.exit_code if self.answer else OK

    @property
    def stops(self) -> bool:
        """Whether the move cannot go on from here. What is incomplete by name stops nobody: what there is must still
        leave, and come up.
        """
        return self.exit_code not in {OK, IncompleteError.exit_code} and self.name != _NEVER_STOPS


@dataclass(frozen=True, slots=True)
class Evacuated:
    """All steps."""

    case: str
    steps: tuple[CommandStep, ...]

    @property
    def exit_code(self) -> int:
        """The last step's where it stopped the move, else that of the first step that was incomplete, or 0."""
        if self.steps[-1].stops:
            return self.steps[-1].exit_code
        return next(
            (step.exit_code for step in self.steps if step.exit_code and step.name != _NEVER_STOPS), OK
        )

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
        """Print the result of the move. Each step was printed when it ended."""
        if self.steps[-1].stops:
            console.print(f"Stopped at {self.steps[-1].name}; once that is mended, run the same again.")
        elif self.exit_code == OK:
            console.print("Everything is out, and verified." + (" It is up again." if self._is_up else ""))
        else:
            console.print("Everything that could be had is out; see above what is missing.")

    @property
    def _is_up(self) -> bool:
        return self.steps[-1].name == "compare"


@dataclass(frozen=True, slots=True)
class StillIncomplete:
    """A bundle that was sealed with gaps, and whose sources cannot be read any more."""

    reason: str
    exit_code: int = IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return why."""
        return {"complete": False, "reason": self.reason}

    def draw(self, console: Console) -> None:
        """Print the reason."""
        console.print(f"The bundle stays incomplete: {self.reason}")


@verb(app, "run", workers=True, bwlimit=True)
def run_command(
    session: Session,
    case: Annotated[
        Path, typer.Option("--case", "-c", metavar="CASE", help="The case file, moveout.toml.")
    ] = Path("moveout.toml"),
    *,
    executor: Executor = THREADS,
    scheduler: Scheduler = None,
) -> Evacuated:
    """Do all of it in order, skipping what is done.

    Plan, export, transfer, verify, restore, and compare what was restored.
    """
    loaded = load_case(case)
    if loaded is None or loaded.bundle is None or not loaded.sources:
        raise UsageError(
            f"{case} must say [[source]] and [bundle]", next_step="see what `moveout init` writes"
        )
    cluster = which_scheduler(executor, scheduler)
    finished_steps: list[CommandStep] = []
    for name, work in _steps(session, loaded, loaded.bundle, cluster):
        session.err.print(Rule(name, align="left"))
        step = CommandStep(name, work())
        session.progress.end()
        finished_steps.append(step)
        if step.answer is None:
            session.err.print("done before")
        elif not session.json:
            step.answer.draw(session.out)
        if step.stops:
            break
    return Evacuated(loaded.name, tuple(finished_steps))


def _steps(
    session: Session, case: Case, bundle: Endpoint, cluster: str | None
) -> Iterator[tuple[str, Callable[[], Answer | None]]]:
    """Yield the verbs of the move. A complete bundle is not exported again: the source may be gone by now."""
    signers = load_keys(None, None, case)
    destination = case.transfer_to
    away = destination is not None and _sealed(destination) is SealState.COMPLETE
    sealed_state = SealState.COMPLETE if away else _sealed(bundle)
    if sealed_state is SealState.NOT:
        yield "plan", lambda: run_plan(session, case.sources, case, case.deadline)
    yield "export", lambda: _export(session, case, bundle, sealed_state, signers=signers, cluster=cluster)
    if destination is not None:
        yield (
            "transfer",
            lambda: (
                None
                if away
                else run_transfer(
                    session, bundle, destination, case, recheck=False, signers=signers, scheduler=cluster
                )
            ),
        )
    last = destination or bundle
    yield "verify", lambda: run_verify(session, last, Level.FULL, {}, case, keys=signers)
    if case.destinations:
        yield (
            "restore",
            lambda: run_restore(
                session, last, case.destinations, case, RestoreOptions(scheduler=cluster), signers=signers
            ),
        )
        yield "compare", lambda: run_verify(session, last, Level.QUICK, case.destinations, case, keys=signers)


class SealState(Enum):
    """Whether a sealed bundle lies at a location."""

    NOT = "not"
    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


def _sealed(location: Endpoint) -> SealState:
    seal = bundle_json.read_sealed(open_location(location.url, secrets=location.reveal()))
    if seal is None:
        return SealState.NOT
    return SealState.COMPLETE if seal.complete else SealState.INCOMPLETE


def _export(
    session: Session,
    case: Case,
    bundle: Endpoint,
    sealed_state: SealState,
    *,
    signers: Sequence[Signer],
    cluster: str | None,
) -> Answer | None:
    """Export, or go on with an incomplete bundle; where its sources are out of reach by now, leave it as it is."""
    if sealed_state is SealState.COMPLETE:
        return None
    try:
        options = ExportOptions(seal_incomplete=True)
        return run_export(session, case.sources, bundle, case, options, signers=signers, scheduler=cluster)
    except SourceError as exc:
        if sealed_state is SealState.NOT or _sealed(bundle) is SealState.NOT:
            raise
        return StillIncomplete(str(exc))
