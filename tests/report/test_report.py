"""The page says what the bundle holds, runs nothing, and believes no name."""

import datetime as dt
import json
import re
from hashlib import sha256

import pytest

from exporters.api import CatalogEntry, Gap, Loss, SourceSummary
from exporters.structs import as_dict
from migrate.bundle import layout
from migrate.bundle.bundle_json import MOST_PACE_STEPS, CaseInfo, decode_pace, pace_of
from migrate.bundle.reader import BundleReader, read_tag_manifest
from migrate.bundle.tag_files import manifest_line
from migrate.errors import DamageError
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.report.bundle_page import page
from migrate.report.facts import OTHERS, SHOWN_BARS, gather, most
from migrate.report.render import environment, name
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.export.sources import Numbers, NumbersSnapshot
from tests.tools.pages import assert_harmless, parse

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE x; --",
    "</style><svg onload=alert(1)>",
    "admin\u202etxt.exe",
    "a\x00b\x1b[31mc\nd\te",
    "\u200bzero\ufeff",
    "&lt;already&gt;",
    "long" * 500,
    "{{7*7}} ${7*7}",
)


class Evil(Numbers):
    """A source in which every word is hostile."""

    def snapshot(self, workspace, *, workers):
        from contextlib import nullcontext

        return nullcontext(EvilSnapshot(self, {"server": EVIL[0], "snapshot": EVIL[4], "listed": [EVIL[1]]}))


class EvilSnapshot(NumbersSnapshot):
    def finish(self, done, sink):
        summary = super().finish(done, sink)
        tables = [
            CatalogEntry("table", n, word, word, 0, n * 1000, "", {"columns": [word]})
            for n, word in enumerate(EVIL, 1)
        ]
        return SourceSummary(
            [*summary.entries, *tables],
            summary.enumerations,
            [Gap(word, "excluded", word) for word in EVIL],
            [Loss(word, word, word) for word in EVIL],
            summary.positions,
            EVIL[0],
        )


def test_hostile_names_are_text_and_what_is_hidden_is_shown(tmp_path):
    export([Evil()], open_location(str(tmp_path)), workers=1, progress=Silent())
    data = (tmp_path / "REPORT.html").read_bytes()
    page = parse(data)
    assert_harmless(page)
    for word in (*EVIL[:4], EVIL[7], EVIL[9]):
        assert word in page.text
    assert "adminU+202Etxt.exe" in page.text
    assert "aU+0000bU+001B[31mcU+000AdU+0009e" in page.text
    assert "U+200BzeroU+FEFF" in page.text
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", data.decode()
    )


def stranger(tmp_path, change):
    """Read a bundle that somebody has made who means no good: whole by all of its sums."""
    export([Numbers()], open_location(str(tmp_path)), workers=1, progress=Silent())
    store = open_location(str(tmp_path))
    for key in (layout.BUNDLE_META, layout.RECONCILIATION):
        value = json.loads(store.read(key))
        change(key, value)
        store.put(key, json.dumps(value).encode())
    tags = {key: sha256(store.read(key)).hexdigest() for key in read_tag_manifest(store)}
    store.put(layout.TAG_MANIFEST, b"".join(manifest_line(*one) for one in sorted(tags.items())))
    return BundleReader(store)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "x' ; rm -rf ~ #"},
        {"size_bytes": 10**400},
        {"items": float("inf")},
        {"dispositions": {"exported": -1}},
        {"enumerations": [{"what": "rows", "how": "x", "count": 2**63}]},
    ],
)
def test_an_account_that_makes_no_sense_is_damage_and_no_defect(tmp_path, wrong):
    """A source's name stands in the commands of the page, for people to copy."""

    def change(key, value):
        if key == layout.RECONCILIATION:
            value["sources"][0] |= wrong

    with pytest.raises(DamageError, match=r"meta/reconciliation\.json"):
        gather(stranger(tmp_path, change))


def test_what_a_strangers_bundle_says_of_itself_is_text_too(tmp_path):
    def change(key, value):
        if key == layout.BUNDLE_META:
            value |= dict.fromkeys(("id", "software", "sealed", "created"), EVIL[4]) | {
                "continues": [EVIL[5]]
            }
            value["pace"] = {"start": "2026-01-01T00:00:00Z", "step_seconds": 1, "size_bytes": [10**400] * 3}
        else:
            source = value["sources"][0]
            source["dispositions"][EVIL[4]] = 3
            source["enumerations"] += [{"what": EVIL[4], "how": 7, "count": 3}]
            source["positions"] = [{EVIL[4]: EVIL[4]}]
            source["server"] = 7

    data = page(gather(stranger(tmp_path, change)))
    assert_harmless(parse(data))
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", data.decode()
    )


def test_a_lone_surrogate_does_not_break_the_page():
    assert name("a\udcffb") == '<bdi>a<span class="code">U+DCFF</span>b</bdi>'


def test_the_page_of_a_sealed_bundle_can_be_made_again_from_the_bundle(tmp_path):
    """So it says nothing that is not in there, and a seal that is done again ends in the same bytes."""
    export([Numbers()], open_location(str(tmp_path)), workers=2, progress=Silent())
    reader = BundleReader(open_location(str(tmp_path)))
    assert "REPORT.html" in reader.tags
    assert page(gather(reader)) == (tmp_path / "REPORT.html").read_bytes()


def test_an_incomplete_bundle_says_so_before_anything_else(tmp_path):
    gap = Gap("7", "failed", "unreadable <b>")
    outcome = export([Numbers(gaps={7: gap})], open_location(str(tmp_path)), workers=1, progress=Silent())
    assert not outcome.complete
    page = parse((tmp_path / "REPORT.html").read_bytes())
    assert page.text.index("Incomplete.") < page.text.index("Sealed")
    assert page.text.index("the same moveout export adds what is missing") < page.text.index("Sealed")
    assert "This page is named, with its SHA-256" in " ".join(page.text.split())
    assert "unreadable <b>" in page.text


def test_the_case_is_the_title_and_its_deadline_is_compared_with_the_seal(tmp_path):
    case = CaseInfo("Plaza <b>", "2000-01-01T00:00:00Z")
    options = ExportOptions(case=case)
    export([Numbers()], open_location(str(tmp_path)), workers=2, progress=Silent(), options=options)
    assert BundleReader(open_location(str(tmp_path))).info.case == case
    page = parse((tmp_path / "REPORT.html").read_bytes())
    assert "Plaza <b>" in page.text.partition("What left")[0]
    assert re.search(r"Deadline\s*2000-01-01 00:00:00 UTC\s*sealed [\d,]+ days \d+ h after it", page.text)


def test_bars_are_few_and_the_rest_is_summed_up():
    sums = {f"table {n}": n for n in range(100)}
    shown = most(sums)
    assert len(shown) == SHOWN_BARS + 1
    assert shown[0] == ("table 99", 99)
    assert shown[-1] == (OTHERS, sum(range(80)))
    assert sum(size for _, size in shown) == sum(sums.values())


def test_a_bar_is_as_long_as_its_share_and_one_alone_is_no_plot():
    bars = environment().get_template("macros.html").module.bars
    drawn = bars("Bytes", [("a", 200), ("b", 50), ("c", 1), ("empty", 0)])
    assert re.findall(r'"fill" width="([\d.]+)"', drawn) == ["100.00", "25.00", "0.50", "0.00"]
    assert bars("Bytes", [("a", 200), ("empty", 0)]).strip() == bars("Bytes", []).strip() == ""


@pytest.mark.parametrize("span", [0, 1, 100, 119, 120, 121, 86_400 * 9])
def test_the_pace_keeps_every_byte_in_few_steps(span):
    def at(second):
        moment = dt.datetime(2024, 2, 28, 23, 59, 50, tzinfo=dt.UTC) + dt.timedelta(seconds=second)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    pace = pace_of([(at(0), 5), (at(span // 2), 7), (at(span), 11)])
    assert pace
    assert sum(pace.size_bytes) == 23
    assert len(pace.size_bytes) <= MOST_PACE_STEPS
    assert pace.start == at(0)
    assert pace.end > at(span)
    assert decode_pace(json.loads(json.dumps(as_dict(pace)))) == pace
