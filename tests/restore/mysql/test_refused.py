"""What the destination refuses of a database costs that and nothing else, and is named."""

import pyarrow.parquet as pq
import pymysql
import pytest

from exporters.mysql.connection import parse_url
from migrate.restore.common.table_restore import State
from migrate.restore.mysql.destination import open_destination
from migrate.restore.mysql.restore_state import begin_state, noted_losses
from migrate.restore.mysql.rows.relaxed_constraints import Relaxation, loosen
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import fetch, live_tables, run_sql
from tests.tools.bundles import restore_from

SCRIPT = """
CREATE TABLE placed (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v INT DEFAULT 5, h GEOMETRY,
  g GEOMETRY NOT NULL, KEY (v));
ALTER TABLE placed ADD UNIQUE KEY `u` (id, h(4), g(16));
INSERT INTO placed (v, g) VALUES (1, POINT(1,1)), (2, POINT(2,2));
CREATE TRIGGER t BEFORE INSERT ON placed FOR EACH ROW SET NEW.v = 9;
"""


def test_a_key_that_a_server_makes_only_by_and_by_is_named_and_its_table_comes(
    my_exported, other_mariadb, tmp_path
):
    url, reader = my_exported(SCRIPT)
    destination = other_mariadb.database()
    account = open_location(str(tmp_path / "kept"))
    outcome = restore_from(reader, "app", destination, report=account)
    assert outcome.findings == ()
    assert live_tables(parse_url(destination)) == live_tables(parse_url(url))
    losses = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert [(one["item"], one["property"]) for one in losses] == [("table `placed`", "key")]
    assert outcome.left_out[0].startswith(
        "table `placed`: UNIQUE KEY `u` (`id`,`h`,`g`(16)): AUTO_INCREMENT "
    )
    made = fetch(destination, "SHOW CREATE TABLE placed")[0][1]
    assert (
        made.replace("  KEY `v`", "  UNIQUE KEY `u` (`id`,`h`,`g`(16)),\n  KEY `v`")
        == (fetch(url, "SHOW CREATE TABLE placed")[0][1])
    )
    assert fetch(destination, "SHOW TRIGGERS")[0][0] == "t"


@pytest.mark.parametrize(
    ("error", "said", "way", "changed"),
    [
        (1062, "Duplicate entry 'a-1' for key 'u`,'", Relaxation.PART, "  KEY `u``,` (`a`,`b`)"),
        (1062, "Duplicate entry '1' for key 'PRIMARY'", Relaxation.PART, "  KEY `id` (`id`)"),
        (1048, "Column 'a' cannot be null", Relaxation.PART, "  `a` varchar(9) DEFAULT NULL"),
        (1526, "Table has no partition for value 7", Relaxation.PART, "utf8mb4_general_ci"),
        (1416, "Cannot get geometry object", Relaxation.TABLE, "  `c` int(11) DEFAULT NULL COMMENT 'x'"),
        (
            1153,
            "Got a packet bigger than",
            Relaxation.NONE,
            "  `c` int(11) GENERATED ALWAYS AS (`b` + 1) VIRTUAL COMMENT 'x'",
        ),
    ],
)
def test_what_keeps_rows_out_gives_way_and_is_noted(mariadb, error, said, way, changed):
    url = mariadb.database()
    unique = "" if error == 1526 else ", UNIQUE KEY `u``,` (a, b)"
    run_sql(
        url,
        f"CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(9) NOT NULL, c INT AS (b + 1) COMMENT 'x', b INT{unique})"
        + (" PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (7))" if error == 1526 else ""),
    )
    with open_destination(parse_url(url)) as destination:
        begin_state(destination, State("bundle", "app"))
        assert loosen(destination.connection, "t", pymysql.err.OperationalError(error, said)) is way
        noted = list(noted_losses(destination.connection))
    assert len(noted) == (way is not Relaxation.NONE)
    lines = fetch(url, "SHOW CREATE TABLE t")[0][1].splitlines()
    assert changed in [line.rstrip(",") for line in lines] or lines[-1].endswith(changed)
