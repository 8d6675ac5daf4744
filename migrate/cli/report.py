"""``moveout report``: the page about a bundle, with what is known now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from msgspec import Struct
from msgspec.structs import replace

from exporters.lossless_text import path_of
from migrate.bundle import layout
from migrate.bundle.export_state import now
from migrate.bundle.reader import BundleReader
from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.findings import INCOMPLETE
from migrate.cli.common.options import (
    CaseFileHere,
    LocationWord,
    case_here,
    location_and_sources,
    locations_of,
)
from migrate.cli.common.session import Session
from migrate.cli.common.sources import given_destinations, load_case
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.cli.verify import Verified, run_verify
from migrate.custody.log import custody_log
from migrate.custody.signing.bundle_signatures import root_of, signatures
from migrate.errors import OK, GoneError, IncompleteError, MoveoutError, UsageError
from migrate.report.after_seal import add_result, restore_name
from migrate.report.bundle_page import page
from migrate.report.facts import Checked, Event, Later, gather
from migrate.restore.restore_records import IN_PART, UP, RestoreRecord, read_restore_records
from migrate.storage.api import Store
from migrate.storage.local.whole_file import write_whole
from migrate.verify.run import Level


class Reported(Struct, frozen=True):
    """Where the page was written, and what was checked for it."""

    location: str
    file: Path
    verified: Verified | None
    complete: bool = True
    """Whether the bundle says of itself that it is."""
    missing: str = ""
    """Why the page is not about the location that the case has last."""

    @property
    def exit_code(self) -> int:
        """Return that of the verification, where one was made; 3 where the bundle is incomplete, or not where
        the case has it last.
        """
        if self.verified and self.verified.exit_code:
            return self.verified.exit_code
        return OK if self.complete and not self.missing else IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the file and the verification."""
        verified = self.verified.as_json() if self.verified else None
        return {
            "location": self.location,
            "file": str(self.file),
            "complete": self.complete,
            "missing": self.missing,
            "verified": verified,
        }

    def draw(self, console: Console) -> None:
        """Print what was found and where the page is."""
        if self.verified:
            self.verified.draw(console)
        console.print(f"Wrote {self.file}")
        if self.missing:
            console.print(Text(f"! {self.missing}: the page is about {self.location}", style="yellow"))
            console.print("→ moveout transfer brings the bundle there; then write the report again")
        if not self.complete:
            console.print(f"! {INCOMPLETE}", style="yellow")


@verb(
    app,
    "report",
    workers=True,
    bwlimit=True,
    examples=("report -c moveout.toml", "report bundle --against postgresql://me@new/app --out REPORT.html"),
)
def report_command(
    session: Session,
    words: LocationWord = None,
    *,
    case: CaseFileHere = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write, outside of the bundle.")
    ] = Path(layout.REPORT),
    level: Annotated[
        Level | None,
        typer.Option(help="Verify the bundle first: quick, complete, or full (every byte and value)."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]URL",
            help="Compare the bundle with a live database or bucket first; may be repeated.",
        ),
    ] = None,
    result: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Include the output that run, verify or restore wrote with --json; may be repeated.",
        ),
    ] = None,
) -> Reported:
    """Write a report about a bundle, with what is known now.

    REPORT.html in a bundle never changes. This report adds when the bundle arrived, who did what to it, and what
    was verified and restored since.
    """
    loaded = load_case(case_here(case, [*(words or []), *(against or [])]))
    location, source_words = location_and_sources(words, loaded)
    location, missing = _where_it_lies(session, location, loaded)
    pairs = given_destinations(location, [*(against or []), *source_words], loaded)
    store = session.store(location)
    _check_outside(store, out)
    reader = BundleReader(store)
    later = _custody(store)
    for command, result_value in _results(result or []):
        later = add_result(later, command, result_value, reader.info.id)
    stores = [store, *_others(session, location, loaded)]
    later = _with_restores(later, read_restore_records(stores), reader.info.id)
    verified = None
    if level is not None or pairs:
        verified = run_verify(session, location, level or Level.QUICK, pairs, loaded)
        later = add_result(later, "verify", verified.as_json(), reader.info.id)
    write_whole(out, page(gather(reader, later)), crash_point="report.page")
    return Reported(store.location, out, verified, reader.info.complete, missing)


def _others(session: Session, location: Endpoint, case: Case | None) -> Iterator[Store]:
    """Yield the other locations of a case: restores from there are recorded there."""
    for other in locations_of(case):
        if other.url != location.url:
            with suppress(MoveoutError):
                yield session.store(other)


def _with_restores(later: Later, records: Sequence[RestoreRecord], bundle: str) -> Later:
    """Return ``later`` with the restores of a bundle that are recorded next to it, but for those that it has."""
    checks, compared = [*later.checks], dict(later.compared)
    for record in records:
        what = restore_name(record.source, record.destination)
        if record.bundle != bundle or any(check.what == what for check in checks):
            continue
        if record.result in {UP, IN_PART}:
            left_out = record.happened.partition("without: ")[2] or record.happened
            checks.append(Checked(what, record.at, left_out=() if record.result == UP else (left_out,)))
        else:
            checks.append(Checked(f"Restore of {record.source}", record.at, (record.happened,)))
        if record.is_up:
            compared.setdefault(record.source, record.at)
    return replace(later, checks=checks, compared=compared)


def _where_it_lies(session: Session, location: Endpoint, case: Case | None) -> tuple[Endpoint, str]:
    """Return the location, "" where it holds a bundle. Where the case's transfer has not brought it there, that of the
    export, and a sentence about it.
    """
    if case is None or case.bundle is None or location != case.transfer_to:
        return location, ""
    try:
        BundleReader(session.store(location))
    except (GoneError, UsageError) as exc:
        with suppress(GoneError, UsageError):
            BundleReader(session.store(case.bundle))
            return case.bundle, str(exc)
    return location, ""


def _custody(store: Store) -> Later:
    """Return who signed the bundle, and who did what to it, as far as the location says; what is wrong is a check."""
    signed, log = signatures(store), custody_log.read(store)
    findings = [*signed.findings, *log.findings]
    checks = [Checked("signatures and custody log", now(), findings)] if findings or log.entries else []
    return Later(
        written=now(),
        location=store.location,
        arrived=store.stat(layout.TAG_MANIFEST).modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        root=root_of(store),
        signers=[public.fingerprint for public in signed.of(layout.TAG_MANIFEST)],
        custody=[
            Event(
                log_entry.time,
                log_entry.what.event,
                log_entry.what.location,
                f"{log_entry.name} {log_entry.public.fingerprint}".strip(),
                log_entry.hash,
            )
            for log_entry in log.entries
        ],
        checks=checks,
    )


def _check_outside(store: Store, out: Path) -> None:
    """Raise ``UsageError`` where the page would lie in a bundle's directory: a sealed bundle does not change."""
    location = urlsplit(store.location)
    if location.scheme == "file" and out.resolve().is_relative_to(Path(path_of(location.path)).resolve()):
        raise UsageError(
            f"{out} lies in the bundle, which is sealed", next_step="add --out FILE, outside of it"
        )


def _results(files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    results = []
    for file in files:
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            results += _results_of(str(value["command"]), dict(value["result"]))
        except OSError as exc:
            raise UsageError(f"{file} cannot be read: {exc.strerror}", next_step="check its path") from exc
        except (ValueError, KeyError, TypeError) as exc:
            step = "give what run, verify or restore wrote with --json"
            raise UsageError(f"{file} holds no result of a command", next_step=step) from exc
    return results


def _results_of(command: str, result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return a command's result; of a run those of its steps that check or restore and did not fail."""
    if command != "run":
        return [(command, result)]
    commands = {"verify": "verify", "restore": "restore", "compare": "verify"}
    return [
        (commands[step["step"]], step["result"])
        for step in result["steps"]
        if step["step"] in commands and "bundle" in (step["result"] or {})
    ]
