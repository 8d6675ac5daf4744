"""The obligation clock: every rule judged from the log, with the entry that shows it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migrate.bundle import canonical_json, layout
from migrate.custody import bundle_hold
from migrate.custody.log import custody_log, entry
from migrate.custody.log.entry import CustodyEvent
from migrate.custody.log.events import new_event, record, record_seal
from migrate.custody.obligations import clock, rulebook
from migrate.custody.signing import ssh_signatures
from migrate.errors import UsageError
from tests.cli.conftest import call
from tests.custody.conftest import signers_file

DAY = timedelta(days=1)
THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def log_of(provider):
    """Make the entries of a log from (days after THEN, event, details)."""

    def make(*happened):
        entries = []
        for days, event, *details in happened:
            what = CustodyEvent(event, "b", "r", "p", details[0] if details else {})
            entries.append(entry.write(provider, what, entries[-1] if entries else None, THEN + days * DAY))
        return entries

    return make


def states(rules: str, entries, days: float) -> dict[str, str]:
    return {one.rule.id: one.state for one in clock.judge(rulebook.load(rules), entries, THEN + days * DAY)}


def noted(days: float, what: str, at: float):
    return (days, "noted", {"what": what, "at": (THEN + at * DAY).isoformat()})


def test_nothing_known_is_unknown_and_not_met(log_of):
    assert set(states("eu-data-act", log_of((0, "created"), (0, "sealed")), 500).values()) == {"unknown"}


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01", "x" * 5000, [], None]
)
def test_a_moment_beyond_the_calendar_is_none_and_breaks_nothing(log_of, provider, at):
    """A log may come from anywhere."""
    entries = log_of((0, "sealed"), (1, "noted", {"what": "notice", "at": at}), (2, "held", {"until": at}))
    assert set(states("eu-data-act", entries, 10)) == {"notice", "transition", "retrieval", "erasure"}
    assert bundle_hold.end_of(entries[-1]).tzinfo is UTC
    line = entries[0].line
    value = {**json.loads(line), "time": at}
    del value["signature"]
    value["signature"] = "".join(
        ssh_signatures.sign(provider, ssh_signatures.ENTRY, [canonical_json.encode(value)])
        .decode()
        .split("\n")[1:-2]
    )
    with pytest.raises(ValueError, match="is not an entry"):
        entry.read(canonical_json.encode(value))


def test_a_switch_by_the_data_act_from_notice_to_erasure(log_of):
    switch = [
        (0, "sealed"),
        noted(0, "notice", 0),
        noted(20, "transition", 20),
        (25, "received"),
        (26, "acknowledged"),
    ]
    assert states("eu-data-act", log_of(*switch[:2]), 10)["notice"] == "due"
    assert states("eu-data-act", log_of(*switch[:2]), 70)["notice"] == "breached"
    assert states("eu-data-act", log_of(*switch[:3]), 51)["transition"] == "breached"
    verdicts = states("eu-data-act", log_of(*switch), 30)
    assert verdicts == {"notice": "met", "transition": "met", "retrieval": "due", "erasure": "met"}
    assert states("eu-data-act", log_of(*switch), 57)["retrieval"] == "met"
    assert states("eu-data-act", log_of(*switch, (40, "erased")), 57)["retrieval"] == "breached"
    assert states("eu-data-act", log_of(*switch, (57, "erasing")), 58)["retrieval"] == "met"


def test_erasure_without_a_receipt_is_a_breach_and_the_clock_says_so_beforehand(log_of):
    entries = log_of((0, "sealed"))
    rules = rulebook.load("eu-data-act")
    assert [one.rule.id for one in clock.breached_by_erasure(rules, entries, THEN + DAY)] == [
        "retrieval", "erasure"
    ]  # fmt: skip
    assert states("eu-data-act", log_of((0, "sealed"), (1, "erased")), 2)["erasure"] == "breached"
    entries = log_of((0, "sealed"), (1, "received"))
    assert [one.rule.id for one in clock.breached_by_erasure(rules, entries, THEN + 2 * DAY)] == ["retrieval"]
    assert clock.breached_by_erasure(rules, entries, THEN + 32 * DAY) == []


def test_the_entry_that_shows_it_is_named(log_of):
    entries = log_of((0, "sealed"), noted(0, "transition", 0), (5, "received"))
    verdict = next(
        one for one in clock.judge(rulebook.load("eu-data-act"), entries, THEN) if one.rule.id == "transition"
    )
    end = datetime(2026, 3, 3, tzinfo=UTC)
    assert (verdict.entries, verdict.state, verdict.due) == ([2, 3], "met", end)


def test_a_longer_transition_that_was_named_puts_its_end_off_up_to_seven_months(log_of):
    begun = noted(0, "transition", 0)

    def state(days, *more):
        return states("eu-data-act", log_of((0, "sealed"), begun, *more), days)["transition"]

    assert (state(30), state(32)) == ("due", "breached")
    named = noted(2, "alternative", 100)
    assert (state(32, named), state(101, named)) == ("due", "breached")
    too_long = noted(2, "alternative", 900)
    assert (state(210, too_long), state(213, too_long)) == ("due", "breached")
    extended = noted(3, "extension", 300)
    assert (state(299, extended), state(299, named, extended), state(301, extended)) == (
        "due",
        "due",
        "breached",
    )
    assert state(99, noted(2, "alternative", 5)) == "breached", "an earlier end is none"


def test_data_can_be_fetched_for_thirty_days_after_an_extension_that_is_still_to_come(log_of):
    entries = log_of((0, "sealed"), noted(0, "transition", 0), (5, "received"), noted(6, "extension", 100))
    rules = rulebook.load("eu-data-act")
    breach = [one.rule.id for one in clock.breached_by_erasure(rules, entries, THEN + 120 * DAY)]
    assert breach == ["retrieval"]
    assert clock.breached_by_erasure(rules, entries, THEN + 131 * DAY) == []


def test_an_answer_to_a_request_is_due_in_one_month_or_in_three(log_of):
    request = noted(0, "request", 0)
    assert states("gdpr", log_of(request), 30)["portability"] == "breached"
    assert states("gdpr", log_of(request, noted(1, "postponed", 60)), 59)["portability"] == "due"
    assert states("gdpr", log_of(request, noted(1, "postponed", 400)), 91)["portability"] == "breached"


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ((1, "month"), datetime(2026, 3, 1, tzinfo=UTC)),
        ((2, "month"), datetime(2026, 4, 1, tzinfo=UTC)),
        ((6, "year"), datetime(2032, 2, 1, tzinfo=UTC)),
        ((30, "day"), datetime(2026, 3, 3, tzinfo=UTC)),
        ((36, "hour"), datetime(2026, 2, 2, tzinfo=UTC)),
    ],
)
def test_days_are_whole_and_months_are_the_calendars(period, expected):
    assert clock.later(THEN, period) == expected


def test_six_years_are_kept(log_of):
    assert states("sec-17a-4", log_of((0, "sealed"), (1, "held")), 365 * 5) == {
        "not-rewriteable": "met",
        "six-years": "due",
    }
    assert (
        states("sec-17a-4", log_of((0, "sealed"), (1, "held"), (900, "erased")), 900)["six-years"]
        == "breached"
    )


@pytest.mark.parametrize("name", rulebook.BUILT_IN)
def test_every_built_in_number_has_a_source(name):
    rules = rulebook.load(name)
    assert rules.source.startswith("https://")
    assert all(one.article and one.says for one in rules.rules)
    assert rules.checked not in {"", rulebook.NOT_CHECKED}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "version None"),
        ("version = 2", "version 2"),
        ("version = 1", "lacks 'rule'"),
        ("nonsense", "cannot be read"),
        ('version = 1\n[[rule]]\nkind = "within"\nperiod = "soon"', "'soon' is not a period"),
        ('version = 1\n[[rule]]\nkind = "within"', "the first two with a period"),
        ('version = 1\nperoid = "2 months"', "'peroid' is not a field"),
        ("version = 1\n[[rule]]\nlongr = []", "rule 1: 'longr' is not a field"),
        ('version = 1\n[[rule]]\nkind = "happens"\nstart = "sealed"', "is not a list of events"),
        ('version = 1\n[[rule]]\nkind = "happens"\nstart = ["recieved"]', "'recieved' is not an event"),
        ('version = 1\n[[rule]]\nkind = "happens"\nlonger = [{until = ["noted:x"]}]', "put off"),
        (
            'version = 1\n[[rule]]\nkind = "within"\nperiod = "1 day"\nlonger = [{untl = ["noted:x"]}]',
            "rule 1: 'untl' is not a field",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_the_location(tmp_path, text, said):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        rulebook.load(str(file))


def test_what_is_kept_from_an_event_on_is_not_erased_before_the_log_has_it(log_of):
    """Else a receipt that nobody acknowledged lets a bundle go on the day it was signed."""
    rules = rulebook.load("sec-17a-4")
    (breach,) = clock.breached_by_erasure(rules, log_of((0, "received")), THEN + 9999 * DAY)
    assert (breach.rule.id, breach.why) == ("six-years", "the log does not say when it began (sealed)")


def test_a_clock_that_was_set_back_makes_no_time_to_keep_shorter(log_of):
    rules = rulebook.load("eu-data-act")
    entries = log_of((0, "sealed"), (-400, "received"), (-400, "acknowledged"))
    assert [one.rule.id for one in clock.breached_by_erasure(rules, entries, THEN + DAY)] == ["retrieval"]
    assert clock.breached_by_erasure(rules, entries, THEN + 32 * DAY) == []
    noted_end = noted(1, "transition-end", -400)
    assert clock.breached_by_erasure(rules, log_of((-500, "received"), noted_end), THEN + DAY) == []


def test_a_clock_that_was_set_back_meets_no_rule(log_of):
    """What stands below an entry of March was not written in January; nor was a receipt before the erasure above it."""
    begun = noted(0, "transition", 0)
    (late,) = (
        one
        for one in clock.judge(
            rulebook.load("eu-data-act"), log_of(begun, (90, "verified"), (10, "received")), THEN + 99 * DAY
        )
        if one.rule.id == "transition"
    )
    assert (late.state, "the log has 2026-05-01 12:00 UTC before that" in late.why) == ("unknown", True), late
    assert states("eu-data-act", log_of(begun, (5, "verified"), (10, "received")), 99)["transition"] == "met"
    turned = log_of((0, "sealed"), (90, "erased"), (10, "received"))
    assert states("eu-data-act", turned, 99)["erasure"] == "breached"
    assert (
        states("eu-data-act", log_of((0, "sealed"), (10, "received"), (90, "erased")), 99)["erasure"] == "met"
    )


def test_a_receipt_that_names_damage_meets_no_rule(log_of):
    """It starts the time anew for which what is there is kept."""
    begun, damaged = [(0, "sealed"), noted(0, "transition", 0)], {"findings": 2}
    for more, expected in (
        (
            [(5, "received", damaged), (6, "acknowledged", damaged)],
            {"transition": "breached", "erasure": "unknown"},
        ),
        (
            [(5, "received", damaged), (7, "received", {"findings": 0})],
            {"transition": "met", "erasure": "met"},
        ),
    ):
        verdicts = states("eu-data-act", log_of(*begun, *more), 99)
        assert {name: verdicts[name] for name in expected} == expected
    entries = log_of(*begun, (5, "received"), (60, "received", damaged))
    breaches = clock.breached_by_erasure(rulebook.load("eu-data-act"), entries, THEN + 70 * DAY)
    assert [one.rule.id for one in breaches] == ["retrieval"]


def test_what_was_erased_once_is_kept_again_when_it_came_back(log_of, tmp_path):
    """A breach, or an erasure, of the past allows no other one. A rule may name the erasure's end alone."""
    file = tmp_path / "rules.toml"
    text = (Path(__file__).parents[2] / "docs/reference/clock-rules.md").read_text(encoding="utf-8")
    contract = text.partition("```toml\n")[2].partition("```")[0]
    file.write_text(contract.replace('["erasing", "erased"]', '["erased"]'))
    rules = rulebook.load(str(file))
    for first in (95, 50):  # in time, and not
        entries = log_of((0, "received"), (first, "erasing"), (first, "erased"), (100, "received"))
        breaches = clock.breached_by_erasure(rules, entries, THEN + 120 * DAY)
        assert [one.rule.id for one in breaches] == ["keep"]
        assert clock.breached_by_erasure(rules, entries, THEN + 200 * DAY) == []
    file.write_text(contract.replace("90 days", "9999 years"))
    rules, entries = rulebook.load(str(file)), log_of((0, "received"))
    assert [one.rule.id for one in clock.breached_by_erasure(rules, entries, THEN + 200 * DAY)] == ["keep"]


def test_the_contract_in_the_docs_is_one(log_of, tmp_path):
    text = (Path(__file__).parents[2] / "docs/reference/clock-rules.md").read_text(encoding="utf-8")
    file = tmp_path / "contract.toml"
    file.write_text(text.partition("```toml\n")[2].partition("```")[0])
    begun = [noted(0, "notice", 0), (5, "received")]
    assert states(str(file), log_of(*begun), 30) == {"handover": "met", "keep": "due"}
    assert states(str(file), log_of(begun[0]), 30) == {"handover": "breached", "keep": "unknown"}
    assert states(str(file), log_of(begun[0], noted(3, "later", 50)), 30)["handover"] == "due"


def test_the_command_counts_from_what_was_noted(location, make_key):
    bundle, key = location.location.removeprefix("file://"), make_key.path_of("provider")
    call("sign", bundle, "--key", key)
    assert call("custody", "note", bundle, "notice", "--at", "2026-01-01", "--key", key).code == 0
    result = call("clock", bundle, "--at", "2026-02-01")
    assert (result.code, "no legal advice" in result.out) == (0, True)
    assert "due" in result.out
    assert call("clock", bundle, "--at", "2026-04-01").code == 9
    assert call("custody", "note", bundle, "no tice", "--key", key).code == 2
    assert call("clock", bundle, "--rules", "no-such").code == 2
    (Path(bundle) / layout.CUSTODY_LOG).write_text("torn")
    torn = call("clock", bundle)
    assert (torn.code, f"moveout custody verify file://{bundle} says" in torn.err) == (6, True), torn.err


def test_an_entry_of_a_stranger_counts_for_nothing(location, provider, make_key, tmp_path):
    """What is dated after today is noted, too."""
    case = tmp_path / "case.toml"
    case.write_text('[custody]\nsigners = "signers"\n')
    signers_file(tmp_path / "signers", host=(provider,))
    record_seal(location, provider, [provider])
    record(location, provider, "noted", {"what": "request", "at": THEN.isoformat()})

    def judged():
        result = call("clock", location.location, "-c", case, "--at", "2026-02-01", "--json").json["result"]
        (rule,) = (rule for rule in result["rules"] if rule["article"].startswith("Article 20"))
        return rule["state"], result["notes"]

    assert judged() == ("due", [])
    record(location, make_key("stranger"), "received", {})
    state, (note,) = judged()
    assert (state, note) == (
        "due", f"entry 5 is signed by nobody in {tmp_path / 'signers'}, and counts for nothing"
    )  # fmt: skip
    ahead = new_event(location, "received")
    custody_log.append(location, provider, lambda _: [ahead], clock=lambda: datetime.now(UTC) + 9 * DAY)
    assert any("is dated in the future" in note for note in judged()[1])


def test_a_verdict_names_the_events_and_the_entries_that_show_it(log_of):
    def judged(kind, *happened):
        rule = rulebook.Rule(
            "r", "9", "says", kind, ["received"], ["erased"], (1, "day") if kind == "within" else None
        )
        rules = rulebook.RuleSet("c", "title", "source", "applies", "checked", [rule])
        (verdict,) = clock.judge(rules, log_of(*happened), THEN + 5 * DAY)
        return verdict.state, verdict.why, verdict.entries

    begun, ended = (0, "received"), (0.5, "erased")
    assert judged("requires", begun, ended) == ("met", "received is in the log", [1, 2])
    assert judged("requires", ended) == ("breached", "erased without received before it", [1])
    assert judged("requires") == ("unknown", "not in the log yet: received; erased", [])
    assert judged("happens", begun, ended) == ("met", "erased is in the log", [1, 2])
    assert judged("happens", begun) == ("due", "not in the log yet: erased; the rule names no day", [1])
    assert judged("happens", ended) == ("unknown", "the log does not say when it began (received)", [1])
    state, why, entries = judged("within", begun, ended)
    assert (state, why, entries) == ("met", "erased at 2026-02-01 00:00 UTC", [1, 2])
    assert judged("within", begun)[:2] == ("breached", "not in the log by 2026-02-02 00:00 UTC: erased")
