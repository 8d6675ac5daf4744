"""Every command of the guide for a whole host runs, in order, from nothing to everything on the new host."""

import re

import pytest

from tests.docs.guide_shell import run_text
from tests.docs.pages import blocks

PAGE = "docs/guides/whole-host.md"


@pytest.mark.torture
def test_a_whole_host_moves_by_the_commands_of_the_guide(
    old_host, other_postgres, other_mariadb, other_minio, tmp_path
):
    old = {
        "postgresql://mover@db.old.example": old_host.pg,
        "mysql://mover@my.old.example": old_host.my,
        "?profile=old": f"?profile={old_host.minio.profile}",
        "/srv/app": str(old_host.files),
        "s3://shop-*": "s3://m*",
        "postgresql://owner@db.new.example": f"postgresql://postgres@{other_postgres.host}:{other_postgres.port}",
        "?profile=new": f"?profile={other_minio.profile}",
    }

    def shell(text, code):
        for guide, real in old.items():
            text = text.replace(guide, real)
        ended = run_text(text, folder=tmp_path, env={})
        assert ended.code == code, ended.out + ended.err
        return ended.out

    discover, doctor, run, status, again, both = blocks(PAGE, "sh")
    assert "closed" in shell(discover, 3)
    case = tmp_path / "moveout.toml"
    text = case.read_text()
    new = {
        old_host.pg: old["postgresql://owner@db.new.example"],
        old_host.my: f"mysql://moveout@{other_mariadb.host}:{other_mariadb.port}",
        old_host.s3: f"s3://{old['?profile=new']}",
        f"sqlite://{old_host.files}": f"sqlite://{tmp_path}/new",
    }
    for server, address in new.items():
        text = text.replace(f'from = "{server}"\nto = ""', f'from = "{server}"\nto = "{address}"')
    case.write_text(re.sub(r"\n\[\[source\]\]\nname = \"closed\"\nurl = [^\n]*\n(#[^\n]*\n)*", "\n", text))
    assert "blocks" not in shell(doctor, 0)
    old_host.postgres.database("added-later")
    try:
        printed = " ".join(shell(run, 0).split())
        also = f"Also on {old_host.pg}, not taken: added-later, closed."
        assert printed.count(also) == 2, "the plan says it, and the summary"
        assert "Up on the new host: all 13 sources." in printed
        shell(status, 0)
        assert "added-later" in shell(again, 3)
    finally:
        old_host.postgres.execute('DROP DATABASE "added-later"')
    export, restore = both.replace("\\\n", " ").strip().splitlines()
    shell(export.replace("/*", "/a*"), 0)
    other_postgres.execute("DROP DATABASE app")
    shell(restore.replace("s3://*", "s3://n*"), 0)
