"""MySQL and MariaDB."""

from exporters.engine import Engine

ENGINE = Engine(
    name="MySQL or MariaDB",
    schemes=("mysql", "mariadb"),
    secret_variables=("MYSQL_PWD",),
    exporter="exporters.mysql.source:MysqlExporter",
    summary_of_gone="exporters.sql.outline:summary_of_gone",
    contact="exporters.mysql.connection:contact",
    part_reader="exporters.mysql.part_reader:MysqlPartReader",
    live_reader="exporters.mysql.live_reader:MysqlLiveReader",
    restorer="migrate.restore.mysql.restore:MysqlRestorer",
    create="migrate.restore.mysql.destination:create_database",
    unfinished_restore="migrate.restore.mysql.restore_state:unfinished_restore",
    row_repair="migrate.restore.mysql.row_repair:open_repair",
    hold="migrate.custody.source_holds.mysql:open_hold",
    discovery="exporters.mysql.discovery:discover",
    doctor="exporters.mysql.doctor:examine",
    change_log="exporters.mysql.changes.log:open_change_log",
    change_base="exporters.mysql.changes.log:LogBase",
    change_writer="migrate.restore.mysql.changes.change_writer:open_change_writer",
    change_mark="migrate.restore.mysql.changes.follow_marks:applied_mark",
    definition_gaps="migrate.restore.mysql.changes.definition_gaps:definition_gaps",
    definition_state="migrate.restore.mysql.changes.definition_gaps:definition_state",
    remainder="migrate.restore.mysql.changes.remainder:carry_remainder",
    note_running="migrate.restore.mysql.changes.follow_marks:note_running",
    activation="migrate.restore.mysql.changes.follow_marks:start_events",
    deactivation="migrate.restore.mysql.changes.follow_marks:end_events",
    destination_doctor="migrate.doctor.mysql_destination:examine",
)
