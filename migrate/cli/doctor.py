"""``moveout doctor``: what would go wrong, before the clock starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer
from msgspec import Struct, field
from msgspec.structs import replace
from rich.table import Table

from exporters import _rows
from exporters.doctor import SEVERITIES, Finding, Fix
from exporters.structs import as_dict
from migrate.case.deadline import names_no_zone, parse_deadline
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import bare_server
from migrate.cli import app
from migrate.cli.common.options import CaseFileHere, SourcePairs, case_here
from migrate.cli.common.session import Session, export_workers
from migrate.cli.common.sources import chosen_sources, destinations_in, expanded, load_case, typed_sources
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.discover.left_behind import servers_without_sources
from migrate.doctor import iam
from migrate.doctor.fix_scripts import make_scripts, write_scripts
from migrate.doctor.run import Examinations, Examined, MoveEndpoints, examine_all
from migrate.number_text import things

_STYLES = {"blocks": "bold red", "loses": "red", "slow": "yellow", "info": "cyan"}
_COLUMNS_FROM = ((74, range(5)), (56, (0, 2, 3)), (0, (0,)))
"""From which width on the table has which columns."""
_NAME_WIDTHS = 12, 20
"""About a fifth of the terminal, from so many characters to so many. A longer name takes several lines, so that the
words next to it stay whole.
"""
_SHOWN = 12
"""Findings that are printed of one check of one source; all are in the JSON and in the scripts."""
_SHOWN_INFO = 2
"""How many findings that cost nothing are printed, of all sources that have the same."""
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "source": ("server", "TLS", "rights", "snapshot", "changes"),
    "destination": ("server", "TLS", "rights", "ready", ""),
    "location": ("server", "room", "rights", "lock", "parts"),
}
"""What stands in the columns of the table, by what is examined."""


class Diagnosis(Struct, frozen=True):
    """All examinations. ``scripts`` are the files that were written. ``only_findings``: without the table.
    ``case_option`` names the case file, where there is one.
    """

    examinations: Examinations
    scripts: Sequence[Path] = ()
    only_findings: bool = False
    case_option: str = ""

    @property
    def exit_code(self) -> int:
        """0; 3 where something will be missing; the error's where something cannot be examined at all."""
        return self.examinations.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return every fact and every finding."""
        return {
            "examined": [
                {
                    "kind": entry.kind,
                    "name": entry.name,
                    "url": entry.url,
                    "facts": dict(entry.examination.facts),
                    "size_bytes": entry.examination.size_bytes,
                    "error": entry.examination.error.code if entry.examination.error else None,
                    "findings": [as_dict(finding) for finding in entry.examination.findings],
                }
                for entry in self.examinations.examined
            ],
            "findings": dict(_count(self.examinations.examined)),
            "row_path": _rows.row_path(),
            "scripts": [str(path) for path in self.scripts],
        }

    def draw(self, console: Console) -> None:
        """Print the table, then the findings, the worst first."""
        examined = self.examinations.examined
        if not self.only_findings:
            console.print(_table(examined, console.width))
            console.print()
            for entry in examined:
                if entry.kind == "deadline":
                    here = entry.examination.facts["here"]
                    console.print(f"deadline {entry.url}" + (f", here {here}" if here != entry.url else ""))
        for severity in SEVERITIES:
            _draw_findings(console, examined, severity)
        counted = [f"{severity} {count}" for severity, count in _count(examined) if count]
        console.print(f"{things(len(examined), 'examination')}: {', '.join(counted) or 'nothing was found'}.")
        console.print(f"Rows of tables will be read by {_rows.row_path()} code.", style="dim")
        for path in self.scripts:
            console.print(f"fixes: {path}")
        fixes = [finding.fix for entry in examined for finding in entry.examination.findings if finding.fix]
        if not self.scripts and any(fix.kind != "advice" for fix in fixes):
            command = f"moveout doctor {self.case_option}" if self.case_option else "the same command with"
            console.print(
                f"→ {command} --fixes fixes writes the fixes, a script for each server.", style="dim"
            )


def _count(examined: Iterable[Examined]) -> list[tuple[str, int]]:
    severities = [finding.severity for entry in examined for finding in entry.examination.findings]
    return [(severity, severities.count(severity)) for severity in SEVERITIES]


def _table(examined: Sequence[Examined], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    shown = next(columns for wide, columns in _COLUMNS_FROM if width >= wide)
    for number in range(len(shown) + 2):
        table.add_column(overflow="fold", no_wrap=number <= 1)
    least, most = _NAME_WIDTHS
    name_width = max(least, min(most, width // 5 - 1))
    tabulated = [entry for entry in examined if entry.kind in _COLUMNS]
    for number, (kind, group) in enumerate(groupby(tabulated, key=lambda entry: entry.kind)):
        if number:
            table.add_row()
        columns = [_COLUMNS[kind][column] for column in shown]
        table.add_row(kind, *columns, "worst", style="bold")
        for entry in group:
            cells = [Text(entry.examination.facts.get(column, "")) for column in columns]
            worst = Text(entry.worst, _STYLES[entry.worst]) if entry.worst else Text("ok", "green")
            table.add_row(Text("\n".join(wrap(_host_of(entry.name), name_width))), *cells, worst)
    return table


def _host_of(name: str) -> str:
    """Return a name, but of a URL (that of a server without sources) what fits a narrow column."""
    return name.partition("://")[2].rpartition("@")[2] or name


def _draw_findings(console: Console, examined: Sequence[Examined], severity: str) -> None:
    """Print the findings of one severity. What is said of several sources of a server is printed once."""
    names: dict[Finding, dict[str, Finding]] = {}
    for entry in examined:
        for finding in entry.examination.findings:
            if finding.severity == severity:
                label = entry.name if entry.kind == entry.name else f"{entry.kind} {entry.name}"
                names.setdefault(_of_server(finding), {})[label] = finding
    groups: dict[Any, list[tuple[Finding, list[str]]]] = {}
    for shared, by_label in names.items():
        named = [*by_label]
        finding = shared if len(named) > 1 else by_label[named[0]]
        kin = (finding.consequence,) if severity == "info" else (*named,)
        groups.setdefault((finding.check, kin), []).append((finding, named))
    shown = _SHOWN_INFO if severity == "info" else _SHOWN
    for similar in groups.values():
        for finding, named in similar[:shown]:
            _draw_finding(console, finding, ", ".join(named))
        if len(similar) > shown:
            more = f"       and {len(similar) - shown:,} more like these (all with --json or --fixes)"
            console.print(more, style="dim")


def _of_server(finding: Finding) -> Finding:
    """Return a finding of a database or bucket as one of its server: a wrong profile or password is that of all."""
    if "://" not in finding.object:
        return finding
    server = bare_server(finding.object)
    return replace(finding, object=server, problem=finding.problem.replace(finding.object, server))


def _draw_finding(console: Console, finding: Finding, named: str) -> None:
    style = _STYLES[finding.severity]
    console.print(Text.assemble((f"{finding.severity:<7}", style), (named, "bold")))
    _draw_prose(console, finding.named_problem)
    _draw_prose(console, finding.consequence)
    if finding.fix is None:
        return
    if finding.fix.kind == "advice":
        _draw_prose(console, f"→ {finding.fix.text}")
        return
    where, lines = f"on {finding.fix.server}: " if finding.fix.server else "", _fix_lines(finding.fix)
    if where and console.is_terminal and len(f"       → {where}{lines[0]}") > console.width:
        lines = ["", *lines]
    for number, line in enumerate(lines):
        before = (f"       → {where}", "dim") if number == 0 else "         "
        console.print(Text.assemble(before, line), wrap=False)


def _draw_prose(console: Console, text: str) -> None:
    """Print a sentence, indented."""
    console.print(Text(f"       {text}"))


def _fix_lines(fix: Fix) -> Sequence[str]:
    """Return a fix as it is printed: a policy in short, for its JSON is long."""
    return iam.summary(fix.text) if fix.kind == "iam" else fix.text.splitlines()


class DoctorOptions(Struct, frozen=True):
    """What the command line says. ``locations`` by what they are for; without them those of the case. ``unfilled``:
    sources that come up nowhere yet, by their server.
    """

    locations: Mapping[str, Endpoint] | None = None
    deadline: str | None = None
    fixes: Path | None = None
    unfilled: Mapping[str, Sequence[str]] = field(default_factory=dict)


def run_doctor(
    session: Session,
    sources: Mapping[str, Endpoint],
    case: Case | None,
    options: DoctorOptions,
    *,
    only_findings: bool = False,
) -> Diagnosis:
    """Examine everything that a move touches. ``sources`` and the destinations of the case name no whole servers."""
    written = options.deadline
    until = parse_deadline(written) if written else (case.deadline if case else None)
    is_local = names_no_zone(written) if written else bool(case and case.deadline_is_local)
    workers = session.workers(case, default=export_workers())
    locations = _locations_of(case) if options.locations is None else options.locations
    destinations = case.destinations if case else {}
    servers = servers_without_sources(case, sources) if case else []
    move = MoveEndpoints(
        sources=sources,
        destinations=destinations,
        locations=locations,
        workers=workers,
        deadline=until,
        deadline_is_local=is_local,
        unfilled=options.unfilled,
        without_sources=servers,
        case_option=case.option if case else "",
    )
    looked_at = [*sources.values(), *destinations.values(), *locations.values(), *servers]
    with session.going_on_without_silent(*looked_at):
        examinations = examine_all(move, progress=session.progress)
    findings = [finding for entry in examinations.examined for finding in entry.examination.findings]
    scripts = write_scripts(options.fixes, make_scripts(findings)) if options.fixes else []
    return Diagnosis(examinations, scripts, only_findings, move.case_option)


def _locations_of(case: Case | None) -> dict[str, Endpoint]:
    """Return the locations of a case by what they are for."""
    named = {"bundle": case.bundle, "transfer": case.transfer_to} if case else {}
    return {name: endpoint for name, endpoint in named.items() if endpoint is not None}


@verb(
    app,
    "doctor",
    examples=(
        "doctor -c moveout.toml",
        "doctor -c moveout.toml --fixes fixes",
        'doctor postgresql://me@old/app "s3://media?profile=old" --to bundle',
    ),
)
def doctor_command(
    session: Session,
    pairs: SourcePairs = None,
    case: CaseFileHere = None,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="LOCATION", help="Where the bundle will be written.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="T", help="A time, or 30h, 90m, 2d from now.")
    ] = None,
    fixes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write all fixes into this directory, one script a server."),
    ] = None,
) -> Diagnosis:
    """Say what would go wrong, and how to repair it.

    Examines every source, destination and location at once. Servers are only read; small test files are written to
    locations and destination buckets, and removed. Exit code 3: something will be missing.
    """
    loaded = load_case(case_here(case, pairs))
    sources = expanded(session, chosen_sources(typed_sources(pairs or [], loaded), loaded), loaded)
    locations = {"bundle": Endpoint(to)} if to else None
    if loaded is None:
        return run_doctor(session, sources, None, DoctorOptions(locations, deadline, fixes))
    destinations = destinations_in(loaded, sources)
    options = DoctorOptions(locations, deadline, fixes, destinations.unfilled)
    return run_doctor(session, sources, replace(loaded, destinations=destinations.endpoints), options)
