"""``moveout report`` writes what is known now, outside of the bundle."""

import hashlib
import re
import shutil

import psycopg
from msgspec.structs import replace

from migrate.export.run import export
from migrate.restore.restore_records import RestoreRecords, read_restore_records
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.cli.conftest import call, make_file
from tests.export.sources import Numbers
from tests.tools.pages import assert_harmless, parse


def test_the_report_tells_what_was_verified_and_restored_since(tmp_path, shop, other_postgres):
    bundle, file = tmp_path / "bundle", tmp_path / "page.html"
    assert call("export", f"app={shop}", "--to", bundle, "-q").code == 0
    sealed = parse((bundle / "REPORT.html").read_bytes())
    assert_harmless(sealed)
    assert sealed.text.count("not read yet") == 4
    assert "it does not know of later transfers, checks and restores" in sealed.text
    new = other_postgres.database()
    results = []
    for words in (
        ("restore", bundle, f"app={new}"),
        ("verify", bundle),
        ("verify", bundle, "--against", f"app={new}"),
    ):
        ended = call(*words, "--json")
        assert ended.code == 0, ended.err
        results.append(tmp_path / f"{len(results)}.json")
        results[-1].write_text(ended.out)
    options = [word for result in results for word in ("--result", result)]
    assert call("report", bundle, *options, "--out", file).code == 0
    told = parse(file.read_bytes())
    assert_harmless(told)
    assert told.text.count("identical") == 4
    assert told.text.count("all well") == 4
    with psycopg.connect(new) as connection:
        connection.execute("UPDATE customers SET balance = balance + 0.01 WHERE id = 7")
    ended = call("report", bundle, "--level", "full", "--against", f"app={new}", "--out", file, "--json")
    assert ended.code == 6
    told = parse(file.read_bytes())
    assert "1 finding after the seal" in told.text
    assert told.text.count("identical") == 3


def test_the_result_of_a_whole_run_tells_what_was_verified_and_restored(tmp_path):
    make_file(tmp_path / "a.db")
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[case]\ndeadline = "2099-01-01T00:00:00Z"\n[bundle]\nlocation = "bundle"\n'
        f'[[source]]\nname = "a"\nurl = "sqlite://{tmp_path}/a.db"\n'
        f'[[destination]]\nsource = "a"\nurl = "sqlite://{tmp_path}/new.db"\n'
    )
    ended = call("run", "-c", case, "--json")
    assert ended.code == 0, ended.err
    (tmp_path / "run.json").write_text(ended.out)
    page = tmp_path / "page.html"
    assert call("report", "-c", case, "--out", page).code == 0
    report = parse(page.read_bytes())
    assert f"a restored to sqlite://{tmp_path}/new.db" in report.text, "recorded next to the bundle"
    assert re.search(r"up and compared [\d,]+ days \d+ h before it", report.text), report.text
    [record] = read_restore_records([open_location(str(tmp_path / "bundle"))])
    failed = replace(record, source="b", result="no", happened="not restored: it is shut")
    part = replace(record, source="c", result="in part", happened="restored, 2 items, without: a table")
    RestoreRecords([lambda: open_location(str(tmp_path / "bundle"))]).write(failed)
    RestoreRecords([lambda: open_location(str(tmp_path / "bundle"))]).write(part)
    moved = tmp_path / "moved.toml"
    moved.write_text(case.read_text() + f'[transfer]\nlocation = "{tmp_path}/copy"\n')
    assert call("transfer", tmp_path / "bundle", tmp_path / "copy").code == 0
    assert call("report", "-c", moved, "--out", page).code == 0
    report = parse(page.read_bytes())
    assert f"a restored to sqlite://{tmp_path}/new.db" in report.text, "recorded at the other location"
    assert "Restore of b " in report.text
    assert "b restored to" not in report.text
    assert "left out: a table" in report.text
    shutil.rmtree(tmp_path / "bundle/restored")
    assert call("report", "-c", case, "--result", tmp_path / "run.json", "--out", page).code == 0
    report = parse(page.read_bytes())
    assert report.text.count("all well") == 2
    assert "identical" in report.text
    assert re.search(r"up and compared [\d,]+ days \d+ h before it", report.text), report.text


def test_the_report_of_a_case_before_its_transfer_is_about_the_export_and_says_so(tmp_path):
    make_file(tmp_path / "a.db")
    case = tmp_path / "moveout.toml"
    case.write_text(
        '[bundle]\nlocation = "bundle"\n[transfer]\nlocation = "new"\n'
        f'[[source]]\nname = "a"\nurl = "sqlite://{tmp_path}/a.db"\n'
    )
    before = call("report", "-c", case, "--out", tmp_path / "page.html")
    assert (before.code, "/new\n" in before.err) == (7, True), before
    assert call("export", "-c", case).code == 0
    ended = call("report", "-c", case, "--out", tmp_path / "page.html")
    lines = " ".join(ended.out.split())
    assert ended.code == 3, ended
    assert f"! there is nothing at file://{tmp_path}/new: the page is about" in lines
    assert f"file://{tmp_path}/bundle" in parse((tmp_path / "page.html").read_bytes()).text
    assert call("transfer", "-c", case).code == 0
    assert call("report", "-c", case, "--out", tmp_path / "page.html").code == 0
    assert f"file://{tmp_path}/new" in parse((tmp_path / "page.html").read_bytes()).text


def test_the_report_is_not_written_into_the_bundle_nor_from_another_bundles_results(tmp_path):
    for location in ("one", "other"):
        export([Numbers()], open_location(str(tmp_path / location)), workers=1, progress=Silent())
    inside = call("report", tmp_path / "one", "--out", tmp_path / "one/page.html")
    assert inside.code == 2
    (tmp_path / "one").rename(tmp_path / "on e")
    inside = call("report", (tmp_path / "on e").as_uri(), "--out", tmp_path / "on e/page.html")
    assert inside.code == 2
    (tmp_path / "on e").rename(tmp_path / "one")
    assert not (tmp_path / "one/page.html").exists()
    result = tmp_path / "result.json"
    result.write_text(call("verify", tmp_path / "other", "--json").out)
    wrong = call("report", tmp_path / "one", "--result", result, "--out", tmp_path / "page.html")
    assert wrong.code == 2
    assert "is of bundle" in wrong.err


def test_the_report_names_signers_and_who_did_what(tmp_path):
    key, bundle, file = tmp_path / "key", tmp_path / "bundle", tmp_path / "page.html"
    export([Numbers()], open_location(str(bundle)), workers=1, progress=Silent())
    made = call("keys", "init", key, "--name", "<b>host</b>", "--json")
    assert made.code == 0, made.err
    assert call("sign", bundle, "--key", key).code == 0
    assert call("verify", bundle, "--key", key).code == 0
    assert call("report", bundle, "--out", file).code == 0
    told = parse(file.read_bytes())
    assert_harmless(told)
    assert "Signed bySHA256:" in told.text
    assert hashlib.sha256((bundle / "tagmanifest-sha256.txt").read_bytes()).hexdigest() in told.text
    assert "Who did what" in told.text
    assert "verified" in told.text
    assert "all well" in told.text
