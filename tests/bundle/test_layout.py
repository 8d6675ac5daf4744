"""Which names a bundle's files, its tag files, its sources and the notes of an export may have."""

from __future__ import annotations

import pytest

from migrate.bundle import commit_records, export_state, layout, reconciliation
from migrate.transfer import destination


@pytest.mark.parametrize("name", ["a", "data/app/packs/pack-000001.tar", "a.b_c-9/0"])
def test_names_that_a_payload_may_have(name):
    assert layout.is_payload_name(name)
    assert layout.is_tag_name(name) is not name.startswith("data/")


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", ".", "a/./b", "..", "a/..", "../a", "a b", "a\n", "ä", "a\\b", "a%2f"]
)
def test_names_that_no_file_may_have(name):
    assert not layout.is_payload_name(name)
    assert not layout.is_tag_name(name)


def test_tag_files_may_have_capitals_and_lie_outside_of_what_is_no_bundle():
    assert layout.is_tag_name(layout.REPORT)
    assert not layout.is_payload_name(layout.REPORT)
    assert not layout.is_tag_name("\u212a")  # a Kelvin sign, whose lower case is the letter k
    for prefix in (layout.DATA, layout.WORK, layout.CHANGES, layout.RESTORED):
        assert not layout.is_tag_name(f"{prefix}a")
    assert layout.is_tag_name(layout.TREE)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a", True), ("9", True), ("a-b_c", True), ("a" * 63, True), ("a" * 64, False), ("", False), ("-a", False),
        ("_a", False), ("A", False), ("a.b", False), ("a/b", False), ("a\n", False),
    ],
)  # fmt: skip
def test_names_of_sources(name, is_one):
    assert layout.is_source_name(name) is is_one


@pytest.mark.parametrize(
    ("key", "is_one"),
    [
        (layout.EXPORT_STATE, True), (layout.SEAL_STATE, True), (layout.commit_record("app", "1"), True),
        (layout.workspace_file("app", "plan.json"), True), (layout.TRANSFER_STATE, True),
        (layout.WORK, False), (layout.LEASE, False), (layout.RESERVE, False),
        (layout.progress_file("export"), False), ("data/app/a", False), (f"x{layout.EXPORT_STATE}", False),
    ],
)  # fmt: skip
def test_notes_of_an_export_are_written_by_who_holds_the_lease_alone(key, is_one):
    assert layout.is_note_of_export(key) is is_one


def test_where_the_files_of_a_source_lie():
    assert layout.source_file("app", "a/b") == "data/app/a/b"
    assert layout.duckdb_script("app") == "data/app/duckdb.sql"
    assert layout.workspace_file("app", "a") == "_work/app/state/a"
    assert (
        layout.commit_record("app", "a/1")
        == layout.units_prefix("app") + "a/1.json"
        == "_work/app/units/a/1.json"
    )
    assert (
        layout.group_record("app", "a") == layout.groups_prefix("app") + "a.json" == "_work/app/groups/a.json"
    )
    assert layout.final_record("app") == "_work/app/final.json"
    assert layout.plan_totals("app") == "_work/app/plan.json"
    assert layout.progress_file("export") == "_work/progress-export.json"


def test_the_custody_log_belongs_to_its_location():
    assert layout.is_custody(layout.CUSTODY_LOG)
    assert layout.is_custody(layout.CUSTODY_HEAD)
    assert not layout.is_custody(layout.CHECKPOINT)


def test_statements_and_their_signatures_are_documents():
    receipt = f"sig/receipt-{'0f' * 8}.json"
    assert all(layout.is_document(name) for name in (receipt, f"{receipt}.{'a' * 16}.sig"))
    others = (
        layout.CUSTODY_LOG,
        layout.CHECKPOINT,
        f"{receipt}.sig",
        f"_work/{receipt}",
        f"{receipt}/x",
        "sig/x.json",
    )
    assert not any(layout.is_document(name) for name in others)


def test_documents_of_the_format_have_its_first_version():
    """Who changes one breaks bundles that exist: FORMAT.md says it."""
    modules = (commit_records, export_state, layout, reconciliation, destination)
    assert {module.VERSION for module in modules} == {1}
    assert reconciliation.reconciliation_json([])["version"] == 1
