"""Progress ends with the numbers that the result says, whatever was estimated."""

import re

from tests.cli.conftest import call
from tests.exporters.postgres.databases import run_sql

SOURCE = """
CREATE TABLE t AS SELECT n AS id, repeat('x', 100) AS t FROM generate_series(1, 2000) n;
CREATE TABLE computed (a int, b text GENERATED ALWAYS AS (repeat('y', 300)) STORED);
INSERT INTO computed SELECT n FROM generate_series(1, 500) n;
CREATE MATERIALIZED VIEW m AS SELECT * FROM t LIMIT 70;
SELECT lo_from_bytea(0, convert_to(repeat('large', 60000), 'UTF8')) FROM generate_series(1, 3)
"""
_STAGE = r"{}  100%  ([\d,]+) of ([\d,]+)  (.+?) of (.+?)  "


def end_of(what: str, err: str) -> tuple[str, ...]:
    return re.findall(_STAGE.format(what), err)[-1]


def test_progress_ends_with_the_numbers_of_the_result(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, SOURCE)
    exported = call("export", f"app={url}", "--to", tmp_path / "bundle")
    ((rows, size),) = re.findall(r"app  ([\d,]+) exported, (.+) read", exported.out)
    assert rows == "2,579"
    assert end_of("export app", exported.err) == (rows, rows, size, size)
    restored = call("restore", tmp_path / "bundle", f"app={destination}", "--report-to", tmp_path / "account")
    ((rows, size),) = re.findall(
        r"app: ([\d,]+) restored and 70 computed \(materialized views\), (.+) →", restored.out
    )
    assert rows == "2,509"
    assert end_of("restore app", restored.err) == (rows, rows, size, size)
    assert end_of("compare app and its materialized views", restored.err)[:2] == ("2,579", "2,579")
