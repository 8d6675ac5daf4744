"""Options and arguments that several commands share."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from migrate.case.deadline import parse_deadline
from migrate.case.model import Case, Endpoint
from migrate.case.secrets import redact
from migrate.case.selection import parse_tags
from migrate.cli.common.source_words import locations_and_sources, names_source, refuse_case_file
from migrate.errors import UsageError

_BUNDLE = typer.Argument(
    metavar="LOCATION", help="The bundle: a directory or s3://bucket/prefix?profile=NAME."
)
OneLocation = Annotated[str, _BUNDLE]
LocationWord = Annotated[list[str] | None, _BUNDLE]
LocationAndDestinations = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="LOCATION [NAME=]URL …",
        help="The bundle, and the database or bucket for each source.",
    ),
]
SourcePairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]URL …",
        help="The sources: postgresql://me@host/db s3://media?profile=old shop.db. NAME= gives another name;"
        " with a case file, one of its names.",
    ),
]
AllowEmpty = Annotated[
    bool,
    typer.Option("--allow-empty", help="Accept a source that is empty, or in which nothing matches."),
]
Create = Annotated[
    bool,
    typer.Option("--create", help="Create missing databases and buckets, with the settings of the source."),
]

CaseFile = Annotated[
    Path | None, typer.Option("--case", "-c", metavar="CASE", help="The case file, moveout.toml.")
]
CaseFileHere = Annotated[
    Path | None,
    typer.Option(
        "--case",
        "-c",
        metavar="CASE",
        help="The case file. Where nothing is named, moveout.toml of this directory.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to the question.")]

Delete = Annotated[
    bool,
    typer.Option(
        "--delete",
        help="Buckets only: remove objects at the destination that the source does not have. The report lists them.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Buckets only: replace objects at the destination that no sync has written."
    ),
]
CurrentOnly = Annotated[
    bool,
    typer.Option("--current-only", help="Buckets only: no older versions."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Buckets only: keys that match, as 'photos/**', '*.jpg'; may be repeated.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Buckets only: no keys that match; may be repeated."),
]
MinSize = Annotated[
    str | None, typer.Option("--min-size", metavar="SIZE", help="No smaller objects, such as 1K.")
]
MaxSize = Annotated[
    str | None, typer.Option("--max-size", metavar="SIZE", help="No larger objects, such as 10M.")
]
NewerThan = Annotated[
    str | None, typer.Option("--newer-than", metavar="TIME", help="Only objects changed since: 2026-11-25.")
]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="TIME", help="Only objects changed before.")
]
Tag = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="Only objects with this tag; may be repeated."),
]


class HoldOptions(Struct, frozen=True):
    """The options about the hold, and what is done under it."""

    hold: Annotated[
        bool,
        typer.Option("--hold", help="Make the old databases read-only. Without it, stop what writes there."),
    ] = False
    whole_server: Annotated[
        bool,
        typer.Option(
            "--whole-server",
            help="With --hold: make a whole MariaDB server read-only. It cannot do that to one database.",
        ),
    ] = False
    compare_all: Annotated[
        bool,
        typer.Option(
            "--compare-all",
            help="Compare all tables whole during the hold, not only what was written to since the first comparison.",
        ),
    ] = False
    file: Annotated[
        Path,
        typer.Option("--undo-file", metavar="FILE", help="The file that records the old settings."),
    ] = Path("moveout-cutover.json")


class SelectionOptions(Struct, frozen=True):
    """The options that select objects of a bucket."""

    include: Include = None
    exclude: Exclude = None
    min_size: MinSize = None
    max_size: MaxSize = None
    newer_than: NewerThan = None
    older_than: OlderThan = None
    tag: Tag = None

    def words(self) -> dict[str, Any]:
        """Return what ``from_words`` takes."""
        return {
            "include": self.include or [],
            "exclude": self.exclude or [],
            "min_size": self.min_size,
            "max_size": self.max_size,
            "newer_than": self.newer_than,
            "older_than": self.older_than,
            "tags": parse_tags(self.tag or []),
        }


Inventory = Annotated[
    list[str] | None,
    typer.Option(
        "--inventory",
        metavar="[NAME=]MANIFEST",
        help="Compare a bucket's listing with its S3 Inventory: the report's manifest.json; may be repeated.",
    ),
]


_CASE_FILE = "moveout.toml"
"""Where ``moveout init`` and ``moveout discover`` write a case, as a rule."""


def one_location(locations: Sequence[str], fallback: Endpoint | None) -> Endpoint:
    """Return the one location: that of the command line, else that of the case. Raises ``UsageError``."""
    for word in locations:
        refuse_case_file(word)
        if names_source(word):
            raise UsageError(
                f"{redact(word)} is not a location",
                next_step="give a directory or s3://bucket/prefix?profile=NAME",
            )
    if len(locations) > 1:
        raise UsageError(
            f"the command takes one location; {len(locations)} given: {', '.join(map(redact, locations))}",
            next_step="moveout COMMAND --help says what it takes",
        )
    if locations:
        return Endpoint(locations[0])
    if fallback is None:
        raise no_location_error()
    return fallback


def no_location_error() -> UsageError:
    """Return the error of a command that needs a location, where neither a word nor the case names one."""
    return UsageError(
        "no location is named", next_step=f"give a directory or s3://bucket/prefix, or {case_words()}"
    )


def case_here(case: Path | None, words: Sequence[str] | None) -> Path | None:
    """Return the case file; the usual one, where nothing is named and it lies here. For commands that look. Raises
    ``UsageError`` where somebody else may have written it: it says which programs are run for secrets.
    """
    if case is not None or words or not Path(_CASE_FILE).is_file():
        return case
    status = Path(_CASE_FILE).stat()
    own = {str(os.geteuid()), "0", os.environ.get("SUDO_UID", "0") if os.geteuid() == 0 else "0"}
    if str(status.st_uid) not in own or status.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"{_CASE_FILE} of this directory may be another user's, and such a file can name programs to run",
            next_step=f"read it, and then name it: -c {_CASE_FILE}",
        )
    return Path(_CASE_FILE)


def case_words() -> str:
    """Return how a case file is given: the usual one where it lies here."""
    return (
        f"-c {_CASE_FILE}" if Path(_CASE_FILE).is_file() else "a case file with -c (moveout init writes one)"
    )


def location_and_sources(words: Sequence[str] | None, case: Case | None) -> tuple[Endpoint, list[str]]:
    """Return the one location of a bundle, else where the case has it last, and the words that name sources. Raises
    ``UsageError``.
    """
    locations, source_words = locations_and_sources(words or [])
    return one_location(locations, next(iter(locations_of(case)), None)), source_words


def locations_of(case: Case | None) -> list[Endpoint]:
    """Return where the bundle of a case lies, the last location first: where it is transferred to, where it is
    written.
    """
    return [location for location in (case.transfer_to, case.bundle) if location] if case else []


def known_location(words: Sequence[str] | None, case: Case | None) -> Endpoint:
    """Return the location that is meant, with the secrets that the case has for it: the word, else the case's
    destination, or its bundle where it has no destination.
    """
    listed = locations_of(case)
    location_given = one_location(words or [], listed[0] if listed else None)
    return next((location for location in listed if location.url == location_given.url), location_given)


def with_inventories(endpoints: Mapping[str, Endpoint], words: Sequence[str]) -> dict[str, Endpoint]:
    """Give sources the reports that ``--inventory`` names. Raises ``UsageError``."""
    endpoints_by_name = dict(endpoints)
    for word in words:
        name, equals, url = word.partition("=")
        if not equals or name not in endpoints_by_name:
            if len(endpoints_by_name) != 1:
                raise UsageError(
                    f"--inventory {redact(word)!r} does not say of which source it is",
                    next_step="write NAME=MANIFEST",
                )
            name, url = next(iter(endpoints_by_name)), word
        endpoints_by_name[name] = replace(endpoints_by_name[name], inventory=url)
    return endpoints_by_name


def moment_to_come(text: str) -> datetime:
    """Return a moment to the second, since finer ones do not come back from every server. Raises ``UsageError`` where
    it is past.
    """
    try:
        moment = parse_deadline(text).astimezone(UTC).replace(microsecond=0)
    except UsageError as exc:
        raise UsageError(
            f"{text!r} is not a time",
            next_step="write 2027-01-31T00:00:00Z, or from now on: 30h, 90m, 1d12h",
        ) from exc
    if moment <= datetime.now(UTC):
        raise UsageError(f"{text!r} is past", next_step="give a moment to come: 30d, or 2027-01-31T00:00:00Z")
    return moment
