"""``moveout plan`` as it is typed: the order of sources, other means, exit codes."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from exporters.doctor import Examination, Finding
from migrate.case.model import Endpoint
from migrate.cli.common.terminal import Console
from migrate.cli.summaries.plan_summary import _draw_alternative, _draw_sources, _draw_warnings, draw_forecast
from migrate.doctor.run import Examined, with_locations
from migrate.errors import NoSpaceError
from migrate.plan.forecast import Forecast, Interval, StageForecast
from migrate.plan.survey import measure_location
from migrate.plan.what_if import Alternative, Needed, WhatIf
from migrate.restore.restore_records import RestoreRecord, RestoreRecords
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.plan.plans import source
from tests.tools.disks import tiny_disk
from tests.tools.terminal import console_in_memory

__all__ = ["tiny_disk"]


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """A directory with three small databases."""
    folder = tmp_path_factory.mktemp("databases")
    for name in ("a", "b", "c"):
        with closing(sqlite3.connect(folder / f"{name}.db")) as made, made:
            made.execute("CREATE TABLE t AS SELECT hex(randomblob(500)) AS x")
    return folder


def write_case(databases, tmp_path, seconds, reserve=""):
    deadline = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    ranks = {"a": "", "b": "value = 5", "c": "priority = 1"}
    sources = "".join(
        f'[[source]]\nname = "{name}"\nurl = "sqlite://{databases}/{name}.db"\n{rank}\n'
        for name, rank in ranks.items()
    )
    path = tmp_path / "moveout.toml"
    path.write_text(f'[case]\ndeadline = {deadline}\n{reserve}\n{sources}[bundle]\nlocation = "bundle"\n')
    return path


def test_sources_leave_by_priority_then_by_value_for_their_time(databases, tmp_path):
    planned = call("plan", "-c", write_case(databases, tmp_path, 3600), "--json")
    assert planned.code == 0, planned.err
    order = planned.json["result"]["order"]
    assert order["names"] == ["c", "b", "a"]
    assert (order["total_value"], order["left_at_p50"], order["left_at_p90"]) == (7.0, [], [])


def test_a_deadline_that_is_missed_is_exit_9_and_says_what_stays_and_what_it_takes(databases, tmp_path):
    path = write_case(databases, tmp_path, 7200, 'reserve = "2h"')
    assert (
        "left behind at P50: c, b, a" in call("plan", "-c", path).out
    )  # the reserve begins before anything is out
    late = call(
        "plan", f"a=sqlite://{databases}/a.db", "--deadline", "2020-01-01T00:00:00Z", "--what-if", "workers=8"
    )
    assert late.code == 9, late
    assert "LATE: deadline 2020-01-01 00:00 UTC, under 5% likely to be met" in late.out
    assert "With 8 workers: all has left in " in late.out
    assert "The deadline has passed: no means are enough" in late.out
    assert "→ the deadline has passed" in late.out
    assert "--what-if" not in late.out
    assert "left behind at" not in late.out


@pytest.mark.parametrize(
    ("link", "sentence"),
    [(10**9, "even with this link each source takes too long"), (1000, "it takes a link of at least 1 MB/s")],
)
def test_that_no_workers_are_enough_is_laid_to_the_link_only_where_it_is_the_link(capsys, link, sentence):
    alternative = Alternative(WhatIf(2, link), Interval(7.0, 9.0), Needed(None, 10**6))
    _draw_alternative(Console(), alternative, 5.0)
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 100])
def test_tables_fit_the_terminal_and_break_no_number(width):
    why = "a sample of 30 s, as in 12 past moves"
    stages = [
        StageForecast(stage, "customers-of-the-shop", Interval(200.0, 4000.0), why)
        for stage in ("export", "transfer")
    ]
    shown = Forecast(
        stages, stages, Interval(200.0, 4000.0), Interval(300.0, 5000.0), datetime.now(UTC), None, None
    )
    sources = [source("customers-of-the-shop", size_bytes=123_456_789), source("b")]
    console, written = console_in_memory(width)
    draw_forecast(console, shown, detailed=True)
    _draw_sources(console, sources)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width, written.getvalue()
    for number in ("3 min 20 s", "1 h 6 min", "5 min 0 s", "1 h 23 min", "123 MB"):
        assert any(number in line for line in lines), written.getvalue()
    assert why in " ".join(written.getvalue().split())
    console, written = console_in_memory(width)
    draw_forecast(console, replace(shown, whole_stages=[replace(stages[0], source="")]), detailed=False)
    _draw_warnings(console, {"→ b": ["b: it is full"]})
    assert (" source " in written.getvalue(), "! → b: it is full" in written.getvalue()) == (False, True)


def test_what_is_the_same_for_both_quantiles_is_printed_once():
    now = datetime.now(UTC).replace(second=0)
    shown = Forecast([], [], Interval(5.0, 9.0), Interval(5.0, 9.0), now, now + timedelta(hours=30), 1.0)
    console, written = console_in_memory(80)
    draw_forecast(console, shown, detailed=False)
    assert written.getvalue().count("(P50 and P90)") == 2, written.getvalue()


def test_other_means_that_make_no_sense_are_a_mistake(databases):
    asked = call("plan", f"a=sqlite://{databases}/a.db", "--what-if", "horses=8")
    assert (asked.code, "→ write --what-if workers=8,link=10Gbit" in asked.err) == (2, True), asked


def test_a_plan_is_made_without_a_location_that_is_missing(databases, minio, tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[[source]]\nname = "a"\nurl = "sqlite://{databases}/a.db"\n[bundle]\nlocation = "bundle"\n'
        f'[transfer]\nlocation = "s3://missing-for-plan?profile={minio.profile}"\n'
    )
    planned = call("plan", "-c", case, "--deadline", "30h")
    assert planned.code == 3, planned
    assert "! the location of [transfer] could not be tried: there is no bucket" in planned.out
    assert "\n  → check its name" in planned.out
    assert "IN TIME" in planned.out


def test_a_full_location_is_as_it_was_after_it_was_tried(tiny_disk):
    for number in range(4):
        with pytest.raises(NoSpaceError):
            measure_location(open_location(f"{tiny_disk}/{number}"))
    assert [path for path in tiny_disk.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("result", "severity"), [("yes", "info"), ("in part", "info"), ("no", "blocks")])
def test_what_an_earlier_restore_filled_also_in_part_is_not_said_to_be_refused(tmp_path, result, severity):
    url = "postgresql://me@new/app"
    store = open_location(str(tmp_path))
    RestoreRecords([lambda: store]).write(
        RestoreRecord("b", "app", url, "2026-11-28T00:00:00+00:00", result, "restored, without: a table")
    )
    occupied = Finding("blocks", "contents", "app", "it is not empty", "A restore refuses it.")
    examined = Examined("destination", "app", url, Examination({}, [occupied]))
    [entry] = with_locations([examined], {"app": Endpoint(url)}, [Endpoint(str(tmp_path))])
    assert [finding.severity for finding in entry.examination.findings] == [severity]
