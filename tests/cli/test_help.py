"""The help: each command in a line that is whole, and examples whose options exist."""

import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import typer

from exporters import _rows
from migrate.cli import SECTIONS, VERBS, app
from migrate.errors import INTERRUPTED, MoveoutError
from migrate.storage import checksums
from tests.cli.conftest import call, run
from tests.golden.make import BUNDLE

GROUPS = ("keys", "custody", "hold", "grant")


def summaries(*words):
    first = "Commands" if words else "Prepare"
    listed = call(*words, "--help").out.partition(f"\n{first}:\n")[2].partition("\n\n  Exit codes")[0]
    return dict(re.findall(r"^  (\S+) +(.+)$", listed, re.MULTILINE))


@pytest.mark.parametrize("group", [(), *((name,) for name in GROUPS)])
def test_what_a_command_does_is_said_to_the_end(group):
    found = summaries(*group)
    assert found
    assert [line for line in found.values() if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("name", [name for name in VERBS if name not in GROUPS])
def test_examples_are_for_this_command_and_by_its_options(name):
    check_examples(name)


@pytest.mark.parametrize("group", GROUPS)
def test_examples_are_for_the_commands_of_a_group_and_by_their_options(group):
    for name in summaries(group):
        check_examples(group, name)


def check_examples(*name):
    said = call(*name, "--help").out
    lines = re.findall(r"^ +(moveout .*)$", said.partition("Examples:")[2], re.MULTILINE)
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert (program, *words[: len(name)]) == ("moveout", *name)
        assert len(line) <= 76  # four more before it
        assert all(re.search(rf"(^|\s){word}\b", said) for word in words if word.startswith("-")), line


def test_the_list_of_commands_says_of_each_what_its_own_help_says_first():
    group = typer.main.get_command(app)
    context = typer.Context(group)
    for name, (_, text) in VERBS.items():
        command = group.resolve_command(context, [name])[1]
        assert (name, command.get_short_help_str(200)) == (name, text)


START = """
import sys
from migrate.cli import main
sys.argv = ["moveout", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print("\\nimported", *sorted(sys.modules))
"""


def imported_by(*words, cwd, of=("migrate.", "pyarrow", "boto")):
    command = [sys.executable, "-c", START, *words]
    said = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False).stdout
    return [name for name in said.rpartition("imported")[2].split() if name.startswith(of)]


def test_the_list_of_commands_imports_none_of_them():
    for word in ("--help", "--version"):
        assert imported_by(word, cwd=None) == [
            "migrate.cli",
            "migrate.errors",
            "migrate.runtime",
            "migrate.runtime.malloc",
        ]


def test_a_command_imports_only_what_it_needs(tmp_path):
    for words in (["export", "--help"], ["transfer", "--help"], ["verify", "--help"], ["keys", "--help"]):
        assert {name.partition(".")[0] for name in imported_by(*words, cwd=tmp_path)} == {"migrate"}, words
    (tmp_path / "empty").mkdir()
    status = imported_by("status", "empty", cwd=tmp_path)
    assert [name for name in status if not name.startswith("migrate.") or "custody" in name] == []


NOT_FOR_A_TABLE = (
    "_strptime",
    "asyncpg",
    *(() if checksums.library().__name__ == "awscrt.checksums" else ("awscrt",)),
    "boto3",
    "botocore",
    "cryptography",
    "dask",
    "duckdb",
    "importlib.metadata",
    "migrate.changes.capture",
    "migrate.cluster",
    "migrate.custody",
    "migrate.discover",
    "migrate.follow",
    "migrate.repair",
    "migrate.restore",
    "migrate.storage.s3",
    "migrate.sync",
    "migrate.transfer",
    "migrate.verify",
    "minio",
    "pandas",
    "psycopg",
    *(() if _rows.core is None else ("pyarrow.compute",)),
    "pyarrow.dataset",
    "pymysql",
    "rich",
    "tenacity",
    "tomlkit",
)
"""What an export of a SQLite file into a directory has no use for: to import all of it takes a tenth of a second."""


NOT_FOR_A_BUNDLE = (
    *(name for name in NOT_FOR_A_TABLE if not name.startswith("migrate.")),
    "http.server",
    "jinja2",
)
"""What commands have no use for that read a bundle in a directory."""


def has_imported(imported, packages):
    return [name for name in imported if f"{name}.".startswith(tuple(f"{package}." for package in packages))]


def test_commands_import_nothing_that_they_have_no_use_for(tmp_path):
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO t VALUES (1, 'a')")
        connection.commit()
    imported = imported_by("export", f"app=sqlite://{tmp_path}/app.db", "--to", "bundle", cwd=tmp_path, of="")
    assert "exporters.sqlite.snapshot" in imported
    assert has_imported(imported, NOT_FOR_A_TABLE) == []
    for verb in ("verify", "status", "ls"):
        imported = imported_by(verb, "bundle", cwd=tmp_path, of="")
        assert f"migrate.cli.{verb}" in imported
        assert has_imported(imported, NOT_FOR_A_BUNDLE) == [], verb


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        (
            "exporters.postgres.exporter",
            ("asyncpg", "exporters._rows", "exporters.postgres.definitions.pg_dump", "migrate", "pyarrow"),
        ),
        ("exporters.postgres.source", ("asyncpg", "jinja2", "migrate", "pyarrow.compute", "pyarrow.parquet")),
    ],
)
def test_a_server_is_asked_before_all_else_is_imported(module, unused):
    """The first of these modules logs in, the second one begins the snapshot; what they lack comes meanwhile."""
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert module in imported
    assert has_imported(imported, unused) == []


def test_objects_of_a_bundle_are_listed_without_the_wrappers_of_arrow(tmp_path):
    imported = imported_by("ls", BUNDLE, "--source", "media", "**", cwd=tmp_path, of="")
    assert "migrate.browse.single_objects" in imported
    assert "pyarrow.compute" not in imported


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("moveout ex", ["export"], marks=pytest.mark.torture),
        pytest.param("moveout export --quie", ["--quiet"], marks=pytest.mark.torture),
        ("moveout custody ver", ["verify"]),
        ("moveout verify --level ", ["quick", "complete", "full"]),
    ],
)
def test_a_shell_completes_commands_options_and_values(line, expected):
    location = str(len(line.split(" ")) - 1)
    asked = {"COMP_WORDS": line, "COMP_CWORD": location, "_MOVEOUT_COMPLETE": "complete_bash"}
    assert run(env=asked).out.split() == expected


@pytest.mark.parametrize(
    ("shell", "path"),
    [
        ("bash", ".bash_completions/moveout.sh"),
        pytest.param("zsh", ".zfunc/_moveout", marks=pytest.mark.torture),
        pytest.param("fish", ".config/fish/completions/moveout.fish", marks=pytest.mark.torture),
    ],
)
def test_completion_is_installed_for_the_shell_that_is_named(shell, path, tmp_path):
    done = run("--install-completion", shell, env={"HOME": str(tmp_path)})
    assert (done.code, (tmp_path / path).exists()) == (0, True), done.err
    assert (tmp_path / path).read_text().count("loadautofunc") == (shell == "zsh")
    assert f"complete_{shell}" in run("--show-completion", shell).out


def test_ctrl_c_while_a_shell_waits_for_completions_is_no_traceback(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("migrate.cli._Verbs.resolve_command", interrupt)
    monkeypatch.setenv("_MOVEOUT_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "moveout export --")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit) as ended:
        app(prog_name="moveout")
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("line", "meant"),
    [("exprt", "'export'"), ("export --bwlimt 5M", "'--bwlimit'"), ("custody verfy", "'verify'")],
)
def test_a_misspelt_word_is_answered_by_those_that_look_like_it(line, meant):
    assert f"Did you mean {meant}" in call(*line.split()).err


def test_the_word_of_the_makefile_is_answered_by_the_command():
    assert "moveout run -c moveout.toml" in call("evacuate").err


def test_an_option_that_looks_like_none_is_not_guessed():
    assert "Did you mean" not in call("export", "--deadline", "30h").err
    assert "Did you mean '--workers'?" in call("export", "--worker", "3").err


def test_help_has_sections_and_exit_codes_and_its_last_screen_says_how_to_begin():
    text = call("--help").out
    titles = re.findall(r"^ *(\S.*):$", text, re.MULTILINE)
    assert titles == ["Options", *SECTIONS, "Exit codes"]
    assert "Begin with moveout init" in "\n".join(text.splitlines()[-20:])
    codes = {
        int(code)
        for code in re.findall(r"(?:^    |  )(\d+)  ", text.partition("Exit codes:")[2], re.MULTILINE)
    }
    assert codes == {0, 1, INTERRUPTED} | {error.exit_code for error in _errors(MoveoutError)}


def test_help_fits_a_terminal_of_80_columns():
    assert [line for line in call("--help").out.splitlines() if len(line) > 80] == []


def _errors(error):
    return {error, *(each for child in error.__subclasses__() for each in _errors(child))}


@pytest.mark.parametrize("words", [[], ["export"], ["custody", "verify"]])
def test_help_with_a_command_is_the_help_of_the_command(words):
    assert call("help", *words).out == call(*words, "--help").out


MUCH = {
    *("plan", "export", "seal", "transfer", "verify", "restore", "sync", "run", "report", "receive", "audit"),
}
"""Commands that move or read much."""


def commands():
    """Yield each command with its name."""
    group = typer.main.get_command(app)
    pending = [(group, typer.Context(group), "")]
    while pending:
        command, context, name = pending.pop()
        pending += [
            (command.resolve_command(context, [each])[1], context, f"{name} {each}".strip())
            for each in getattr(command, "commands", ())
        ]
        if not hasattr(command, "commands"):
            yield name, command


def options():
    """Yield each command's name and its options."""
    for name, command in commands():
        yield name, {option for parameter in command.params for option in parameter.opts}


def test_options_that_may_be_repeated_say_so():
    repeatable = [
        (name, parameter.opts[0], parameter.help)
        for name, command in commands()
        for parameter in command.params
        if getattr(parameter, "multiple", False)
    ]
    assert repeatable
    assert [each for each in repeatable if "may be repeated" not in each[2]] == []


def test_commands_have_the_options_that_do_something_there():
    found = dict(options())
    holds = {"hold place", "hold extend", "hold status", "hold release"}
    assert {name for name, has in found.items() if "--workers" in has} == MUCH | holds | {
        "grant test",
        "erase",
        "cutover",
    }
    assert {name for name, has in found.items() if "--bwlimit" in has} == MUCH | {
        "ls",
        "get",
        "sql",
        "prove",
        "sign",
    }
    assert {name for name, has in found.items() if not {"--json", "--quiet", "--no-input"} <= has} == set()
