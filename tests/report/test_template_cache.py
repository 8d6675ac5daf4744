"""Templates are compiled once, and again where anything that they are made of has changed."""

import sys

import jinja2
import pytest

from migrate.report.template_cache import TemplateCache

OPTIONS = {"trim_blocks": True}


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Return the names of the templates that were compiled; what is compiled is kept under ``tmp_path``."""
    names = []
    compile_template = jinja2.Environment.compile

    def compile_(environment, source, name=None, *words, **more):
        names.append(name)
        return compile_template(environment, source, name, *words, **more)

    monkeypatch.setattr(jinja2.Environment, "compile", compile_)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "kept"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return names


@pytest.fixture
def kept(compiled, tmp_path):
    """Return the directory of the files, as Python makes it for its own."""
    directory = TemplateCache(OPTIONS)._directory
    directory.mkdir(parents=True)
    return directory


def greeting(text="Hello {{ name }}", options=OPTIONS):
    loader = jinja2.DictLoader({"greeting": text})
    environment = jinja2.Environment(loader=loader, autoescape=True, bytecode_cache=TemplateCache(options))
    return environment.get_template("greeting").render(name="you & me")


def test_a_template_is_compiled_once(compiled, kept):
    assert greeting() == greeting() == "Hello you &amp; me"
    assert compiled == ["greeting"]
    (file,) = kept.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert greeting() == greeting() == "Hello you &amp; me"  # compiled again, and kept
    assert greeting("Bye {{ name }}") == "Bye you &amp; me"
    greeting("Bye {{ name }}", {"trim_blocks": False})
    assert compiled == ["greeting"] * 4


def test_where_nothing_can_be_kept_a_template_is_compiled_each_time(compiled, tmp_path):
    (tmp_path / "kept").write_bytes(b"no directory")
    assert greeting() == greeting() == "Hello you &amp; me"
    assert compiled == ["greeting"] * 2
