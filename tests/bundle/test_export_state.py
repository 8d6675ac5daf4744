"""Whose location it is: the state of an export, and whether a case means the same sources."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from migrate.bundle import export_state, layout
from migrate.bundle.bundle_json import LeftOutSource
from migrate.bundle.export_state import (
    ExportState,
    LocationKind,
    OtherSourcesError,
    SourceName,
    new_state,
    read_state,
    same_sources,
)
from migrate.errors import DamageError
from migrate.storage.local.store import LocalStore


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path)


def test_a_state_is_read_as_it_was_written_and_a_successor_names_it(store):
    sources = [
        SourceName("app", "sqlite:///app.db", "file 1\nfile 1, made on Monday", may_be_empty=True),
        SourceName("media", "s3://media"),
    ]
    first = replace(new_state(sources), left_out=[LeftOutSource("old", "sqlite:///old.db")])
    assert read_state(store) is None
    export_state.write_state(store, first)
    state = read_state(store)
    assert state == replace(first, continues=[])
    assert [source.may_be_empty for source in state.sources] == [True, False]
    second = new_state(sources[:1], new_state(sources, first))
    assert second.continues[0] == first.id
    assert len({second.id, *second.continues}) == 3
    assert (second.sources, second.left_out) == (sources[:1], first.left_out)


@pytest.mark.parametrize(
    ("unnamed", "step"),
    [
        (["a", "b"], "; moveout export --drop a --drop b leaves out on purpose what is not named any more"),
        ([], ""),
    ],
)
def test_the_bundle_of_other_sources_says_how_to_leave_them_out(unnamed, step):
    error = OtherSourcesError("other sources")
    error.unnamed = unnamed
    error.name_command("moveout export")
    assert error.next_step == (
        f"use another location for this export, or give the sources that this bundle was begun with{step}"
    )


def test_what_is_made_at_a_followed_source_keeps_its_name_in_the_bundles_that_continue():
    first = ExportState("11112222-3333", "", [])
    second = new_state([], first)
    assert export_state.followed_name("shop", first) == "shop_11112222"
    assert export_state.followed_name("", first) == "bundle_11112222"
    assert export_state.followed_name("shop", new_state([], second)) == "shop_11112222"


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.pop("id"),
        lambda it: it.update(sources=3),
        lambda it: it.update(sources=["app"]),
        lambda it: it.update(left_out=[{"name": "app"}]),
    ],
)
def test_a_malformed_state_is_damage(store, change):
    value = json.loads(export_state.encode_state(new_state([SourceName("app", "sqlite:///app.db")])))
    change(value)
    store.put(layout.EXPORT_STATE, json.dumps(value).encode())
    with pytest.raises(DamageError, match=layout.EXPORT_STATE):
        read_state(store)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (("postgresql://old/app", "a"), ("postgresql://new/app", "a"), True),
        (("postgresql://old/app", "a"), ("postgresql://old/app", "b"), False),
        (("postgresql://old/app", "a\nsurer"), ("postgresql://new/app", "a\nother"), False),
        (("postgresql://old/app", "x\nsurer"), ("postgresql://new/app", "y\nsurer"), True),
        (("postgresql://old/app", "a\nsurer"), ("postgresql://new/app", "a"), True),
        (("postgresql://me@old/app?sslmode=require", "a"), ("postgresql://you@old/app/", ""), True),
        (("postgresql://old/app", "a"), ("postgresql://old/shop", ""), False),
        (("postgresql://old/app", ""), ("postgresql://new/app", ""), False),
        (("postgresql://old/app", ""), ("mysql://old/app", ""), False),
    ],
)
def test_two_names_mean_one_source_by_identity_or_else_by_address(left, right, same):
    assert SourceName("app", *left).same_as(SourceName("shop", *right)) is same
    assert SourceName("shop", *right).same_as(SourceName("app", *left)) is same


def test_lists_name_the_same_sources_in_any_order():
    a, b, c = (SourceName(name, f"s3://{name}") for name in "abc")
    assert same_sources([a, b], [b, a])
    assert not same_sources([a, b], [a])
    assert not same_sources([a], [a, b])
    assert not same_sources([a, b], [a, c])
    assert not same_sources([a, b], [a, replace(b, url="s3://other")])


def test_a_look_tells_what_lies_at_a_location(store):
    assert export_state.look(store) == (LocationKind.EMPTY, "")
    store.put(f"{layout.WORK}app/units/x.json", b"{}")
    assert export_state.look(store) == (LocationKind.EMPTY, "")
    store.put(layout.TRANSFER_STATE, b"{}")
    assert export_state.look(store) == (LocationKind.FOREIGN, layout.TRANSFER_STATE)
    store.put(layout.TAG_MANIFEST, b"")
    assert export_state.look(store) == (LocationKind.SEALED, layout.TAG_MANIFEST)
    store.put(layout.EXPORT_STATE, b"{}")
    assert export_state.look(store) == (LocationKind.EXPORT, layout.EXPORT_STATE)


def test_the_time_of_a_seal_stays_for_one_bundle_only(store):
    state = ExportState("1", "", [])
    begun = export_state.seal_time(store, state)
    earlier = {"version": 1, "id": "1", "sealed": "2020-01-01T00:00:00Z"}
    assert json.loads(store.read(layout.SEAL_STATE)) == {**earlier, "sealed": begun}
    store.put(layout.SEAL_STATE, json.dumps(earlier).encode())
    assert export_state.seal_time(store, state) == earlier["sealed"]
    assert export_state.seal_time(store, ExportState("2", "", [])) >= begun
    for damaged in (b"{", json.dumps({**earlier, "sealed": 3}).encode()):
        store.put(layout.SEAL_STATE, damaged)
        assert export_state.seal_time(store, state) >= begun
