"""A source's tables from a bundle into an empty MySQL or MariaDB database.

Tables (foreign keys are not checked meanwhile), then the rows in parallel, then the keys of large tables, routines,
views and triggers. Then the destination's rows are compared with the catalog's digests. Events come last of all. The
same command after a crash goes on where it was: see ``restore_state``. A part of it (``--only``) may come into a
database that has other things in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from msgspec.structs import replace

from exporters.api import Loss
from exporters.mysql.catalog import ELSEWHERE
from exporters.mysql.connection import parse_url
from exporters.mysql.definitions.show_create import label_of
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from exporters.mysql.errors import as_source_errors
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.server_settings import server_settings
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.bundle.reconciliation import RecordedChanges
from migrate.bundle.table_comparison import compare_tables
from migrate.changes.apply import Mark
from migrate.changes.segments import START
from migrate.errors import DamageError, NotEmptyError
from migrate.restore.common.api import RestoreOutcome, RestoreRequest
from migrate.restore.common.environment import note_other_settings
from migrate.restore.common.left_out import FinishedRestore, unique
from migrate.restore.common.report import RestoreReport
from migrate.restore.common.table_parts import WrittenRows, parts_of
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.mysql import restore_state
from migrate.restore.mysql.changes.follow_marks import FollowDetails, begin_mark, read_mark
from migrate.restore.mysql.context import MysqlRestore
from migrate.restore.mysql.definitions.accounts import (
    AccountMaker,
    Grants,
    note_locked,
    note_made,
    read_grants,
)
from migrate.restore.mysql.definitions.create_objects import make_all, note_expired, refuse_twins
from migrate.restore.mysql.definitions.deferred_keys import add_keys, note_pointing_nowhere, set_aside
from migrate.restore.mysql.definitions.dialect import adapter_for
from migrate.restore.mysql.definitions.recorded_definitions import (
    AFTER_ROWS,
    BEFORE_ROWS,
    LAST,
    Definition,
    of_any_database,
    read_definitions,
    running_events,
    select_definitions,
    step_of,
    without_running_events,
)
from migrate.restore.mysql.definitions.table_ddl import in_database, inheriting, uncounted
from migrate.restore.mysql.destination import all_content, find_content, open_destination
from migrate.restore.mysql.existing_tables import (
    in_the_way,
    make_kept_triggers,
    put_aside,
    set_counters,
    were_aside,
)

_NAMED_ALIKE = ("table", "view", "sequence")
"""What has one name only, and on some servers whatever its case."""
_FOR_ROWS = ("migrate.restore.mysql.rows.load_rows", "exporters.mysql.live_digests")
"""What works on rows: imported while the server makes the tables."""


class MysqlRestorer:
    """Restores MySQL and MariaDB databases; see ``Restorer``."""

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """See ``Restorer``. What is lost is what the other flavour has not, and what names its database itself. Raises
        ``NotEmptyError`` if the database holds something else and neither ``merge`` nor a selection is given,
        ``BusyError``, ``DamageError``, ``UsageError`` and errors of ``exporters.errors``.
        """
        run = TableRestore.of(request)
        address = parse_url(request.url, request.secrets)
        with as_source_errors(address.url):
            names = [definition["name"] for definition in read_definitions(request.reader, request.source)]
            with open_destination(address, names) as destination:
                make_kept_triggers(destination.connection)
                adapter = adapter_for(_server(run), destination.connection)
                job = MysqlRestore(run=run, merge=request.merge, destination=destination, adapter=adapter)
                outcome = _restore(job)
                if adapter is None and not job.losses:
                    return outcome
                losses = [*(adapter.losses if adapter is not None else ()), *job.losses]
                return RestoreReport(request.report, request.source).add_losses(outcome, losses)

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Read the record that restores keep in the database."""
        return restore_state.read_records(reader, source, url, secrets)


def _restore(job: MysqlRestore) -> RestoreOutcome:
    run, destination = job.run, job.destination
    definitions = _definitions(job)
    if job.is_followed:
        job.paused_events.extend(running_events(definitions))
        definitions = without_running_events(definitions)
    state = restore_state.read_state(destination)
    if state is None:
        if (outcome := _restored_before(job, definitions)) is not None:
            return outcome
        restore_state.begin_state(destination, run.state, alone=job.alone)
    else:
        how = f"drop the database (the state is in table {destination.connection.control.about})"
        run.require_same(state, where=destination.address.url, how=how)
    if run.selection.definitions:
        _note_database_names(job, definitions)
        written = _restore_definitions(job, definitions)
    else:
        written = _restore_rows(job, definitions)
    job.refused.extend(restore_state.read_refused(destination.connection))
    findings = [finding for missing in job.damaged.values() for finding in missing]
    findings += _differences(job) if run.selection.rows else []
    _note_left_out(job, definitions)
    if findings or job.too_large:
        _add_recorded(job)
    else:
        _finish(job, definitions)
    made = (
        note_locked(destination.connection, _grants(job), run.earlier)
        if run.selection.left_out
        else note_made(job.passwordless)
    )
    notes = [*made, *_pointing_nowhere(job), *job.notes]
    if run.selection.is_everything and (sessions := run.position_value("sessions")) is not None:
        notes += note_other_settings(sessions, server_settings(destination.connection))
    outcome = run.outcome(written, findings, notes, job.left_out)
    return replace(outcome, needs_others=_needs_others(job))


def _needs_others(job: MysqlRestore) -> bool:
    return not job.needed.isdisjoint(job.run.others)


def _pointing_nowhere(job: MysqlRestore) -> list[str]:
    if not job.run.selection.definitions:
        return []
    return note_pointing_nowhere(job.destination.connection, job.run.others)


def _note_left_out(job: MysqlRestore, definitions: Sequence[Definition]) -> None:
    """Gather what this restore could not make as at the source, and what earlier ones could not."""
    run = job.run
    for loss in (
        *restore_state.noted_losses(job.destination.connection),
        *restore_state.refused_losses(job.refused),
    ):
        job.note_loss(loss)
    if run.selection.rows:
        job.left_out.extend(
            f"the history of {quote_name(table.name)}: only MariaDB 10.11 and newer take one"
            for table in job.reduced
        )
    tried = {label for item in definitions if run.was_left_out(label := label_of(item))}
    job.left_out.extend(run.still_left_out(tried, _label))
    job.losses.extend(run.still_lost(_label))


def _add_recorded(job: MysqlRestore) -> None:
    """Add what earlier runs have recorded, and what the destination refuses."""
    recorded = restore_state.read_left_out(job.destination.connection)
    job.left_out[:] = unique(recorded.left_out, job.refusals, job.left_out)
    job.notes[:] = unique(recorded.notes, job.notes)
    job.losses[:] = unique(recorded.losses, job.losses)


def _definitions(job: MysqlRestore) -> list[Definition]:
    """Return what is to be made, as the destination can have it."""
    definitions = read_definitions(job.run.reader, job.run.source)
    if job.run.selection.definitions:
        _note_undefined(job, definitions)
    if job.run.selection.is_part:
        tables = set() if job.run.selection.left_out else {table.name for table in job.run.tables}
        chosen = select_definitions(definitions, tables)
        definitions = [item for item in definitions if item in chosen or job.run.was_left_out(label_of(item))]
    definitions = [of_any_database(definition) for definition in definitions]
    before, now = job.run.source_database, job.destination.address.database
    if before != now:
        definitions = [
            _view_in_database(definition, quote_name(before), quote_name(now)) for definition in definitions
        ]
    definitions = _without_twins(job, definitions)
    filled = {table.name for table in job.run.tables if table.items}
    definitions = [
        {**definition, "sql": uncounted(definition["sql"])}
        if definition["kind"] == "table" and definition["name"] in filled
        else definition
        for definition in definitions
    ]
    if job.adapter is not None:
        return job.adapter.adapt(definitions)
    return [
        {**definition, "sql": inheriting(definition["sql"])} if definition["kind"] == "table" else definition
        for definition in definitions
    ]


def _note_undefined(job: MysqlRestore, definitions: Sequence[Definition]) -> None:
    """Leave out the rows of tables of which the bundle has no definition."""
    made = {item["name"] for item in definitions if item["kind"] == "table"}
    undefined = [table.name for table in job.run.tables if table.name not in made]
    job.absent.update(undefined)
    job.refusals.extend(f"table {quote_name(name)}: the bundle has no definition of it" for name in undefined)


def _without_twins(job: MysqlRestore, definitions: Sequence[Definition]) -> list[Definition]:
    """Leave out what the destination takes for another thing, since the case of names says nothing there, and the
    triggers on it. The first one in the order of the names comes.
    """
    if job.destination.connection.variable("lower_case_table_names") == "0":
        return list(definitions)
    names = {item["name"] for item in definitions if item["kind"] in _NAMED_ALIKE}
    first = {name.lower(): name for name in sorted(names, reverse=True)}
    kept = []
    for item in definitions:
        named = str(item["table"] if item["kind"] == "trigger" else item["name"])
        is_named_so = item["kind"] in {*_NAMED_ALIKE, "trigger"}
        other = first.get(named.lower(), named) if is_named_so else named
        if other == named:
            kept.append(item)
        else:
            reason = f"the destination takes its name for {quote_name(other)} (lower_case_table_names)"
            job.refusals.append(f"{label_of(item)}: {reason}")
    job.absent.update(name for name in names if first[name.lower()] != name)
    return kept


def _view_in_database(definition: Definition, before: str, now: str) -> Definition:
    """Return a view of the database ``before`` for that called ``now``: the server prints both names, that of its own
    database too, as soon as the view has something of another one.
    """
    return (
        {**definition, "sql": in_database(definition["sql"], before, now)}
        if definition["kind"] == "view"
        else definition
    )


def _note_database_names(job: MysqlRestore, definitions: Sequence[Definition]) -> None:
    """Note what names the source's database itself, where the destination is called otherwise."""
    before, now = job.run.source_database, job.destination.address.database
    if not before or before.lower() == now.lower():
        return
    texts = ((f"{item['kind']} {quote_name(item['name'])}", item.get("sql", "")) for item in definitions)
    job.note_database_name(texts, now, "`")


def _finish(job: MysqlRestore, definitions: Sequence[Definition]) -> None:
    """All is there and equal: make what acts by itself, and drop the state."""
    if job.run.selection.definitions:
        make_all(job, definitions, LAST)
        note_expired(job, definitions)
        _note_engines(job)
    _add_recorded(job)
    record = job.run.record(job.left_out, job.notes, job.losses, job.passwordless)
    restore_state.finish(job.destination, job.run.state, record, job.run.superseded)
    _begin_following(job)
    if job.left_out and not _needs_others(job):
        job.notes.append(restore_state.how_to_forget(job.destination.connection))


def _server(run: TableRestore) -> str:
    """Return the name and version of the source's server."""
    return next(
        (
            reconciliation.summary.server
            for reconciliation in run.reader.reconciliation()
            if reconciliation.name == run.source
        ),
        "",
    )


def _restore_definitions(job: MysqlRestore, definitions: Sequence[Definition]) -> WrittenRows:
    """Make everything, and write the rows if they are selected."""
    run, destination = job.run, job.destination
    if job.alone:
        job.object_maker.set_database(definitions[0])
    definitions, later = set_aside(definitions, run.tables, foreign=job.adapter is not None)
    with ThreadPoolExecutor(1) as pool:
        for module in _FOR_ROWS if run.selection.rows else ():
            pool.submit(import_module, module)
        make_all(job, definitions, BEFORE_ROWS)
    _require_own_rows(job)
    written = _write_rows(job) if run.selection.rows else WrittenRows(0, 0)
    later = {name: items for name, items in later.items() if name not in job.absent}
    if later:
        run.progress.note(f"{run.source}: making keys")
        add_keys(destination.connection, later, restore_state.read_done(destination.connection), run.workers)
    maker = AccountMaker(destination.connection)
    if job.alone:
        maker.apply(_grants(job))
    make_all(job, _without_triggers(job, definitions), AFTER_ROWS)
    maker.retry()
    job.passwordless.extend(maker.passwordless)
    job.notes.extend(maker.notes())
    return written


def _restore_rows(job: MysqlRestore, definitions: Sequence[Definition]) -> WrittenRows:
    """Write the rows into tables that are there."""
    connection = job.destination.connection
    put_aside(job.run, job.destination, definitions, restore_state.read_done(connection))
    written = _write_rows(job)
    set_counters(job.run, job.destination, definitions)
    aside = were_aside(definitions, restore_state.read_done(connection))
    make_all(job, _without_triggers(job, aside), ("trigger",))
    return written


def _without_triggers(job: MysqlRestore, definitions: Sequence[Definition]) -> list[Definition]:
    """Leave out the triggers of tables that wait for rows: those must not fire them."""
    waiting = [
        trigger
        for trigger in definitions
        if trigger["kind"] == "trigger" and ("", trigger.get("table")) in job.waiting
    ]
    job.refusals.extend(
        f"trigger {quote_name(trigger['name'])}: it comes when the rows of its table are there"
        for trigger in waiting
    )
    return [definition for definition in definitions if definition not in waiting]


def _restored_before(job: MysqlRestore, definitions: Sequence[Definition]) -> RestoreOutcome | None:
    """Return the outcome if all is there already. Raises ``NotEmptyError`` if something is in the way of what is to
    come, ``UsageError`` for a table that has to be there.
    """
    run, connection = job.run, job.destination.connection
    if (outcome := _nothing_to_do_for_follow(job)) is not None:
        return outcome
    there: NotEmptyError | None
    try:
        there = _conflict(job, definitions)
    except NotEmptyError as exc:
        there = exc
    records, same = run.finished_records(
        lambda bundle: restore_state.read_finished(connection, bundle, run.source, connection.control)
    )
    if there is None:
        return None
    findings = None
    if run.selection.rows and run.tables:
        findings = _differences(job, records)
    elif same or _holds_all_objects(job, definitions):
        findings = []
    if findings is None or (findings and not same):
        raise there
    job.losses[:] = unique(job.losses, *(record.losses for record in records))
    if not findings:
        _begin_following(job)
    notes = note_locked(connection, _grants(job), records) if job.alone else []
    notes += _pointing_nowhere(job)
    if records:
        notes.append(restore_state.how_to_forget(connection))
    # A table whose name the destination takes for that of another one would be tried in that one's place.
    absent = None if job.absent else {table.key for table in run.tables} - run.destination_digests.keys()
    return run.nothing_to_do("database", records, findings, left_out=job.left_out, notes=notes, absent=absent)


def _begin_following(job: MysqlRestore) -> None:
    """Write that the destination is as the source was at the base of its changes, unless that is written already. Where
    tables that it lacked were tried again, write which ones it lacks.
    """
    connection, base = job.destination.connection, job.run.reader.changes(job.run.source)
    if base is None or not job.is_followed:
        return
    marked = _marked(job, base)
    if marked is None or job.run.selection.left_out:
        log, skipped = base.log, sorted(job.absent)
        events = unique(marked[1].events if marked else (), job.paused_events)
        details = FollowDetails(log["database"], log["stem"], events, skipped, folds=log.get("folds", False))
        begin_mark(connection, connection.control.follow, job.run.source, base.position, details)


def _marked(job: MysqlRestore, base: RecordedChanges) -> tuple[Mark, FollowDetails] | None:
    """Return how far the changes after a base were applied; None where the destination is not marked with it."""
    marked = read_mark(job.destination.connection, job.run.source)
    return marked if marked and marked[0].base == base.position else None


def _nothing_to_do_for_follow(job: MysqlRestore) -> RestoreOutcome | None:
    """Return that nothing is to be done where changes were applied since. Raises ``UsageError`` for a part."""
    run, connection = job.run, job.destination.connection
    base = run.reader.changes(run.source)
    marked = _marked(job, base) if base else None
    if marked is None or marked[0].place == START:
        return None
    records = restore_state.read_finished(connection, run.reader.info.id, run.source, connection.control)
    notes = note_locked(connection, _grants(job), records) if run.selection.is_everything else []
    return run.nothing_to_do_for_follow(job.destination.address.url, records, notes, job.left_out)


def _holds_all_objects(job: MysqlRestore, definitions: Sequence[Definition]) -> bool:
    """Tell whether a database without tables holds the bundle's objects, and no others."""
    if job.run.tables or not job.run.whole:
        return False
    kinds = {*BEFORE_ROWS, *AFTER_ROWS, *LAST} - {SPATIAL}
    names = {step_of(definition) for definition in definitions if definition["kind"] in kinds}
    return names == all_content(job.destination)


def _conflict(job: MysqlRestore, definitions: Sequence[Definition]) -> NotEmptyError | None:
    """Return the error where something is in the way. Raises ``NotEmptyError`` for a name that is both in the
    database and in the bundle, ``UsageError`` for a table that has to be there.
    """
    url = job.destination.address.url
    if not job.run.whole:
        return in_the_way(job.run, job.destination)
    connection = job.destination.connection
    conflict = "" if job.merge else find_content(connection, connection.control.names)
    if conflict:
        return NotEmptyError(
            f"{url} is not empty: it has the {conflict}",
            next_step="restore into a fresh, empty database, or say --merge if no name is in both",
        )
    refuse_twins(job.destination, definitions[1:])
    return None


def _write_rows(job: MysqlRestore) -> WrittenRows:
    """Write the parts that are not done."""
    from migrate.restore.mysql.rows.load_rows import RowWriter, empty_unfinished  # noqa: PLC0415  see ``_restore_definitions``

    run, connection = job.run, job.destination.connection
    parts = parts_of(_tables_to_fill(job))
    done = empty_unfinished(connection, parts, restore_state.read_done(connection))
    rows, ours = run.begin_rows(parts, done), run.selection.definitions
    writer = RowWriter(run.reader, connection, workers=run.workers, advance=rows.advance, ours=ours)
    writer.write_all(rows.parts)
    before = set(job.notes)
    job.note_damage(writer.damaged, _label)
    job.note_too_large(writer.too_large)
    job.recorded.update(set(job.notes) - before)  # once a later run has written the rest, they do not hold
    return rows.end()


def _note_engines(job: MysqlRestore) -> None:
    """A server that lacks an engine takes its default one, and only warns."""
    schema = quote_literal(job.destination.address.database)
    query = f"SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}"
    engines = {str(name): str(engine) for name, engine in job.destination.connection.rows(query)}
    source_engines = {
        table.name: str(table.details.get("engine")) for table in job.run.tables if table.name in engines
    }
    for name, engine in source_engines.items():
        if engines[name] != engine:
            reason = f"of engine {engines[name]} here: the destination has no {engine}"
            job.losses.append(Loss(f"table {quote_name(name)}", "engine", f"it is {reason}"))
            job.notes.append(f"{quote_name(name)} is {reason}")


def _require_own_rows(job: MysqlRestore) -> None:
    """Raise ``DamageError`` where the bundle has rows of a table whose engine keeps them elsewhere: they would come to
    another database, or to another server.
    """
    schema, engines = (
        quote_literal(job.destination.address.database),
        ", ".join(map(quote_literal, ELSEWHERE)),
    )
    query = (
        "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES"
        f" WHERE TABLE_SCHEMA = {schema} AND ENGINE IN ({engines})"
    )
    elsewhere = dict(job.destination.connection.rows(query))
    for table in _tables_to_fill(job):
        if table.name in elsewhere:
            expected = f"no rows of {quote_name(table.name)}, whose engine {elsewhere[table.name]} has none of its own"
            raise DamageError(layout.CATALOG, expected=expected, found=f"{table.items} rows")


def _tables_to_fill(job: MysqlRestore) -> Sequence[CatalogRow]:
    """Return the selected tables, but for those that the destination has refused."""
    return [table for table in job.run.tables if table.name not in job.absent]


def _grants(job: MysqlRestore) -> Grants:
    """Return what the source's accounts may on the source's database."""
    database = job.run.source_database
    return read_grants(job.run.reader, job.run.source, database, job.destination.address.database)


def _differences(job: MysqlRestore, records: Sequence[FinishedRestore] = ()) -> list[str]:
    """Compare the destination's rows with the bundle's, but for tables that the destination cannot hold whole, that
    the bundle has not whole, or that are as ``records`` say. Those of which it holds some values otherwise are
    compared as it has them, and the values named.
    """
    from exporters.mysql.live_digests import digest_tables  # noqa: PLC0415  see ``_restore_definitions``

    reduced = {table.key for table in job.reduced} | job.waiting
    tables = [
        restore_state.without_refused(table, job.refused)
        for table in _tables_to_fill(job)
        if table.key not in reduced
    ]
    run = replace(job.run, tables=tables)
    names = {table.name for table in run.tables} if run.selection.is_part else None
    address, advance = job.destination.address, run.begin_comparison()
    read = digest_tables(address, workers=run.workers, advance=advance, names=names)
    run.end_comparison(read.named_as(table.key for table in _tables_to_fill(job)).digests)
    return _settled(job, replace(run, tables=run.differing(records)))


def _settled(job: MysqlRestore, run: TableRestore) -> list[str]:
    """Return the findings that are more than values which the destination holds otherwise: those are losses."""
    from migrate.restore.mysql.rows.value_differences import held_otherwise  # noqa: PLC0415  see ``_restore_definitions``

    others = []
    for difference in compare_tables(run.tables, run.destination_digests):
        table = difference.table
        losses = held_otherwise(run, job.destination, table)
        job.losses.extend(losses)
        job.left_out.extend(f"values of {loss.item}: {loss.reason}" for loss in losses)
        if not losses:
            others.append(table)
    return run.findings(others, _label)


def _label(schema: str, name: str) -> str:
    del schema
    return quote_name(name)
