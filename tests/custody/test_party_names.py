"""Names of parties: no two that are read as one, none with what nobody sees, and all languages."""

# ruff: noqa: RUF001 - characters that look like others are the point

from itertools import combinations

import pytest

from migrate.custody.log.events import record
from migrate.custody.signing import allowed_signers, keys, party_names
from migrate.custody.signing.keys import KeyFile, PublicKey
from migrate.errors import UsageError
from tests.cli.conftest import call

GOOD = (
    "acme", "Acme Inc.", "ops@host.example", "O'Neil & Søn", "Müller-Lüdenscheidt", "Nguyễn Văn", "ООО Ромашка",
    "Пʼять", "Україна", "Ελλάς Α.Ε.", "Հայաստան", "საქართველო", "שלום בע״מ", "شركة أكمي", "علی ۱۲", "राम लिमिटेड", "ไทย",
    "မြန်မာ", "አማርኛ", "한국전력공사 2", "株式会社ABC", "らーめん々", "团队·一", "ソニー", "Acme Москва",
)  # fmt: skip
ALIKE = (
    ("acme", "асме"), ("ACME", "АСМЕ"), ("acme", "АСМЕ"), ("host", "Host"), ("host", "host."), ("a corp", "a-corp"),
    ("paypal", "paypaI"), ("paypal", "paypa1"), ("modem", "modern"), ("Müller", "Muller"), ("Ροο", "Poo"),
    ("uo", "սօ"),
    ("カ", "力"), ("علی", "علي"), ("محمد", "محمـد"), ("team ۴", "team ٤"), ("łódź", "lodz"),
)  # fmt: skip
OTHER = (
    ("acme", "acne"), ("AIL", "ALL"), ("acme 1", "acme 2"),
    ("राम", "रिम"), ("कल", "कुल"), ("が", "か"), ("東京", "京東"),
)  # fmt: skip
BAD = {
    "": "1 to 100 characters",
    " acme": "no space at either end",
    "acme ": "no space at either end",
    "a  b": "next to another",
    "a" * 101: "1 to 100 characters",
    "аcme": "mixes letters of Cyrillic and Latin in one word",
    "Ρepsi": "mixes letters of Greek and Latin",
    "ac\u200bme": "U+200B ZERO WIDTH SPACE",
    "ac\u200dme": "U+200D ZERO WIDTH JOINER",
    "ac\u00adme": "U+00AD SOFT HYPHEN",
    "\u202eemca": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "acme\u2066": "U+2066 LEFT-TO-RIGHT ISOLATE",
    "acme\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "ac\u034fme": "U+034F COMBINING GRAPHEME JOINER",
    "\u3164": "FILLER",
    "ac\nme": "U+000A",
    "ac\u00a0me\u2003x": "NFKC: write 'ac me x'",
    "\uff48ost": "NFKC: write 'host'",
    "e\u0301cole": "NFKC: write 'école'",
    "acme\ue000": "U+E000",
    "acme 😀": "U+1F600",
    "ᴀcme": "U+1D00 LATIN LETTER SMALL CAPITAL A",
    "𝈖": "U+1D216",
    "\ud800": "U+D800",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_any_language_is_taken(name):
    assert party_names.objection(name) == ""
    assert party_names.shown(name) == name


@pytest.mark.parametrize("name", BAD)
def test_what_nobody_sees_or_would_read_as_another_is_refused(name, tmp_path):
    assert BAD[name] in party_names.objection(name)
    assert party_names.shown(name).isascii()
    if party_names.objection(" ".join(name.split())):  # spaces are put in order there
        with pytest.raises(UsageError, match="the name"):
            keys.create(tmp_path / "key", name, None)
        assert list(tmp_path.iterdir()) == []


def test_names_look_the_same_or_they_do_not():
    assert [pair for pair in ALIKE if not party_names.looks(pair[0]) & party_names.looks(pair[1])] == []
    assert [pair for pair in OTHER if party_names.looks(pair[0]) & party_names.looks(pair[1])] == []
    distinct = [
        pair for pair in combinations(GOOD, 2) if party_names.looks(pair[0]) & party_names.looks(pair[1])
    ]
    assert distinct == []


@pytest.mark.parametrize("pair", ALIKE)
def test_two_parties_of_a_list_do_not_look_the_same(pair, provider, customer, tmp_path):
    """Neither on two lines, nor on one."""
    first, second = (f'"{name}"' for name in pair)
    file = tmp_path / "signers"
    file.write_text(f"{first} {provider.public.line}\n\n{second} {customer.public.line}\n", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        allowed_signers.load(file)
    assert f"{file} line 3: the name {pair[1]!a} looks like {pair[0]!a} of {file} line 1" in str(
        refused.value
    )
    assert "give two parties names that look different" in refused.value.next_step
    file.write_text(f'"{",".join(pair)}" {provider.public.line}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="looks like"):
        allowed_signers.load(file)


def test_a_name_that_may_not_be_is_refused_where_it_enters(provider, make_key, tmp_path):
    """In a list, in somebody else's public key, and in one's own."""
    file, own = tmp_path / "signers", make_key.path_of("renamed")
    file.write_text(f"аcme {provider.public.line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"line 1: the name '\\u0430cme' mixes letters"):
        allowed_signers.load(file)
    public = own.with_name("renamed.pub")
    public.write_text(PublicKey(make_key("renamed").public.raw, "ho\u200bst").line, encoding="utf-8")
    for words in (("keys", "show", public), ("sign", tmp_path, "--key", own)):
        refused = call(*words)
        assert (refused.code, "the name 'ho\\u200bst' has the character U+200B" in refused.err) == (
            2,
            True,
        ), refused
    made = call("keys", "init", tmp_path / "k", "--name", "аcme")
    assert (made.code, "→ write another: --name NAME" in made.err) == (2, True), made
    made = call("keys", "init", tmp_path / "k", "--name", "Ромашка")
    assert (made.code, "Ромашка ssh-ed25519" in made.out) == (0, True), made


def test_keys_of_one_name_are_one_partys_and_each_is_shown_by_its_fingerprint(
    location, provider, make_key, tmp_path
):
    """Whoever writes an entry calls himself what he likes."""
    stranger = make_key("stranger")
    named = KeyFile(PublicKey(stranger.public.raw, "рrovider"), stranger._private)
    for signer in (provider, named):
        record(location, signer, "noted", {"what": "x"})
    shown = call("custody", "show", location.location).out
    assert f"provider (says the key {provider.public.fingerprint})" in shown
    assert f"\\u0440rovider (says the key {stranger.public.fingerprint})" in shown
    file = tmp_path / "signers"
    file.write_text(f"host {provider.public.line}\nhost {make_key('spare').public.line}\n")
    assert allowed_signers.load(file).owners(make_key("spare").public) == {"host"}
    listed = call("custody", "show", location.location, "--signers", file).out
    assert f"host ({provider.public.fingerprint})" in listed  # two keys have that name
    verified = call("custody", "verify", location.location, "--signers", file)
    assert (verified.code, stranger.public.fingerprint in verified.out) == (6, True), verified.out
