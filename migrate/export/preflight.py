"""Whether this location may take this export, and what lies there of it already."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from migrate.bundle import bundle_json, export_state, layout
from migrate.bundle.export_state import ExportState, LocationKind, SourceName
from migrate.bundle.seal import clean_work, unseal
from migrate.errors import NotEmptyError, UsageError
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore, Store


def check_names(sources: Sequence[SourceName]) -> None:
    """Raise ``UsageError`` for names that a bundle cannot hold."""
    if not sources:
        raise UsageError("there is no source to export", next_step="name one: NAME=URL")
    for source in sources:
        if not layout.is_source_name(source.name):
            raise UsageError(
                f"{source.name!r} cannot be the name of a source",
                next_step="use lower-case letters, digits, - and _, at most 63",
            )
    if len({source.name for source in sources}) != len(sources):
        raise UsageError("two sources have the same name", next_step="give each its own")


def refuse_foreign(store: Store, case_sources: Sequence[SourceName]) -> bundle_json.BundleInfo | None:
    """Look, without writing, whether the location may take this export.

    Return the identity of a complete bundle of the same sources if that lies there (nothing is to be done),
    else None. Raises ``NotEmptyError`` where something else lies.
    """
    kind, key = export_state.look(store)
    if kind is LocationKind.FOREIGN:
        raise NotEmptyError(
            f"{store.location} is not empty: there is {key}",
            next_step="give an empty directory or another prefix for the bundle",
        )
    if kind is LocationKind.EXPORT:
        state = export_state.read_state(store)
        if state and not export_state.same_sources(state.sources, case_sources):
            raise export_state.claim_error(store, state.sources, case_sources)
    if kind is LocationKind.SEALED:
        info = bundle_json.read_sealed(store)
        assert info is not None
        if not export_state.same_sources(_names(info), case_sources):
            raise export_state.claim_error(store, _names(info), case_sources)
        if info.complete:
            return info
        raise NotEmptyError(
            f"{store.location} holds an incomplete bundle without the records of its work, perhaps a copy",
            next_step="continue at the location where it was made, or export to another location",
        )
    return None


def claim(
    store: MultipartStore, case_sources: Sequence[SourceName], *, executor: Executor, progress: Progress
) -> ExportState | bundle_json.BundleInfo:
    """Make the location ours, under the lease: begin, resume or continue. A bundle that proves complete is
    cleaned up and returned.
    """
    if (sealed_bundle := refuse_foreign(store, case_sources)) is not None:
        clean_work(store, executor)
        return sealed_bundle
    state = export_state.read_state(store)
    if state is None:
        state = export_state.new_state(case_sources)
        export_state.write_state(store, state)
        return state
    sealed = bundle_json.read_sealed(store)
    if sealed is None:
        return state
    if sealed.id != state.id:
        unseal(store)
        return state
    if sealed.complete:
        clean_work(store, executor)
        return sealed
    progress.note("the bundle was sealed incomplete; continuing it: what failed is tried again")
    state = export_state.new_state(state.sources, state)
    export_state.write_state(store, state)
    unseal(store)
    return state


def _names(info: bundle_json.BundleInfo) -> list[SourceName]:
    return [SourceName(source.name, source.url) for source in info.sources]
