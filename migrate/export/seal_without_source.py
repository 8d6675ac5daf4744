"""A seal without the sources: what earlier runs left at the location, when nobody can or will ask the sources again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from exporters.api import Snapshot, Survey, Workspace
from exporters.errors import SourceGoneError
from migrate.bundle import bundle_json, export_state
from migrate.bundle.commit_records import read_final, record_ids
from migrate.errors import GoneError, UsageError
from migrate.export.outcome import ExportOptions, ExportOutcome
from migrate.export.run import described, export
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore, Store


@dataclass(slots=True)
class Unasked:
    """A source that is not asked any more: what a run finished counts, of all else nobody can say what is missing."""

    name: str
    url: str

    def survey(self) -> Survey:
        """Raise ``SourceGoneError``."""
        raise self._error

    def snapshot(self, workspace: Workspace, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Raise ``SourceGoneError``."""
        del workspace, workers
        raise self._error

    def close(self) -> None:
        """There is nothing to close."""

    @property
    def _error(self) -> SourceGoneError:
        return SourceGoneError("it was not finished, and is not asked again by this seal")


def seal_unasked(store: MultipartStore, *, workers: int, progress: Progress) -> ExportOutcome:
    """Seal what lies at the location: complete where every source had been finished and its counts agree, else
    incomplete.

    Nothing is done where it is sealed. Raises ``UsageError`` where no run has left anything to seal, ``BusyError``.
    """
    state, sealed = export_state.read_state(store), bundle_json.read_sealed(store)
    if sealed is not None and (state is None or state.id == sealed.id):
        return described(store, sealed)
    if state is None or not any(_begun(store, source.name) for source in state.sources):
        raise UsageError(
            f"nothing was exported to {store.location} yet", next_step="moveout export begins it"
        )
    sources = [Unasked(source.name, source.url) for source in state.sources]
    options = ExportOptions(seal_incomplete=True, ask=False)
    outcome = export(sources, store, workers=workers, progress=progress, options=options)
    return replace(outcome, broken=())  # that the sources were not asked is no error here


def _begun(store: Store, source: str) -> bool:
    try:
        read_final(store, source)
    except GoneError:
        return next(iter(record_ids(store, source)), None) is not None
    return True
