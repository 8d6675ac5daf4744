"""The obligation clock: every rule judged from the log, with the entry that shows it."""

from datetime import UTC, datetime, timedelta

import pytest

from migrate.custody import clock, entry
from migrate.custody.entry import Happening
from migrate.errors import UsageError
from tests.cli.conftest import call

DAY = timedelta(days=1)
THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def told(provider):
    """Make the entries of a log from (days after THEN, event, details)."""

    def make(*happened):
        found = []
        for days, event, *details in happened:
            what = Happening(event, "b", "r", "p", details[0] if details else {})
            found.append(entry.write(provider, what, found[-1] if found else None, THEN + days * DAY))
        return found

    return make


def states(rules: str, entries, days: float) -> dict[str, str]:
    return {one.rule.id: one.state for one in clock.judge(clock.load(rules), entries, THEN + days * DAY)}


def noted(days: float, what: str, at: float):
    return (days, "noted", {"what": what, "at": (THEN + at * DAY).isoformat()})


def test_nothing_known_is_unknown_and_not_met(told):
    assert set(states("eu-data-act", told((0, "created"), (0, "sealed")), 500).values()) == {"unknown"}


def test_a_switch_by_the_data_act_from_notice_to_erasure(told):
    switch = [
        (0, "sealed"),
        noted(0, "notice", 0),
        noted(20, "transition", 20),
        (25, "received"),
        (26, "acknowledged"),
    ]
    assert states("eu-data-act", told(*switch[:2]), 10)["notice"] == "due"
    assert states("eu-data-act", told(*switch[:2]), 70)["notice"] == "breached"
    assert states("eu-data-act", told(*switch[:3]), 51)["transition"] == "breached"
    found = states("eu-data-act", told(*switch), 30)
    assert found == {"notice": "met", "transition": "met", "retrieval": "due", "erasure": "met"}
    assert states("eu-data-act", told(*switch), 57)["retrieval"] == "met"
    assert states("eu-data-act", told(*switch, (40, "erased")), 57)["retrieval"] == "breached"
    assert states("eu-data-act", told(*switch, (57, "erasing")), 58)["retrieval"] == "met"


def test_erasure_without_a_receipt_is_a_breach_and_the_clock_says_so_beforehand(told):
    entries = told((0, "sealed"))
    rules = clock.load("eu-data-act")
    assert [one.rule.id for one in clock.would_breach(rules, entries, "erasing", THEN + DAY)] == ["erasure"]
    assert states("eu-data-act", told((0, "sealed"), (1, "erased")), 2)["erasure"] == "breached"
    entries = told((0, "sealed"), (1, "received"))
    assert [one.rule.id for one in clock.would_breach(rules, entries, "erasing", THEN + 2 * DAY)] == [
        "retrieval"
    ]
    assert clock.would_breach(rules, entries, "erasing", THEN + 32 * DAY) == []


def test_the_entry_that_shows_it_is_named(told):
    entries = told((0, "sealed"), noted(0, "transition", 0), (5, "received"))
    verdict = next(
        one for one in clock.judge(clock.load("eu-data-act"), entries, THEN) if one.rule.id == "transition"
    )
    assert (verdict.entries, verdict.state, verdict.due) == ([2, 3], "met", THEN + 30 * DAY)


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ((1, "month"), datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ((2, "month"), datetime(2026, 3, 31, 12, tzinfo=UTC)),
        ((6, "year"), datetime(2032, 1, 31, 12, tzinfo=UTC)),
        ((30, "day"), datetime(2026, 3, 2, 12, tzinfo=UTC)),
    ],
)
def test_months_are_the_calendars(period, expected):
    assert clock.later(THEN, period) == expected


def test_six_years_are_kept(told):
    assert states("sec-17a-4", told((0, "sealed"), (1, "held")), 365 * 5) == {
        "not-rewriteable": "met",
        "six-years": "due",
    }
    assert (
        states("sec-17a-4", told((0, "sealed"), (1, "held"), (900, "erased")), 900)["six-years"] == "breached"
    )


@pytest.mark.parametrize("name", clock.BUILT_IN)
def test_every_built_in_number_has_a_source(name):
    rules = clock.load(name)
    assert rules.source.startswith("https://")
    assert all(one.article and one.says for one in rules.rules)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "version None"),
        ("version = 2", "version 2"),
        ("version = 1", "lacks 'rule'"),
        ("nonsense", "cannot be read"),
        ('version = 1\n[[rule]]\nkind = "within"\nperiod = "soon"', "'soon' is no period"),
        ('version = 1\n[[rule]]\nkind = "within"', "the first two with a period"),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_the_place(tmp_path, text, said):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        clock.load(str(file))


def test_the_command_counts_from_what_was_noted(place, make_key):
    bundle, key = place.place.removeprefix("file://"), make_key.path_of("provider")
    call("sign", bundle, "--key", key)
    assert call("custody", "note", bundle, "notice", "--at", "2026-01-01", "--key", key).code == 0
    found = call("clock", bundle, "--at", "2026-02-01")
    assert (found.code, "no legal advice" in found.out) == (0, True)
    assert "due" in found.out
    assert call("clock", bundle, "--at", "2026-04-01").code == 9
    assert call("clock", bundle, "--rules", "no-such").code == 2
