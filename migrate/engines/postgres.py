"""PostgreSQL."""

from exporters.engine import Engine

ENGINE = Engine(
    name="PostgreSQL",
    schemes=("postgresql", "postgres"),
    secret_variables=("PGPASSWORD",),
    exporter="exporters.postgres.exporter:PostgresExporter",
    summary_of_gone="exporters.sql.outline:summary_of_gone",
    contact="exporters.postgres.exporter:contact",
    part_reader="exporters.postgres.part_reader:PostgresPartReader",
    live_reader="exporters.postgres.live_reader:PostgresLiveReader",
    restorer="migrate.restore.postgres.restore:PostgresRestorer",
    create="migrate.restore.postgres.destination:create_database",
    unfinished_restore="migrate.restore.postgres.restore_state:unfinished_restore",
    row_repair="migrate.restore.postgres.row_repair:open_repair",
    row_writer="migrate.restore.postgres.rows.load_rows:PostgresRows",
    hold="migrate.custody.source_holds.postgres:open_hold",
    discovery="exporters.postgres.discovery:discover",
    doctor="exporters.postgres.doctor:examine",
    change_log="exporters.postgres.changes.log:open_change_log",
    change_base="exporters.postgres.changes.log:LogBase",
    change_writer="migrate.restore.postgres.changes.change_writer:open_change_writer",
    destination_doctor="migrate.doctor.postgres_destination:examine",
    change_mark="migrate.restore.postgres.changes.follow_marks:applied_mark",
    definition_gaps="migrate.restore.postgres.changes.definition_gaps:definition_gaps",
    definition_state="migrate.restore.postgres.changes.definition_gaps:definition_state",
    remainder="migrate.restore.postgres.changes.remainder:carry_remainder",
    activation="migrate.restore.postgres.destination:make_durable",
)
