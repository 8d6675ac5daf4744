"""``moveout clock``: what has to have happened by when, by rules with their sources."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.bundle.reader import require_files
from migrate.case.deadline import parse_deadline
from migrate.cli import app
from migrate.cli.common.options import CaseFileHere, LocationWord, case_here, known_location
from migrate.cli.common.session import Session
from migrate.cli.common.signing_keys import load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.summary_lines import lines_behind
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.custody import cross_checks, documents
from migrate.custody.log import custody_log
from migrate.custody.obligations import clock, rulebook
from migrate.custody.obligations.clock import Verdict
from migrate.custody.obligations.rulebook import RuleSet
from migrate.errors import OK, DamageError, DeadlineError

Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rules",
        metavar="NAME",
        help=f"{', '.join(rulebook.BUILT_IN)}, or a file with your contract's rules; may be repeated (default:"
        f" {', '.join(rulebook.USUAL)}).",
    ),
]
_STYLES = {"met": "green", "due": "yellow", "breached": "bold red", "unknown": "dim"}
NO_ADVICE = "This is a clock, and no legal advice: it counts by the moments in the custody log."


def load_rules(names: Sequence[str] | None) -> list[RuleSet]:
    """Return the sets of rules that are named, else the usual ones."""
    return [rulebook.load(name) for name in names or rulebook.USUAL]


class Judged(Struct, frozen=True):
    """Every rule and what the log says of it."""

    location: str
    sets: Sequence[tuple[RuleSet, Sequence[Verdict]]]
    notes: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """9 where something is breached."""
        late = any(verdict.state == "breached" for _, verdicts in self.sets for verdict in verdicts)
        return DeadlineError.exit_code if late else OK

    def as_json(self) -> dict[str, Any]:
        """Return every verdict with its source."""
        return {
            "location": self.location,
            "note": NO_ADVICE,
            "notes": list(self.notes),
            "rules": [
                {
                    "set": rules.id,
                    "source": rules.source,
                    "checked": rules.checked,
                    "article": verdict.rule.article,
                    "says": verdict.rule.says,
                    "state": verdict.state,
                    "due": verdict.due,
                    "why": verdict.why,
                    "entries": list(verdict.entries),
                }
                for rules, verdicts in self.sets
                for verdict in verdicts
            ],
        }

    def draw(self, console: Console) -> None:
        """Print a rule a paragraph."""
        for rules, verdicts in self.sets:
            console.print(Text(rules.title, style="bold"))
            console.print(Text(f"  {rules.source} ({_checked(rules)})", style="dim"))
            for verdict in verdicts:
                shown = f" (entry {', '.join(map(str, verdict.entries))})" if verdict.entries else ""
                words = f"{verdict.rule.article}: {verdict.why}{shown}"
                for line in lines_behind(console, f"  {verdict.state:<8}  ", words, 4):
                    console.print(Text(line, _STYLES[verdict.state]))
                console.print(Text(f"            {verdict.rule.says}", style="dim"))
        for note in self.notes:
            console.print(Text(f"Note: {note}", style="yellow"))
        console.print(NO_ADVICE)


def _checked(rules: RuleSet) -> str:
    return rules.checked if rules.checked == rulebook.NOT_CHECKED else f"checked: {rules.checked}"


@verb(app, "clock", examples=("clock -c case.toml --rules contract.toml",))
def clock_command(
    session: Session,
    words: LocationWord = None,
    *,
    rules: Rules = None,
    at: Annotated[str | None, typer.Option(metavar="T", help="Judge as of this time instead of now.")] = None,
    case: CaseFileHere = None,
) -> Judged:
    """Say of each obligation whether it is met, due or breached.

    Names the entry of the custody log that shows it; without an entry the answer is unknown. With a list of signers
    only entries by its keys count. moveout does not see notices and ends of contracts: record them with `moveout
    custody note`.
    """
    loaded = load_case(case_here(case, words))
    location = known_location(words, loaded)
    store = session.store(location)
    require_files(store)
    log = custody_log.read(store)
    if log.findings:
        first = log.findings[0]
        raise DamageError(
            first.key,
            expected="a custody log in order",
            found=first.what,
            next_step=f"moveout custody verify {shlex.quote(store.location)} says more",
        )
    now = parse_deadline(at) if at else datetime.now(UTC)
    trust, receipts = load_trust(None, loaded), documents.read_all(store, "receipt")[0]
    notes, entries = [*log.notes, *cross_checks.clock_notes(log, receipts, datetime.now(UTC))], log.entries
    if trust is not None:
        strangers, entries = log.uncounted(trust), log.counted(trust)
        sentence = f"is signed by nobody in {trust.source}, and counts for nothing"
        notes += [f"entry {entry.number} {sentence}" for entry in strangers.values()]
    judged = [(rule_set, clock.judge(rule_set, entries, now)) for rule_set in load_rules(rules)]
    return Judged(location.shown, judged, notes)
