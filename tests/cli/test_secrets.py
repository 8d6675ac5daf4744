"""Passwords and secret keys: in no output, no process list, no file of a bundle, whatever happens."""

import os
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.cli.conftest import MOVEOUT, call
from tests.tools.clients import boto_client

LOGIN = "leaver"


class Watch:
    """Looks for secrets in the arguments of each command and of all that it starts, and in all that they say."""

    def __init__(self, *words: str) -> None:
        self._secrets = [word.encode() for word in words]
        self.seen: list[str] = []
        self.programs: set[str] = set()

    def look_at(self, where: str, data: bytes) -> None:
        self.seen += [f"{where}: {data[:200]!r}" for secret in self._secrets if secret in data]

    def run(self, *words: object, env: dict[str, str], code: int) -> None:
        """Run moveout; it has to end with this code. Also under the most talkative settings of its libraries."""
        talkative = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}
        with subprocess.Popen(
            [MOVEOUT, *map(str, words)],
            env={**os.environ, **env, **talkative},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            ended = threading.Event()
            watching = threading.Thread(target=self._watch, args=(process.pid, ended))
            watching.start()
            out, err = process.communicate()
            ended.set()
            watching.join()
        for name, data in (("stdout", out), ("stderr", err)):
            self.look_at(f"{name} of {words[0]}", data)
        assert process.returncode == code, err.decode()
        assert b"Traceback" not in err

    def call(self, *words: object, env: dict[str, str], code: int) -> None:
        """Run moveout within this process, for what it says."""
        ended = call(*words, env=env)
        self.look_at(f"stdout of {words[0]}", ended.out.encode())
        self.look_at(f"stderr of {words[0]}", ended.err.encode())
        assert ended.code == code, ended.err

    def _watch(self, process: int, ended: threading.Event) -> None:
        while not ended.wait(0.02):
            for one in _with_descendants(process):
                with suppress(OSError):
                    arguments = Path(f"/proc/{one}/cmdline").read_bytes()
                    self.programs.add(Path(arguments.partition(b"\0")[0].decode(errors="replace")).name)
                    self.look_at("the process list", arguments)


def _with_descendants(process: int) -> Iterator[int]:
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _with_descendants(int(child))


@pytest.fixture
def database(postgres, shop: str) -> Callable[[str], str]:
    """Give the shop to a role that logs in by a password; return its URL."""

    def give(password: str) -> str:
        with psycopg.connect(shop, autocommit=True) as db:
            db.execute(f"DROP ROLE IF EXISTS {LOGIN}")
            db.execute(f"CREATE ROLE {LOGIN} SUPERUSER LOGIN PASSWORD '{password}'")
        return shop.replace("postgres@", f"{LOGIN}@")

    yield give
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute(f"DROP ROLE IF EXISTS {LOGIN}")


def test_no_secret_leaves_the_process(database, postgres, minio, media, bucket, make_bucket, tmp_path):
    password, wrong = f"p-{secrets.token_hex(12)}", f"w-{secrets.token_hex(12)}"
    url = database(password)
    watch = Watch(password, wrong, minio.secret_key, postgres.password)
    env = {"PGPASSFILE": os.devnull, "PGPASSWORD": password}
    location, moved = tmp_path / "bundle", f"s3://{make_bucket(minio)}/b?profile={minio.profile}"
    sources = (f"app={url}", f"media={media}")
    watch.call("plan", *sources, env=env, code=0)
    watch.run("export", *sources, "--to", location, "--json", env=env, code=0)
    watch.call("transfer", location, moved, "--json", env=env, code=0)
    watch.call("verify", moved, "--against", f"app={url}", "--against", f"media={media}", env=env, code=0)
    restored = postgres.database().replace("postgres@", f"{LOGIN}@")
    watch.run("restore", location, f"app={restored}", "--json", env=env, code=0)
    watch.call("status", location, "--json", env=env, code=0)
    for words in (("export", f"app={url}", "--to", tmp_path / "no"), ("restore", location, f"app={url}")):
        watch.call(*words, "--json", env={**env, "PGPASSWORD": wrong}, code=4)
    keys = {
        "AWS_ACCESS_KEY_ID": minio.access_key,
        "AWS_SECRET_ACCESS_KEY": wrong,
        "AWS_ENDPOINT_URL": minio.endpoint,
    }
    watch.call("export", f"m=s3://{bucket}", "--to", tmp_path / "no", env=keys, code=4)
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[case]\nname = "c"\n[[source]]\nname = "app"\nurl = "{url}"\npassword = "env:MY_SECRET"\n'
        f'[bundle]\nlocation = "{tmp_path / "by-case"}"\n'
    )
    by_case = {"PGPASSFILE": os.devnull, "MY_SECRET": password}
    watch.run("run", "-c", case, env=by_case, code=0)
    watch.call("export", "-c", case, env={**by_case, "MY_SECRET": wrong}, code=0)  # it is sealed already
    for path in (
        path for root in (location, tmp_path / "by-case") for path in root.rglob("*") if path.is_file()
    ):
        watch.look_at(str(path), path.read_bytes())
    client = boto_client(minio.profile)
    name = moved.removeprefix("s3://").partition("/")[0]
    for item in client.list_objects_v2(Bucket=name)["Contents"]:
        watch.look_at(item["Key"], client.get_object(Bucket=name, Key=item["Key"])["Body"].read())
    assert watch.seen == []
    assert {"pg_dump", "pg_dumpall"} <= watch.programs


WORD = "hunter2"


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (("doctor", "m=s3://media"), {"AWS_ENDPOINT_URL": f"http://me:{WORD}@127.0.0.1:9"}),
        (("ls", "s3://media/b"), {"AWS_ENDPOINT_URL": f"http://me:{WORD}@127.0.0.1:99999"}),
        (
            ("doctor", "m=s3://media"),
            {"AWS_ENDPOINT_URL": "http://127.0.0.2:9", "http_proxy": f"me:{WORD}@h:99999"},
        ),
        (
            ("ls", "s3://media/b"),
            {"AWS_ENDPOINT_URL": "http://127.0.0.2:9", "http_proxy": f"http://me:{WORD}@[h"},
        ),
        (("discover", "aws://"), {"AWS_REGION": "eu-west-1", "https_proxy": f"http://me:{WORD}@h:99999"}),
        (("discover", f"postgresql://h/db?pass%77ord={WORD}"), {}),
        (("status", f"mysql://h/db?passwd={WORD}"), {}),
        (("ls", f"s3://b/p?session_token={WORD}"), {}),
        (("run", f"postgresql://me:{WORD}@h/db"), {}),
        (("export", "--bwlimit", f"postgresql://me:{WORD}@h/db"), {}),
        (("doctor", f"a=host=h user=me password={WORD} dbname=d"), {}),
    ],
    ids=lambda value: "-".join(value)[-60:],
)
def test_a_password_in_an_odd_place_is_not_repeated(command, variables):
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    ended = call(*command, "--json", "-v", env={**keys, **variables})
    assert ended.code not in {0, 1, 3}, ended.err
    assert "Traceback" not in ended.err
    assert WORD not in f"{ended.out}{ended.err}"


def test_the_traceback_of_a_defect_has_no_password_of_a_url(tmp_path, monkeypatch):
    def fail(*_arguments: object) -> None:
        raise ValueError(f"no \x1b[31mconnection to http://me:{WORD}@proxy:3128/?token={WORD}")

    monkeypatch.setattr("migrate.cli.ls.open_bundle", fail)
    ended = call("ls", tmp_path, "--json")
    assert (ended.code, "http://me:…@proxy:3128/?token=…" in ended.err) == (1, True), ended.err
    assert "\x1b" not in ended.err
    assert WORD not in f"{ended.out}{ended.err}"


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_case_file_that_others_wrote_runs_no_program_unless_it_is_named(tmp_path, monkeypatch, command):
    case, ran = tmp_path / "moveout.toml", tmp_path / "ran"
    case.write_text(
        '[case]\nname = "c"\n[[source]]\nname = "a"\nurl = "mysql://me@127.0.0.1:9/a"\n'
        f'password = "command:touch {ran}"\n[bundle]\nlocation = "{tmp_path / "b"}"\n'
    )
    monkeypatch.chdir(tmp_path)
    case.chmod(0o666)
    ended = call(command)
    assert (ended.code, "another user's" in ended.err, ran.exists()) == (2, True, False), ended.err
    case.chmod(0o600)
    assert "another user's" not in call(command).err
