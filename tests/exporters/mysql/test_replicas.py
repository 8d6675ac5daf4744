"""What a restore writes into the destination's binary log means the same to its replicas."""

import subprocess

from tests.exporters.mysql.databases import checksums, client, fetch, run_sql
from tests.tools.bundles import restore_from
from tests.tools.mysql_settings import global_settings

NAME = "replicated"
SCRIPT = r"""
CREATE TABLE texts (id INT PRIMARY KEY, t TEXT, b BLOB, d DATE DEFAULT '0000-00-00')
  PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (2) COMMENT = 'it''s \\',
  PARTITION p1 VALUES LESS THAN MAXVALUE);
SET sql_mode = '';
INSERT INTO texts VALUES
 (1, 'a\\', x'5C27FF5C', '0000-00-00'), (2, 'it''s \\n\n\\''"', x'00', '2024-01-01'),
 (3, '\\%\\_', '\\0', NULL);
"""


def test_the_binary_log_of_a_restore_makes_the_same_rows(my_exported, mariadb, other_mariadb):
    url, reader = my_exported(SCRIPT)
    destination, replica = other_mariadb.database(NAME), mariadb.database(NAME)
    try:
        with global_settings(other_mariadb.url, binlog_format="STATEMENT"):
            run_sql(destination, "FLUSH BINARY LOGS")
            (log, *_), *_ = fetch(destination, "SHOW MASTER STATUS")
            assert restore_from(reader, "app", destination).findings == ()
        run_sql(destination, "FLUSH BINARY LOGS")
        command = ["mariadb-binlog", f"--database={NAME}", other_mariadb.directory / "data" / log]
        output = subprocess.run(command, capture_output=True, check=True).stdout
        client("mariadb", replica, "--binary-mode", given=output.decode(errors="surrogateescape"))
        assert checksums(replica) == checksums(destination) == checksums(url)
    finally:
        for server in (mariadb, other_mariadb):
            run_sql(server.url, f"DROP DATABASE {NAME}")
