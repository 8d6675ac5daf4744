"""Every command of the guides runs, in order, against real servers whose addresses stand in for those of the guide."""

import itertools
import os
import re
import shlex
import sys
import time
from pathlib import Path

import pytest
import typer

from scripts.process import free_port
from tests.cli.conftest import command_line, make_file
from tests.docs.guide_shell import run_text
from tests.docs.pages import DOCS, ROOT, blocks
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.clients import boto_client

BIN = Path(sys.executable).parent
SHOP = "CREATE SCHEMA social; CREATE TABLE social.logins AS SELECT n, n::text AS name FROM generate_series(1, 99) n"
STRANGERS = re.compile(r"\.example|amazonaws|profile=(old|new|aws|admin)\b")
"""What must not be left of a guide's addresses."""


@pytest.fixture
def shell(tmp_path, postgres):
    """A function that runs commands in the test's folder, with words replaced. It returns what they print."""
    env = {
        "PATH": f"{BIN}:{postgres.bin_dir}:{os.environ['PATH']}",
        "PGPASSWORD": postgres.password,
        "SHOP_PASSWORD": postgres.password,
    }

    def run(text, replaced=(), *, folder=tmp_path, code=0, **more):
        text = replace(text, replaced)
        assert not STRANGERS.search(text), text
        ended = run_text(text, folder=folder, env=env | more)
        assert ended.code == code, ended.out + ended.err
        return ended.out + ended.err

    return run


def replace(text, replaced):
    for old, new in dict(replaced).items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def shop(postgres):
    """The URL of an old database."""
    url = postgres.database()
    run_sql(url, SHOP)
    return url


@pytest.fixture
def media(minio, make_bucket):
    """The URL of an old bucket."""
    bucket = make_bucket(minio)
    for number in range(3):
        boto_client(minio.profile).put_object(Bucket=bucket, Key=f"photos/{number}", Body=b"x" * number)
    return f"s3://{bucket}?profile={minio.profile}"


@pytest.fixture
def new(other_minio, make_bucket):
    """A function that returns the URL of a fresh bucket at the new host."""
    return lambda: f"s3://{make_bucket(other_minio)}?profile={other_minio.profile}"


def typed(page):
    """The words of each moveout command in a guide's shell blocks."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            program, *words = [*itertools.takewhile(lambda word: not set(word) <= set("|&;<>"), lexer), ""]
            if program == "moveout" and not words[0].startswith("-"):
                yield words[:-1]


@pytest.mark.parametrize("page", sorted((DOCS / "guides").glob("*.md")), ids=lambda page: page.name)
def test_each_command_takes_its_words(page):
    """Also of the guides whose commands run in the long tests only."""
    for line in typed(page.relative_to(ROOT)):
        command, words = command_line(), line
        context = typer.Context(command)
        while hasattr(command, "commands"):
            name, command, words = command.resolve_command(context, words)
        assert command.make_context(name, list(words)), line


@pytest.mark.torture
def test_leave_aws(shell, shop, media, new, other_postgres, tmp_path):
    page = "docs/guides/leave-aws.md"
    addresses = {
        "postgresql://mover@shop.abc123.eu-west-1.rds.amazonaws.com:5432/shop?sslmode=require": shop,
        "postgresql://owner@db.new.example:5432/shop": other_postgres.database(),
        "s3://shop-media?profile=aws": media,
        "s3://shop-media?profile=new": new(),
        "s3://bundles/shop?profile=new": new().replace("?", "/shop?"),
        "2026-11-29T18:00:00Z": "2999-11-29T18:00:00Z",
    }
    case = replace(blocks(page, "toml")[0], addresses)
    # The destination's password is another one here, and comes from where libpq looks for it.
    (tmp_path / "moveout.toml").write_text(case)
    move = blocks(page, "sh")[2:]  # those before ask an AWS account: tests/discover/aws
    printed = shell("\n".join(move), PGPASSWORD=None)
    assert blocks(page, "text")[0].strip() in printed
    assert "IN TIME" in printed
    assert (tmp_path / "REPORT.html").exists()


@pytest.mark.torture
def test_whole_host(shell, shop, media, new, mariadb, other_mariadb, other_postgres, tmp_path):
    """The servers are those of other tests, too, so single databases and a bucket stand for the old ones."""
    page = "docs/guides/whole-host.md"
    wiki, profile = mariadb.database(), new().partition("?")[2]
    with mariadb.connect(wiki.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE pages (id int PRIMARY KEY) SELECT 1 AS id")
    (tmp_path / "app").mkdir()
    make_file(tmp_path / "app/local.db")
    find, examine, move, status, again, without_case = blocks(page, "sh")
    addresses = {
        "postgresql://mover@db.old.example": shop,
        "mysql://mover@my.old.example": wiki,
        "s3://?profile=old": media,
        "/srv/app": str(tmp_path / "app"),
    }
    assert "In all 4 sources" in shell(find, addresses, PGPASSWORD=None)
    case = tmp_path / "moveout.toml"
    fill = {
        server_of(shop): server_of(other_postgres.url),
        server_of(wiki): server_of(other_mariadb.url),
        f"s3://?{media.partition('?')[2]}": f"s3://?{profile}",
        f"sqlite://{tmp_path}/app": f"sqlite://{tmp_path}/new",
    }
    text = case.read_text()
    for old, to in fill.items():
        assert f'from = "{old}"\nto = ""' in text
        text = text.replace(f'from = "{old}"\nto = ""', f'from = "{old}"\nto = "{to}"')
    case.write_text(text)
    shell(examine, PGPASSWORD=None)
    assert "Compared row by row: all 4 sources." in shell(move, PGPASSWORD=None)
    assert "on the new host: all 4 sources up" in shell(status, PGPASSWORD=None)
    shell("moveout report -c moveout.toml", PGPASSWORD=None)
    make_file(tmp_path / "app/later.db")
    assert "added: " in shell(again, PGPASSWORD=None)
    assert "app/later.db" in case.read_text(), "with what other tests have made on the servers meanwhile"
    assert "sealed complete without it" in shell(move, PGPASSWORD=None, code=3)
    lacking = shell(status, PGPASSWORD=None, code=3).partition("in the case, and not in this bundle: ")[2]
    assert "later" in lacking.partition("\n")[0]

    bucket = media.partition("?")[0]
    patterns = {
        "pg=postgresql://mover@db.old.example/*": f"pg={shop[:-1]}*",
        "s3://shop-*?profile=old": media.replace(bucket, f"{bucket[:-1]}*"),
        "pg=postgresql://owner@db.new.example/*": f"pg={server_of(other_postgres.url)}/*",
        "s3://*?profile=new": f"s3://*?{profile}",
    }
    assert "restored" in shell(without_case, patterns, PGPASSWORD=None)


def server_of(url):
    return url.rpartition("/")[0]


@pytest.mark.torture
def test_own_servers(shell, shop, media, new, other_postgres):
    page = "docs/guides/own-servers.md"
    server = other_postgres.url.rpartition("/")[0]
    addresses = {
        "postgresql://mover@db.old.example/shop": shop,
        "postgresql://postgres@db.new.example/shop": f"{server}/guide",
        "postgresql://postgres@db.new.example": server,
        "DATABASE shop": "DATABASE guide",
        "s3://shop-media?profile=old": media,
        "s3://shop-media?profile=new": new(),
    }
    printed = shell("\n".join(blocks(page, "sh")), addresses, PGPASSWORD=None)
    assert "Equal at " in printed
    assert "agree: all rows\n" in printed


@pytest.mark.torture
def test_minute_of_downtime(shell, postgres, other_postgres, tmp_path):
    page = "docs/guides/minute-of-downtime.md"
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, f"{SHOP}; ALTER TABLE social.logins ADD PRIMARY KEY (n)")
    addresses = {
        "postgresql://mover@db.old.example/shop": old,
        "postgresql://owner@db.new.example/shop": new,
    }
    (tmp_path / "moveout.toml").write_text(replace(blocks(page, "toml")[0], addresses))
    base, follow, foresee, switch, back, clean, again, _sync = blocks(page, "sh")
    shell(base, PGPASSWORD=None)
    run_sql(old, "UPDATE social.logins SET name = 'new' WHERE n < 9")
    shell(follow, PGPASSWORD=None)  # "nothing is behind", where the server's log has not grown meanwhile
    renamed = "SELECT n FROM social.logins WHERE name = 'new' ORDER BY n"
    assert fetch(new, renamed) == fetch(old, renamed) != []
    run_sql(new, "DELETE FROM social.logins WHERE n < 5")
    assert "(repaired: 4 missing rows)\n→ moveout follow -c moveout.toml applies" in shell(
        again, {"public.orders": "social.logins"}, PGPASSWORD=None
    )
    assert fetch(new, renamed) == fetch(old, renamed)
    shell(follow, PGPASSWORD=None)
    assert "ALTER DATABASE" in shell(foresee, PGPASSWORD=None)
    assert "Switched at" in shell(switch, PGPASSWORD=None)
    assert "nothing was written at the new side" in shell(back, PGPASSWORD=None)
    shell(clean, PGPASSWORD=None)
    assert fetch(old, "SELECT FROM pg_replication_slots WHERE database = current_database()") == []
    assert fetch(new, "SELECT FROM pg_namespace WHERE nspname LIKE 'moveout%'") == []


@pytest.mark.torture
def test_minute_of_downtime_without_a_case_file(shell, postgres, other_postgres, tmp_path):
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, f"{SHOP}; ALTER TABLE social.logins ADD PRIMARY KEY (n)")
    addresses = {
        "postgresql://mover@db.old.example/shop": old,
        "postgresql://owner@db.new.example/shop": new,
    }
    sync = blocks("docs/guides/minute-of-downtime.md", "sh")[-1]
    state = {"PGPASSWORD": None, "XDG_STATE_HOME": str(tmp_path / "state")}
    assert "Compared row by row: shop." in shell(sync, addresses, **state)
    run_sql(old, "UPDATE social.logins SET name = 'new' WHERE n < 9")
    shell(sync, addresses, **state)
    assert fetch(new, "SELECT count(*) FROM social.logins WHERE name = 'new'") == [(8,)]
    shell(f"{sync.strip()} --cutover --hold --yes", addresses, **state)
    (case,) = (tmp_path / "state").rglob("moveout.toml")
    for command in ("status", "cutover --undo", "clean --changes --yes"):
        shell(f"moveout {command} -c {case}", **state)


def test_bad_night(shell, postgres, shop, tmp_path):
    """Each block is typed in the state that its exit code speaks of."""
    status, grant, again, retry, mend, room, clean, plan = blocks("docs/guides/bad-night.md", "sh")
    role = f"mover_{shop.rpartition('_')[2]}"
    run_sql(
        shop,
        f"CREATE ROLE {role} LOGIN PASSWORD '{postgres.password}'; GRANT USAGE ON SCHEMA social TO {role};"
        "CREATE TABLE social.posts (id int)",
    )
    run_sql(shop, f"GRANT SELECT ON social.posts TO {role}")
    old = shop.removeprefix("postgresql://postgres@")
    addresses = {
        "postgresql://mover@db.old.example/shop": f"postgresql://{role}@{old}",
        "postgresql://postgres@db.old.example/shop": shop,
        "TO mover": f"TO {role}",
    }
    shell(again, addresses, code=3)
    assert 'failed: "social"."logins": the role may not read it' in shell(status, code=3)
    shell(grant, addresses)
    assert "Sealed, complete" in shell(again, addresses)
    shell(retry, addresses)
    shell("moveout transfer bundle copy")
    part = next((tmp_path / "copy").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    shell("moveout verify copy", code=6)
    assert "is whole" in shell(mend)
    assert "Mounted on" in shell(room)
    shell(clean)
    assert "IN TIME" in shell(plan, addresses)
    run_sql(shop, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_hold_sources(shell, shop, media, tmp_path):
    addresses = {"postgresql://admin@db.old.example/shop": shop, "s3://shop-media?profile=admin": media}
    held, status, undone = blocks("docs/guides/hold-sources.md", "sh")
    assert shell(held, addresses).count("HELD: ") == 2
    with pytest.raises(AssertionError, match="read-only transaction"):
        shell(f"psql {shop} -c 'DELETE FROM social.logins'")
    assert shell(status).count("HELD: ") == 2
    assert "each setting read back as it was" in shell(undone.replace("undo ", "undo --yes "))
    shell(f"psql {shop} -c 'DELETE FROM social.logins'")
    assert not (tmp_path / "shop-hold.json").exists()


@pytest.mark.torture
def test_many_machines(shell, media, new):
    """The first three blocks: the command, a scheduler, workers. SLURM and Kubernetes are looked at elsewhere."""
    command, scheduler, workers = blocks("docs/guides/many-machines.md", "sh")[:3]
    addresses = {
        "10.0.0.1:8786": (address := f"127.0.0.1:{free_port()}"),
        "--host 10.0.0.1 --port 8786": f"--host 127.0.0.1 --port {address.rpartition(':')[2]}",
        "--nworkers 4": "--nworkers 1",
        "/etc/moveout/credentials": os.environ["AWS_SHARED_CREDENTIALS_FILE"],
        "/etc/moveout/config": os.environ["AWS_CONFIG_FILE"],
        "s3://shop-media?profile=old": media,
        "s3://bundles/media?profile=new": new().replace("?", "/media?"),
    }
    script = f"trap 'kill $(jobs -p)' EXIT\n{scheduler.strip()} &\n{workers.strip()} &\n{command}"
    assert "Sealed, complete" in shell(script, addresses)


class Parties:
    """The host, its counsel and the customer: a folder each, and one that they share."""

    def __init__(self, folder, servers):
        self.folder = folder
        (folder / "exchange").mkdir()
        for name in (*servers, "counsel"):
            (folder / name).mkdir()
            (folder / name / "exchange").symlink_to(folder / "exchange")
        for name, server in servers.items():
            profile = "host" if name == "host" else "acme"
            (folder / name / "aws-config").write_text(
                f"[profile {profile}]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n"
                f"aws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
                "s3 =\n    addressing_style = path\n\n"
            )


@pytest.mark.torture
def test_handover(shell, minio, other_minio, make_bucket, tmp_path):
    page = "docs/guides/handover.md"
    parties = Parties(tmp_path, {"host": minio, "customer": other_minio})
    preserved = f"preserved-{tmp_path.name[-12:].replace('_', '-').lower()}"
    client = boto_client(minio.profile)
    client.create_bucket(Bucket=preserved, ObjectLockEnabledForBucket=True)
    bucket = make_bucket(minio)
    client.put_object(Bucket=bucket, Key="posts/1", Body=b"a post")
    names = {
        "acme-media": bucket,
        "s3://preserved": f"s3://{preserved}",
        "s3://received": f"s3://{make_bucket(other_minio)}",
        "90 days": "1 seconds",
        "--key counsel.key": "--key counsel.key --yes",
    }
    case, contract = blocks(page, "toml")
    printed = ""
    for number, text in enumerate(blocks(page, "sh")):
        folder = parties.folder / re.match(r"# (host|counsel|customer|anybody)\n", text)[1].replace(
            "anybody", "counsel"
        )
        if number == 3:
            keys = re.findall(r"SHA256:\S+", printed)
            case = case.replace("SHA256:HOST", keys[0]).replace("SHA256:COUNSEL", keys[1])
            (folder / "case.toml").write_text(replace(case, names))
            (folder / "contract.toml").write_text(replace(contract, names))
        if "moveout erase" in text:
            time.sleep(2)
        config = str(folder / "aws-config")
        code = 3 if "hold release" in text and "--reason" in text else 0
        printed += shell(
            text,
            names,
            folder=folder,
            code=code,
            AWS_CONFIG_FILE=config,
            AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        )
    for words in ("HELD:", "Receipt for the bundle", "Acknowledged:", "Released:", "Erased:"):
        assert words in printed
    assert printed.count("Erased:") == 2
    assert not (tmp_path / "host" / "bundle" / "data").exists()
