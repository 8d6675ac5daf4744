"""``make docs``: the command reference, the man pages and the site, built under ``build/``.

python -m scripts.docs reference   write docs/reference/commands.md from the command line's own help, and the tables
                                   of case-file.md and aws-discovery.md
python -m scripts.docs man         write build/man/moveout*.1
python -m scripts.docs stage       lay the pages out under build/docs for mkdocs
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer.main

from migrate import software
from migrate.case.template import TEMPLATE
from migrate.cli import app
from migrate.discover.aws.services import resources

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COMMANDS = DOCS / "reference" / "commands.md"
CASE_FILE = DOCS / "reference" / "case-file.md"
AWS_DISCOVERY = DOCS / "reference" / "aws-discovery.md"
STAGED = ROOT / "build" / "docs"
MAN = ROOT / "build" / "man"
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages that lie next to ``docs/`` and are pages of the site, too. The README is its home."""
COMMON = ("--json", "--quiet", "--verbose", "--log-file", "--no-input", "--help")
"""Options that every command takes: explained once."""
EXAMPLES = "Examples:"
HEAD = """\
# Commands

`moveout COMMAND --help` prints the same.
See also [exit codes](exit-codes.md), [environment variables](environment.md) and [the case file](case-file.md).

"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or option as the help shows it."""

    names: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command that does something: its words, its help and what it takes."""

    words: str
    usage: str
    summary: str
    description: str
    examples: list[str]
    arguments: list[Parameter]
    options: list[Parameter]
    common: list[Parameter]


@cache
def commands() -> tuple[Command, ...]:
    """Return every command in the order of the help, those of a group one by one."""
    root: Any = typer.main.get_command(app)
    return tuple(_commands(root, root.make_context("moveout", [], resilient_parsing=True)))


def _commands(group: Any, context: Any) -> Iterator[Command]:
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        child = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "list_commands"):
            yield from _commands(command, child)
        else:
            yield _describe(command, child)


def _describe(command: Any, context: Any) -> Command:
    prose, _, examples = command.help.partition(EXAMPLES)
    if command.epilog:
        examples += command.epilog.partition(EXAMPLES)[2]
    summary, _, description = prose.replace("\f", "").replace("\b", "").strip().partition("\n\n")
    arguments: list[Parameter] = []
    options: list[Parameter] = []
    common: list[Parameter] = []
    for parameter in command.get_params(context):
        shown = parameter.get_help_record(context)
        if shown is None:
            continue
        known = Parameter(*(_one_line(text) for text in shown))
        if parameter.param_type_name == "argument":
            arguments.append(known)
        else:
            (common if set(parameter.opts) & set(COMMON) else options).append(known)
    return Command(
        words=context.command_path,
        usage=f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}",
        summary=_one_line(summary),
        description=description.strip(),
        examples=[line.strip() for line in examples.splitlines() if line.strip()],
        arguments=arguments,
        options=options,
        common=common,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def markdown() -> str:
    """Return the page ``docs/reference/commands.md``."""
    every = commands()
    parts = [HEAD]
    parts += [f"- [`{command.words}`](#{_anchor(command)}): {command.summary}\n" for command in every]
    parts.append("\n## Options of every command\n\n" + _table("option", "meaning", every[0].common))
    for command in every:
        parts.append(f"\n## {command.words}\n\n{command.summary}\n")
        if command.description:
            parts.append(f"\n{command.description}\n")
        parts.append(f"\n```text\n{command.usage}\n```\n")
        if command.arguments:
            parts.append("\n" + _table("argument", "meaning", command.arguments))
        if command.options:
            parts.append("\n" + _table("option", "meaning", command.options))
        if command.examples:
            parts.append("\n```text\n" + "\n".join(command.examples) + "\n```\n")
    return "".join(parts)


def _anchor(command: Command) -> str:
    return command.words.replace(" ", "-")


def _table(first: str, second: str, parameters: list[Parameter]) -> str:
    rows = [f"| {first} | {second} |", "|---|---|"]
    for parameter in parameters:
        names, meaning = (text.replace("|", "\\|") for text in (parameter.names, parameter.help))
        rows.append(f"| `{names}` | {meaning.replace('*', chr(92) + '*').replace('<', '&lt;')} |")
    return "\n".join(rows) + "\n"


def case_file() -> str:
    """Return the page ``docs/reference/case-file.md`` with the template as it is now."""
    before, _, rest = CASE_FILE.read_text(encoding="utf-8").partition("```toml\n")
    after = rest.partition("```\n")[2]
    return f"{before}```toml\n{TEMPLATE}```\n{after}"


def aws_discovery() -> str:
    """Return the page ``docs/reference/aws-discovery.md`` with the table of services as it is now."""
    before, _, rest = AWS_DISCOVERY.read_text(encoding="utf-8").partition("| service |")
    after = rest.partition("\n\n")[2]
    rows = ["| service | what is listed | what becomes of it | IAM actions |", "|---|---|---|---|"]
    for service, resource in resources():
        if resource.part_of:
            continue
        calls = [resource.call, *([resource.detail.call] if resource.detail else [])]
        actions = ", ".join(f"`{action}`" for call in calls for action in call.permissions)
        fate = f"a source: `{resource.scheme}://`" if resource.scheme else resource.advice
        rows.append(f"| {service.name} | {resource.kind} | {fate} | {actions} |")
    return before + "\n".join(rows) + "\n\n" + after


def man_pages() -> Iterator[tuple[str, str]]:
    """Yield file name and text of every man page, section 1."""
    every = commands()
    names = [_roff(f"{command.words}: {command.summary}") for command in every]
    overview = "".join(f".TP\n.B {name.partition(':')[0]}\n{name.partition(': ')[2]}\n" for name in names)
    yield (
        "moveout.1",
        f"{_title('moveout')}.SH NAME\nmoveout \\- {_roff(str(app.info.help))}\n.SH COMMANDS\n{overview}",
    )
    for command in every:
        name = command.words.replace(" ", "-")
        text = f"{_title(name)}.SH NAME\n{_roff(name)} \\- {_roff(command.summary)}\n"
        text += f".SH SYNOPSIS\n.B {_roff(command.usage)}\n"
        if command.description:
            text += f".SH DESCRIPTION\n{_roff(command.description)}\n"
        for heading, parameters in (
            ("ARGUMENTS", command.arguments),
            ("OPTIONS", [*command.options, *command.common]),
        ):
            if parameters:
                text += f".SH {heading}\n"
                text += "".join(
                    f".TP\n.B {_roff(parameter.names)}\n{_roff(parameter.help)}\n" for parameter in parameters
                )
        if command.examples:
            text += ".SH EXAMPLES\n.nf\n" + "".join(f"{_roff(line)}\n" for line in command.examples) + ".fi\n"
        yield f"{name}.1", text + ".SH SEE ALSO\n.BR moveout (1)\n"


def _title(name: str) -> str:
    return f'.TH "{name.upper()}" 1 "" "{software()}" "moveout manual"\n'


def _roff(text: str) -> str:
    """Return text of which nothing is taken for a request of roff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def stage() -> None:
    """Copy the pages to ``build/docs``: those next to ``docs/`` too, with their links as they are there."""
    shutil.rmtree(STAGED, ignore_errors=True)
    shutil.copytree(DOCS, STAGED)
    for name in ("README.md", *ROOT_PAGES):
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        (STAGED / ("index.md" if name == "README.md" else name)).write_text(text, encoding="utf-8")
    names = "|".join(re.escape(name) for name in ROOT_PAGES)
    for page in STAGED.rglob("*.md"):
        if page.parent == STAGED and page.name in {"index.md", *ROOT_PAGES}:
            continue
        depth = len(page.relative_to(STAGED).parts) - 1
        up = re.escape("../" * (depth + 1))
        text = page.read_text(encoding="utf-8")
        text = re.sub(rf"\]\({up}({names})", rf"]({'../' * depth}\1", text)
        page.write_text(re.sub(rf"\]\({up}README\.md", f"]({'../' * depth}index.md", text), encoding="utf-8")


def main() -> None:
    """Do one of the steps."""
    parser = argparse.ArgumentParser(prog="python -m scripts.docs", description="Parts of the documentation.")
    parser.add_argument("step", choices=["reference", "man", "stage"])
    step = parser.parse_args().step
    if step == "reference":
        COMMANDS.write_text(markdown(), encoding="utf-8")
        CASE_FILE.write_text(case_file(), encoding="utf-8")
        AWS_DISCOVERY.write_text(aws_discovery(), encoding="utf-8")
    elif step == "man":
        shutil.rmtree(MAN, ignore_errors=True)
        MAN.mkdir(parents=True)
        for name, text in man_pages():
            (MAN / name).write_text(text, encoding="utf-8")
    else:
        stage()


if __name__ == "__main__":
    main()
