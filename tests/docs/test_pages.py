"""What the documentation names exists: links, headings, paths, commands, keys, exit codes."""

import re
import subprocess
import tomllib
from itertools import chain

import pytest

from migrate import errors
from migrate.case import loader
from scripts import docs
from tests.docs.pages import ALL, DOCS, ROOT, blocks, text_of, without_code

PATH = re.compile(r"`((?:exporters|migrate|scripts|tests|docs|requirements)/[\w./-]*)`")
"""A file or folder of the checkout."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
by_page = pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page):
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@by_page
def test_links_lead_somewhere(page):
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@by_page
def test_paths_exist(page):
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert not [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


def test_every_page_of_docs_is_in_the_site():
    nav = text_of("mkdocs.yml").partition("nav:")[2]
    missing = [page for page in DOCS.rglob("*.md") if str(page.relative_to(DOCS)) not in nav]
    assert not missing


def test_the_command_reference_is_what_the_command_line_says():
    assert docs.COMMANDS.read_text(encoding="utf-8") == docs.markdown(), (
        "run: python -m scripts.docs reference"
    )


def test_man_pages_are_read_by_man():
    pages = dict(docs.man_pages())
    assert {"moveout.1", "moveout-export.1", "moveout-hold-source.1"} <= set(pages)
    for text in pages.values():
        assert not [line for line in text.splitlines() if line.startswith(".") and not line[1:2].isupper()
                    and not line.startswith((".nf", ".fi"))]  # fmt: skip


@by_page
def test_commands_and_options_that_are_named_exist(page):
    known = {command.words: command for command in docs.commands()}
    groups = {words.rpartition(" ")[0] for words in known}
    for code in re.findall(r"`moveout ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        if code.partition(" ")[0] == "help":  # of a command; the command line knows no command of that name
            continue
        words = ["moveout", *code.replace("…", " ").split()]
        name = next(
            (" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known | dict.fromkeys(groups)),
            None,
        )
        assert name, code
        if name in known:
            shown = " ".join(one.names for one in (*known[name].options, *known[name].common))
            for option in re.findall(r"(?<!\S)--[a-z-]+", code):
                assert option in shown, code


def test_exit_codes():
    rows = re.findall(r"^\| (\d+) \| (?:`([a-z-]+)`)?", text_of("docs/reference/exit-codes.md"), re.MULTILINE)
    documented = {(int(code), word) for code, word in rows if word and word != "interrupted"}
    every = {(kind.exit_code, kind.code) for kind in _classes(errors.MoveoutError)}
    assert documented <= every
    assert {code for code, _ in documented} == {code for code, _ in every}
    for page in ("README.md", "docs/guides/bad-night.md"):
        assert {int(code) for code, _ in rows} <= set(map(int, re.findall(r"\b\d+\b", text_of(page))))


def _classes(kind):
    yield kind
    for child in kind.__subclasses__():
        yield from _classes(child)


def test_the_case_file_reference():
    page = text_of("docs/reference/case-file.md")
    assert page == docs.case_file(), "run: python -m scripts.docs reference"
    for section, keys in loader._SECTIONS.items():
        assert f"[{section}]" in page
        assert not [key for key in keys if f"`{key}`" not in page]


def test_case_files_in_guides_are_loaded(tmp_path):
    for page in ("docs/guides/leave-aws.md", "docs/guides/handover.md"):
        (tmp_path / "case.toml").write_text(blocks(page, "toml")[0])
        assert loader.load(tmp_path / "case.toml").sources


def test_every_dependency_is_explained():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    named = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[\[<>= ]", one)[0] for one in named}
    page = text_of("docs/internals/dependencies.md")
    assert not [name for name in names if name not in page]


def test_the_test_command_of_the_readme_is_what_ci_runs():
    assert "make test" in "\n".join(blocks("README.md", "text"))
    assert re.search(r"^make test$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def test_make_has_every_target_that_is_named():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE))
    for page in ALL:
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, page
