"""PostgreSQL's subscription tests: what they do at their publishers is done at a database that moveout follows.

The tests are programs in Perl. They run with stand-ins for PostgreSQL's own modules (``subscription_recorder``), which
start no server and write down what a test would send to its servers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.outsiders.postgresql.followed_move import FollowedMoves, Step, Workload
from scripts.outsiders.postgresql.source import obtain_source
from scripts.outsiders.suite import Context, Skipped, SuiteRow

_RECORDER = Path(__file__).parent / "subscription_recorder"
_TESTS = "src/test/subscription/t"
_RECORD_SECONDS = 60.0
_SUBSCRIBES = re.compile(r"\bCREATE\s+SUBSCRIPTION\b", re.IGNORECASE)
_PUBLISHES = re.compile(r"\bCREATE\s+PUBLICATION\b", re.IGNORECASE)
_DEFINES = re.compile(r"\b(?:CREATE|ALTER|DROP)\s+(?!PUBLICATION|SUBSCRIPTION|ROLE|USER\b)\w+", re.IGNORECASE)
_NOT_OURS = re.compile(r"\A\s*CREATE\s+DATABASE\b|\bsynchronous_standby_names\b", re.IGNORECASE)
"""Databases are made before; for a subscriber that does not exist commits would wait."""


class PostgresqlSubscription:
    """Two moves of each publisher: one begins where the test subscribes, one after its last definition."""

    name = "postgresql-subscription"
    origin = "PostgreSQL's tests of logical replication, from the Debian source package of the server in use"

    def obtain(self) -> Path | Skipped:
        """Return the directory of the tests."""
        tree = obtain_source()
        if isinstance(tree, Skipped):
            return tree
        if shutil.which("perl") is None:
            return Skipped("the tests are programs in Perl, and there is no perl")
        tests = tree / _TESTS
        return tests if tests.is_dir() else Skipped(f"the source has no directory {_TESTS}")

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move what each test's publishers have."""
        moves = FollowedMoves.begin(context)
        workloads: list[Workload] = []
        for test in context.choose(sorted(context.material.glob("*.pl"))):
            own = list(workloads_of(test.stem, record(test, context.scratch / f"{test.stem}.json")))
            if not own:
                yield SuiteRow(test.stem, skipped="it publishes nothing")
            workloads += own
        yield from moves.move_all(workloads)


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """What a test does to one of its servers: ``sql``, ``end session``, ``stop`` or ``start``."""

    node: str
    kind: str
    database: str = ""
    text: str = ""
    session: int | None = None


def record(test: Path, file: Path) -> list[RecordedStep]:
    """Run a test with the recorder, and return what it does. Its own checks fail, since nothing answers it."""
    subprocess.run(
        ["perl", f"-I{_RECORDER}", test],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        cwd=file.parent,
        env={"PATH": os.environ["PATH"], "RECORD": str(file), "with_icu": "yes"},
        timeout=_RECORD_SECONDS,
    )
    return [_event(json.loads(line)) for line in file.read_bytes().splitlines()]


def _event(fields: Mapping[str, Any]) -> RecordedStep:
    names = {name: fields[name] for name in RecordedStep.__slots__ if name in fields}
    if "text" in names:
        names["text"] = names["text"].encode("latin1").decode("utf-8", "replace")
    return RecordedStep(**names)


def workloads_of(test: str, events: Sequence[RecordedStep]) -> Iterator[Workload]:
    """Yield the moves of a test's publishers: their database, divided where the first subscriber comes, and again
    after the last definition.
    """
    publishers = dict.fromkeys(
        (event.node, event.database) for event in events if _PUBLISHES.search(event.text)
    )
    for node, database in publishers:
        label = test if len(publishers) == 1 else f"{test} {node}"
        begins = next((number for number, event in enumerate(events) if event.node == node), 0)
        subscribed = next(
            (
                number
                for number, event in enumerate(events)
                if number > begins and _SUBSCRIBES.search(event.text)
            ),
            len(events),
        )
        defined = max(
            (number + 1 for number, event in enumerate(events) if event.node == node and defines(event)),
            default=0,
        )
        cuts = {"": subscribed} | ({", defined": defined} if defined > subscribed else {})
        for suffix, cut in cuts.items():
            steps = [
                [step for step in map(_step, part) if step is not None]
                for part in (
                    [event for event in events[:cut] if _is_of(event, node, database)],
                    [event for event in events[cut:] if _is_of(event, node, database)],
                )
            ]
            while steps[1] and steps[1][-1].is_restart:
                steps[1].pop()
            if steps[1]:
                yield Workload(label + suffix, *steps)


def defines(event: RecordedStep) -> bool:
    """True where a statement changes definitions."""
    return event.kind == "sql" and bool(_DEFINES.search(event.text))


def _is_of(event: RecordedStep, node: str, database: str) -> bool:
    return event.node == node and event.database in {"", database}


def _step(event: RecordedStep) -> Step | None:
    if event.kind == "stop":
        return Step(is_restart=True)
    if event.kind == "end session":
        return Step("ROLLBACK", session=event.session)
    if event.kind == "sql" and not _SUBSCRIBES.search(event.text) and not _NOT_OURS.search(event.text):
        return Step(event.text, session=event.session)
    return None


SUITE = PostgresqlSubscription()
