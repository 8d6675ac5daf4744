"""SQLite."""

from exporters.engine import Engine

ENGINE = Engine(
    name="SQLite",
    schemes=("sqlite",),
    url_names="file",
    secrets=(),
    exporter="exporters.sqlite.source:SqliteExporter",
    summary_of_gone="exporters.sqlite.files.directory:summary_of_gone",
    part_reader="exporters.sqlite.part_reader:SqlitePartReader",
    live_reader="exporters.sqlite.live_reader:SqliteLiveReader",
    restorer="migrate.restore.sqlite.restore:SqliteRestorer",
    create="migrate.restore.sqlite.destination:create_directory",
    row_repair="migrate.restore.sqlite.row_repair:open_repair",
    hold="migrate.custody.source_holds.sqlite:open_hold",
    discovery="exporters.sqlite.discovery:discover",
    doctor="exporters.sqlite.doctor:examine",
    destination_doctor="migrate.doctor.sqlite_destination:examine",
)
