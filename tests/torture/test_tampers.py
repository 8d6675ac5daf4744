"""Somebody changes one file of a bundle, in any way, at any place: the verification names that very file.

MOVEOUT_TAMPERS changes in all (2000), MOVEOUT_SEED repeats them. A change counts only where its file was named.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from typing import cast

import pytest

from migrate.bundle import layout
from migrate.errors import DamageError, GoneError, UsageError
from migrate.runtime.progress import Silent
from migrate.storage.api import Store
from migrate.verify.run import Level, verify
from tests.bundle.test_hostile import Memory
from tests.test_damage import Files, bundle  # noqa: F401 - a fixture
from tests.tools.tally import count

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

TAMPERS = int(os.environ.get("MOVEOUT_TAMPERS", "2000"))
Change = Callable[[Files, str, random.Random], Files]
"""Changes a file of a bundle; returns the whole bundle."""


def edited(edit: Callable[[bytes, random.Random], bytes]) -> Change:
    """A change of a file's bytes."""
    return lambda files, key, draw: {**files, key: edit(files[key], draw)}


def bit_flipped(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def byte_replaced(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return (
        data[:at] + bytes([draw.choice([byte for byte in range(256) if byte != data[at]])]) + data[at + 1 :]
    )


def zeroed(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    block = data[at : at + 512]
    return data[:at] + bytes(len(block)) + data[at + 512 :]


def bytes_inserted(data: bytes, draw: random.Random) -> bytes:
    at = draw.randint(0, len(data))
    return data[:at] + draw.randbytes(draw.randint(1, 64)) + data[at:]


def bytes_deleted(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.randint(1, 64) :]


def rotated(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[at:] + data[:at]


def swapped(files: Files, key: str, draw: random.Random) -> Files:
    """Two files have each other's name."""
    other = draw.choice([name for name in files if files[name] != files[key] and name != layout.TAG_MANIFEST])
    return {**files, key: files[other], other: files[key]}


def replaced(files: Files, key: str, draw: random.Random) -> Files:
    """Another file of the bundle has taken its place."""
    other = draw.choice([name for name in files if files[name] != files[key]])
    return {**files, key: files[other]}


def removed(files: Files, key: str, _: random.Random) -> Files:
    return {name: data for name, data in files.items() if name != key}


def renamed(files: Files, key: str, draw: random.Random) -> Files:
    return {**removed(files, key, draw), f"{key}-{draw.randrange(1000)}": files[key]}


WAYS: dict[str, Change] = {
    "a bit flipped": edited(bit_flipped),
    "a byte replaced": edited(byte_replaced),
    "a block zeroed": edited(zeroed),
    "bytes inserted": edited(bytes_inserted),
    "bytes deleted": edited(bytes_deleted),
    "its bytes rotated": edited(rotated),
    "cut": edited(lambda data, draw: data[: draw.randrange(len(data))]),
    "emptied": edited(lambda _, __: b""),
    "extended": edited(lambda data, draw: data + draw.randbytes(draw.randint(1, 64))),
    "swapped with another": swapped,
    "replaced by another": replaced,
    "removed": removed,
    "renamed": renamed,
}


def named_by_verify(files: Files) -> tuple[set[str], str]:
    """Return the files that a verification names, and all that it says. Nothing holds the hash of the tag manifest:
    what it says does not fit any more, and the words about another file name it.
    """
    try:
        found = verify(cast("Store", Memory(files)), Level.FULL, workers=1, progress=Silent()).findings
    except DamageError as error:
        return {error.key}, str(error)
    except (GoneError, UsageError) as error:
        return {
            key for key in (layout.TAG_MANIFEST, layout.BUNDLE_META, layout.BAGIT) if key in str(error)
        }, str(error)
    text = "\n".join(map(str, found))
    names = {re.sub(r" line \d+$", "", finding.key) for finding in found}
    return names | ({layout.TAG_MANIFEST} if layout.TAG_MANIFEST in text else set()), text


def test_verify_names_the_file(bundle: Files) -> None:  # noqa: F811
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    draw = random.Random(seed)
    assert named_by_verify(bundle) == (set(), "")
    keys = list(bundle)
    draw.shuffle(keys)
    score, missed = Counter[str](), list[str]()
    for number, (key, _) in enumerate(zip(cycle(keys), range(TAMPERS), strict=False)):
        way = list(WAYS)[(number + number // len(keys)) % len(WAYS)]
        changed = WAYS[way](bundle, key, draw)
        if changed == bundle:
            continue
        names, text = named_by_verify(changed)
        score[way] += key in names
        if key not in names:
            missed.append(
                f"{key}, {way} (MOVEOUT_SEED={seed}, change {number}): {text or 'nothing was said'}"
            )
    sys.stderr.write(f"\nMOVEOUT_SEED={seed}, {len(keys)} files: {dict(score)}\n")
    count("tampers", score.total())
    assert not missed, "\n".join(missed[:20]) + f"\n{len(missed)} in all"
    assert set(score) == set(WAYS) or len(WAYS) > TAMPERS
