"""A script of fixes goes to the server that it is for, whatever names are there."""

import os
import subprocess

import pytest

from exporters.doctor import Finding, Fix
from exporters.postgres.identifiers import quote_name
from migrate.doctor.fix_scripts import make_scripts
from tests.exporters.postgres.databases import run_sql

NAMES = ("host=127.0.0.9 port=9 dbname=x", "postgresql://127.0.0.9:9/x", """it's "a\\b""", "plain")


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_database_sends_no_script_to_another_server(postgres, name):
    run_sql(postgres.url, f"CREATE DATABASE {quote_name(name)} TEMPLATE template0")
    try:
        fix = Fix("sql", "SELECT current_database();", "server", name)
        (script,) = make_scripts(
            [Finding("blocks", "rights", "t", "is not readable", "Rows are missing.", fix)]
        )
        psql = [postgres.bin_dir / "psql", "-qXAt", "-v", "ON_ERROR_STOP=1", "-d", postgres.url]
        env = {**os.environ, "PGPASSWORD": postgres.password}
        ended = subprocess.run(psql, input=script.text, env=env, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (0, f"{name}\n"), ended.stderr
    finally:
        run_sql(postgres.url, f"DROP DATABASE {quote_name(name)}")
