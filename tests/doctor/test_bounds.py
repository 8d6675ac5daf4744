"""What does not answer is given up; certificates, clocks and time zones are looked at."""

import socket
import sqlite3
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from exporters.doctor import ExamineRequest, Finding, Fix, clock_finding
from exporters.mysql import connection as mysql
from exporters.postgres.doctor import examine
from exporters.tls import read_certificate
from migrate.case.model import Endpoint
from migrate.doctor.fix_scripts import make_scripts
from migrate.doctor.run import MoveEndpoints, examine_all
from tests.exporters.postgres.databases import run_sql
from tests.tools.waiting import eventually


@pytest.fixture
def silent():
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system takes connections for it
        yield server.getsockname()[1]


def test_a_server_that_never_answers_does_not_keep_the_others_waiting(silent, postgres, monkeypatch):
    monkeypatch.setattr(mysql, "GREETING_SECONDS", 600.0)
    dead, good = Endpoint(f"mysql://me@127.0.0.1:{silent}/app"), Endpoint(postgres.database())
    began = time.monotonic()
    assert examine_all(MoveEndpoints({"good": good}, {}, {}, workers=1)).examined[0].examination.error is None
    seconds = int(2 + 5 * (time.monotonic() - began))  # enough for one that answers, on any machine
    report = examine_all(MoveEndpoints({"dead": dead, "good": good}, {}, {}, workers=1), seconds=seconds)
    silent_one, other = report.examined
    assert report.exit_code == 5
    assert [finding.severity for finding in silent_one.examination.findings] == ["blocks"]
    assert f"no answer within {seconds} s" in silent_one.examination.findings[0].problem
    assert other.examination.error is None
    assert other.examination.facts["snapshot"] == "exact"


def test_a_destination_that_is_the_source_is_called_so(tmp_path):
    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE t (i)").connection.close()
    url = f"sqlite://{tmp_path}/a.db"
    report = examine_all(MoveEndpoints({"a": Endpoint(url)}, {"a": Endpoint(url)}, {}, workers=1))
    [finding] = report.examined[1].examination.findings
    assert (report.exit_code, finding.severity, finding.problem) == (3, "blocks", "it is the source a itself")


def certificate(names, days):
    """A certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made, private.decode()


def test_the_certificate_of_a_server_is_looked_at(postgres):
    """Its names and when it expires, whether libpq checks it or not."""
    made, private = certificate(["db.old.example", "*.wild.example"], days=2)
    public = made.public_bytes(serialization.Encoding.PEM).decode()
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as connection:
        data = connection.execute("SHOW data_directory").fetchone()[0]
        for name, text in (("doctor.crt", public), ("doctor.key", private)):
            connection.execute(
                f"COPY (SELECT unnest(string_to_array('{text.strip()}', E'\\n'))) TO PROGRAM"
                f" 'umask 077; cat > \"{data}/{name}\"'"
            )
    settings = {"ssl_cert_file": "'doctor.crt'", "ssl_key_file": "'doctor.key'", "ssl": "on"}
    try:
        for name, value in settings.items():
            run_sql(postgres.url, f"ALTER SYSTEM SET {name} = {value}")
        run_sql(postgres.url, "SELECT pg_reload_conf()")
        eventually(lambda: examine(ExamineRequest(url)).facts["TLS"] != "none")
        report = examine(ExamineRequest(url))
    finally:
        for name in reversed(settings):
            run_sql(postgres.url, f"ALTER SYSTEM RESET {name}")
        run_sql(postgres.url, "SELECT pg_reload_conf()")
    assert report.facts["TLS"].startswith("TLSv1")
    problems = [finding.problem for finding in report.findings if finding.check == "TLS"]
    assert len(problems) == 2
    assert problems[0].startswith("its certificate expires ")
    assert "not for 127.0.0.1" in problems[1]


def test_names_of_certificates():
    made, _ = certificate(["db.old.example", "*.wild.example"], days=2)
    read = read_certificate(made.public_bytes(serialization.Encoding.DER), protocol="")
    hosts = (
        "db.old.example",
        "DB.old.example.",
        "a.wild.example",
        "a.b.wild.example",
        "old.example",
        "wild.example",
    )
    assert [read.is_for(host) for host in hosts] == [True, True, True, False, False, False]


def test_a_clock_that_is_off_is_named():
    [finding] = clock_finding("db", -3600, "db:5432")
    assert "3,600 s behind" in finding.problem
    assert finding.fix.text == "timedatectl set-ntp true"
    assert clock_finding("db", 2.0, "db:5432") == []


def test_names_of_strangers_give_no_command_to_a_script():
    name = 'x"\n\\! touch owned\n'
    fix = Fix("sql", "SELECT 1;", "db:5432", name)
    findings = [
        Finding("loses", "rights", name, "it", "It.", fix),
        Finding("loses", "rights", name, "it", "It.", replace(fix, database="app")),
        Finding("info", "rights", "t", "it", "It.", Fix("shell", "true\nfalse", "db")),
    ]
    texts = {script.name: script.text for script in make_scripts(findings)}
    assert not [line for line in texts["db-5432.sql"].splitlines() if line.startswith("\\!")]
    assert texts["db-5432.sql"].count("SELECT 1;") == 1
    assert texts["db.sh"].splitlines()[-2:] == ["# true", "# false"]
