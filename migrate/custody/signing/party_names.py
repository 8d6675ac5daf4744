"""Names of parties: which are taken, and which look the same.

A name shows who signed, so nobody may have one that is read as another's. The rule, a part of Unicode's Technical
Standard 39, stands in ``docs/FORMAT.md``, "Names of parties".
"""

# ruff: noqa: RUF001 - characters that look like others are the point

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

MAX_CHARACTERS = 100

_SCRIPTS = (
    " LATIN CYRILLIC GREEK ARMENIAN GEORGIAN HEBREW ARABIC THAANA ETHIOPIC DEVANAGARI BENGALI GURMUKHI GUJARATI"
    " ORIYA TAMIL TELUGU KANNADA MALAYALAM SINHALA THAI LAO TIBETAN MYANMAR KHMER HANGUL CJK HIRAGANA KATAKANA"
    " BOPOMOFO "
)
"""Those that UAX 31, table 5, recommends, as the names of their characters begin."""
_TOGETHER = tuple(
    frozenset({"LATIN", "CJK", *others}) for others in (("HIRAGANA", "KATAKANA"), ("HANGUL",), ("BOPOMOFO",))
)
"""What one word may mix: "Highly Restrictive" in UTS 39, section 5.2."""
_OTHER_WORDS = {"EXTENDED": "ARABIC", "IDEOGRAPHIC": "CJK"}
_POINTS = "·’ʼ"
_RARE = re.compile("[\u1d00-\u1dbf\u2c60-\u2c7f\ua640-\ua69f\ua720-\ua7ff\uab30-\uab6f]")
"""Blocks of phonetic and obsolete letters of Latin and Cyrillic."""
_INVISIBLE = ("FILLER", "GRAPHEME JOINER", "VOWEL INHERENT")
_ACCENTS = ("COMBINING ", "ARABIC ", "HEBREW ")
_PAIRS = (
    "аaАAВBЬbсcСCԁdеeҽeЕEԌGһhНHіiӏlјjЈJкkКKІIӀlМMоoОOрpРPԛqгrѕsЅSТTѵvѴVѡwԝwԜWхxХXуyУYүyҮYЗ3Ӡ3б6вbмmнhтt"  # Cyrillic
    "αaΑAΒBσoΕEηnΗHιiΚKκkΙIΜMΝNοoΟOρpΡPΤTυuνvωwΧXχxγyΥYΖZϳjͿJϺMϜF"  # Greek
    "քfցgհhոnռnօoՕOգqզqՏSսuՍUաw"  # Armenian
    "Ƨ2Ʒ3ʒ3Ȝ3Ƽ5ȣ8Ȣ8ɑaƄbđdɡgƍgħhıiɪiɩiĸkłlǀlƖløoØOƦRƽsŧtʋuɯwɣyʏy"  # Latin
    "یيىيکكہهھهةه"  # Arabic
    "へヘりリー一ニ二カ力エ工ロ口ト卜タ夕ハ八〇O"  # Hiragana, Katakana and ideographs
)
_LOOK_LIKE = str.maketrans({**dict(zip(_PAIRS[::2], _PAIRS[1::2], strict=True)), "\u0640": ""})  # tatweel
_DIGITS = str.maketrans("01|", "oll")


def objection(name: str) -> str:
    """Return what is wrong with a name of a party, as the end of a sentence that begins with it; "" where it is
    good.
    """
    if not name or len(name) > MAX_CHARACTERS or name != name.strip(" ") or "  " in name:
        return f"must have 1 to {MAX_CHARACTERS} characters, and no space at either end or next to another"
    normal_form = unicodedata.normalize("NFKC", name)
    for character in normal_form:
        if _script(character) is None:
            return f"has the character {_described(character)}, which no name may have"
    if name != normal_form:
        return f"is not in Unicode's normal form NFKC: write {normal_form!r}"
    for is_between, characters in groupby(name, _is_between):
        scripts = set() if is_between else {script for script in map(_script, characters) if script}
        if len(scripts) > 1 and not any(scripts <= allowed for allowed in _TOGETHER):
            return (
                f"mixes letters of {' and '.join(sorted(script.title() for script in scripts))} in one word"
            )
    return ""


def looks(name: str) -> frozenset[str]:
    """Return keys of how a name looks: two names look the same where they share any."""
    bare = "".join(
        character for character in unicodedata.normalize("NFKD", name) if not _is_accent(character)
    )
    caseless = unicodedata.normalize("NFKD", bare.casefold()).translate(_LOOK_LIKE)
    shape = bare.translate(_LOOK_LIKE)
    return frozenset(map(_shape, (shape.replace("I", "l"), shape.casefold(), caseless)))


def shown(name: str) -> str:
    """Return a name that its owner chose: as it is where it is good, else with escapes."""
    return ascii(name)[1:-1] if objection(name) else name


def _shape(text: str) -> str:
    characters = ("-" if _is_between(character) else _western(character) for character in text)
    shape = "".join(characters).translate(_DIGITS).replace("rn", "m").replace("vv", "w")
    return re.sub("-+", "-", shape).strip("-") or text


def _western(character: str) -> str:
    """Return a digit of any script as one of ASCII, anything else as it is."""
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


def _is_between(character: str) -> bool:
    """Tell whether a character stands between words."""
    return character in _POINTS or unicodedata.category(character)[0] not in "LMN"


def _script(character: str) -> str | None:
    """Return the script of a character, "" where it is of all; None where no name may have it."""
    if character.isascii():
        return None if not character.isprintable() else "LATIN" if character.isalpha() else ""
    name = unicodedata.name(character, "")
    if unicodedata.category(character)[0] not in "LMNPS" or any(word in name for word in _INVISIBLE):
        return None
    first = re.split("[ -]", name)[0]
    script = _OTHER_WORDS.get(first, first)
    if script == "COMBINING" or character in _POINTS:
        return ""
    if _RARE.match(character) or (character > "\uffff" and script != "CJK"):
        return None
    return script if f" {script} " in _SCRIPTS else None


def _is_accent(character: str) -> bool:
    """Tell whether it is a mark without which a name looks the same, or is not seen at all. Marks of Kana are none."""
    category = unicodedata.category(character)
    is_mark = category in {"Mn", "Me"} and unicodedata.name(character, "").startswith(_ACCENTS)
    return category == "Cf" or (is_mark and character not in "\u3099\u309a")


def _described(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
