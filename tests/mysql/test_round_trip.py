"""Export, then restore: the target is the source."""

from migrate.verify.database import check_parquet


def test_parquet_renders_to_the_very_text_of_the_source(my_torture_bundle):
    tables = [row for row in my_torture_bundle.catalog() if row.kind == "table"]
    assert check_parquet(my_torture_bundle, tables) == []
