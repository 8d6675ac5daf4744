"""A bundle grows and mends: sources come in, go out on purpose, and may be reached by other ways."""

import pytest

from exporters.api import Gap
from exporters.errors import SourceUnreachableError
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError
from migrate.export.open_sources import UnreadableSource
from migrate.export.outcome import ExportOptions
from migrate.export.run import export, seal_unasked
from migrate.runtime.progress import Silent
from migrate.verify.run import Level, verify
from tests.export.sources import Numbers

LOST = {13: Gap("13", "failed", "it changed")}


class Known(Numbers):
    """Numbers on a server that says what it is."""

    identity = "numbers:1/app"


class Another(Known):
    """The same name on another server."""

    identity = "numbers:2/app"


def go(store, *sources, **options):
    return export(sources, store, workers=1, progress=Silent(), options=ExportOptions(**options))


def test_sources_are_added_to_an_incomplete_bundle(store):
    first = go(store, Known(gaps=LOST))
    app = Known()
    second = go(store, app, Numbers("more", "numbers://host/more"))
    assert (second.complete, [source.name for source in second.sources]) == (True, ["app", "more"])
    assert app.exported == ["chunk/00000010"], "what was there stays"
    info = BundleReader(store).info
    assert (info.continues, info.source("app").identity) == ([first.bundle_id], "numbers:1/app")
    with pytest.raises(NotEmptyError, match="holds the bundle of"):
        go(store, app, Numbers("more", "numbers://host/more"), Numbers("third", "numbers://host/third"))


def test_user_host_and_port_may_change_where_the_server_says_what_it_is(store):
    go(store, Known(gaps=LOST))
    moved = Known(url="numbers://somebody@alias:5433/app")
    assert go(store, moved).complete
    assert moved.exported == ["chunk/00000010"]
    assert BundleReader(store).info.source("app").url == "numbers://somebody@alias:5433/app"
    again = go(store, Known(url="numbers://host/app"))
    assert again.already_sealed, "a complete bundle is known by the same identity"
    with pytest.raises(NotEmptyError):
        go(store, Another())


def test_another_source_under_the_same_name_is_refused_with_both_named(store):
    go(store, Known(gaps=LOST))
    with pytest.raises(
        NotEmptyError, match=r"app \(numbers:1/app\), and .*app \(numbers:2/app\) is another"
    ) as caught:
        go(store, Another())
    assert "--drop app" in caught.value.next_step
    lost = UnreadableSource("app", "numbers://elsewhere/app", SourceUnreachableError("no answer"))
    assert go(store, lost).exit_code == 3, "what cannot be asked is not refused"
    assert go(store, Known()).complete


def test_a_source_of_which_nothing_was_exported_may_become_another(store):
    lost = UnreadableSource("more", "numbers://typo/more", SourceUnreachableError("no answer"))
    assert go(store, Known(), lost).exit_code == 3
    assert go(store, Known(), Numbers("more", "numbers://host/more")).complete


def test_a_source_goes_out_on_purpose(store, tmp_path):
    go(store, Known(), Numbers("more", "numbers://host/more", gaps=LOST))
    with pytest.raises(NotEmptyError, match="more=numbers://host/more") as caught:
        go(store, Known())
    assert "--drop more" in caught.value.next_step
    outcome = go(store, Known(), dropped={"more"})
    assert (outcome.complete, [source.name for source in outcome.left_out]) == (True, ["more"])
    reader = BundleReader(store)
    assert [(source.name, source.url) for source in reader.info.left_out] == [("more", "numbers://host/more")]
    assert not (tmp_path / "location/data/more").exists()
    assert verify(store, Level.FULL, workers=1, progress=Silent()).findings == []


@pytest.mark.parametrize("allowed", [True, False])
def test_an_empty_source_is_incomplete_unless_it_may_be_empty(store, allowed):
    empty = Numbers("none", "numbers://host/none", count=0)
    outcome = go(store, Numbers(), empty, may_be_empty={"none"} if allowed else ())
    assert outcome.complete is allowed
    assert outcome.sources[1].reasons == (
        []
        if allowed
        else [
            "it is empty: there is no object in it: check its name, prefix and filters, or say --allow-empty"
        ]
    )
    assert go(store, Numbers(), Numbers("none", "numbers://host/none", count=1)).complete


def test_a_seal_without_the_sources_knows_what_may_be_empty(store):
    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(
            store,
            Numbers(count=0),
            Numbers("more", "numbers://host/more", on_finish=die),
            may_be_empty={"app"},
        )
    sealed = seal_unasked(store, workers=1, progress=Silent())
    assert [source.complete for source in sealed.sources] == [True, False]
