"""Segments keep messages in order; what an interrupted transaction left does not count."""

import hashlib
import json
import shutil
import struct
from contextlib import nullcontext

import pyarrow as pa
import pytest
from msgspec.structs import replace

from exporters.changes import Message, MessageKind
from migrate.changes.segments import START, Place, SegmentFolder, SegmentReader, WithdrawnError
from migrate.errors import AlreadyExistsError, DamageError, GoneError, UnreachableError, UsageError
from migrate.follow.status import age_seconds
from migrate.storage.registry import open_location

BEGIN, CHANGE, COMMIT, SHAPE = (MessageKind[name] for name in ("BEGIN", "CHANGE", "COMMIT", "SHAPE"))


@pytest.fixture
def folder(tmp_path):
    folder = SegmentFolder(open_location(str(tmp_path)), "app", 0x1234)
    folder.begin()
    return folder


def transaction(position, *payloads):
    """A begin, changes, and a commit."""
    changes = [Message(CHANGE, position, payload) for payload in payloads]
    return [Message(BEGIN, position, b""), *changes, Message(COMMIT, position, b"")]


def write(folder, messages, after, position):
    return folder.write(messages, folder.last(), after, position)


def payloads(reader):
    return [stored.message.payload for stored in reader.read() if stored.message.kind is CHANGE]


def test_messages_come_back_in_order_and_once(folder):
    reader = SegmentReader(folder)
    assert payloads(reader) == []
    first = write(folder, transaction(10, b"a", b"b"), START, 10)
    assert (payloads(reader), payloads(reader)) == ([b"a", b"b"], [])
    assert {type(message.payload) for message in folder.read(first)} == {bytes}
    write(folder, transaction(20, b"", bytes(1000)), first.boundary, 20)
    assert payloads(reader) == [b"", bytes(1000)]
    assert payloads(SegmentReader(folder, first.boundary)) == [b"", bytes(1000)]
    assert (folder.last().position, folder.last().transactions) == (20, 1)


def test_an_interrupted_transaction_counts_from_its_repetition(folder):
    first = write(
        folder, [*transaction(10, b"a"), Message(BEGIN, 20, b""), Message(CHANGE, 20, b"lost")], START, 10
    )
    second = write(folder, [Message(CHANGE, 20, b"lost too")], Place(1, first.messages), 10)
    assert second.boundary == first.boundary == Place(1, 3)
    early = SegmentReader(folder)
    assert payloads(early) == [b"a", b"lost", b"lost too"]
    write(folder, transaction(20, b"whole"), second.boundary, 20)
    with pytest.raises(WithdrawnError):
        payloads(early)
    assert payloads(SegmentReader(folder)) == [b"a", b"whole"]
    assert payloads(SegmentReader(folder, first.boundary)) == [b"whole"]


def test_who_begins_within_a_segment_learns_the_shapes_before(folder):
    shape = Message(SHAPE, 0, b"columns", (7,))
    write(folder, [shape, *transaction(10, b"a"), *transaction(20, b"b")], START, 20)
    rest = [stored.message for stored in SegmentReader(folder, Place(1, 4)).read()]
    assert [message.payload for message in rest if message.kind in {SHAPE, CHANGE}] == [b"columns", b"b"]


def test_what_is_not_read_since_the_folder_is_away_is_not_missing(folder, tmp_path):
    """As where a disk is unmounted before, or while, what a server sends is compared with what was captured."""
    first = write(folder, transaction(10, b"a"), START, 10)
    write(folder, transaction(20, b"b"), first.boundary, 20)
    assert [begin.position for begin in folder.begins(0, 20)] == [10, 20]
    begins, changes = folder.begins(0, 20), tmp_path / "changes"
    changes.rename(tmp_path / "away")
    with pytest.raises(UnreachableError, match="has no folder"):
        next(begins)
    (tmp_path / "away").rename(changes)
    record = next(changes.glob("app/*/*2.json"))
    records = SegmentFolder.records

    def put_away(self, after=0):
        record.rename(tmp_path / "away")
        return records(self, after)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentFolder, "records", put_away)
        begins = folder.begins(0, 20)
        assert next(begins).position == 10
        with pytest.raises(UnreachableError, match="was away"):
            next(begins)


def test_damage_is_named(folder, tmp_path):
    first = write(folder, transaction(10, b"a"), START, 10)
    second = write(folder, transaction(20, b"b"), first.boundary, 20)
    with pytest.raises(AlreadyExistsError):
        folder.write(transaction(20, b"rival"), first, first.boundary, 20)
    files = sorted((tmp_path / "changes" / "app" / f"{0x1234:016x}").glob("*.zst"))
    assert len(files) == 3  # the rival's messages have no record
    for damaged in b"abcdefgh":  # whose hashes come before and after
        files[0].write_bytes(bytes([damaged]))
        with pytest.raises(DamageError, match="0000000001-"):
            payloads(SegmentReader(folder))
    assert payloads(SegmentReader(folder, second.after)) == [b"b"]
    record = tmp_path / "changes" / "app" / f"{0x1234:016x}" / "0000000001.json"
    record.write_text(record.read_text().replace('"transactions":1', '"transactions":2'))
    with pytest.raises(DamageError, match=r"0000000002.json"):
        list(folder.records())


def test_a_record_that_is_gone_is_named_whoever_reads_on(folder, tmp_path):
    """Without it readers would take the record before for the last one."""
    assert folder.last() is None
    place = START
    for number in (1, 2, 3):
        place = write(folder, transaction(number, b"%d" % number), place, number).boundary
    assert folder.last() == list(folder.records())[-1] == next(folder.records(2))
    record = tmp_path / "changes" / "app" / f"{0x1234:016x}" / "0000000002.json"
    whole = record.read_text()
    record.unlink()
    for read in (folder.last, lambda: list(folder.records(2))):
        with pytest.raises(DamageError, match=r"0000000002.json"):
            read()
    for old, new in (('"after"', '"x"'), ('"after":[1,3]', '"after":[1]'), ('"number":2', '"nomber":2')):
        record.write_text(whole.replace(old, new))
        with pytest.raises(DamageError, match=r"0000000002.json"):
            list(folder.records())
    record.write_text(whole.replace('"version":1', '"version":2'))
    with pytest.raises(UsageError, match="version 2"):
        list(folder.records())


def test_up_to_where_nothing_came_is_kept_and_other_bases_are_removed(folder, tmp_path):
    assert folder.idle_position() == 0
    folder.write_idle_position(77)
    assert (folder.idle_position(), folder.written()) == (77, "")
    folder.write_idle_position(78, is_all=True)
    idle = folder.written()
    assert age_seconds(idle) < 60
    first = write(folder, transaction(80, b"a"), START, 80)
    assert (first.after, first.boundary, first.messages, first.transactions) == (START, Place(1, 3), 3, 1)
    assert idle <= folder.written() == first.written
    other = SegmentFolder(folder._store, "app", 0x99)
    assert other.idle_position() == 0
    with pytest.raises(UnreachableError, match="has no folder"):
        write(other, transaction(1, b"b"), START, 1)
    other.begin()
    shop = SegmentFolder(folder._store, "shop", 0x99)
    for each in (other, shop):
        each.begin()
        write(each, transaction(1, b"b"), START, 1)
    folder.remove_others()
    assert (payloads(SegmentReader(folder)), payloads(SegmentReader(shop))) == ([b"a"], [b"b"])
    assert list(folder._store.list("changes/app/" + f"{0x99:016x}")) == []
    with pytest.raises(UnreachableError, match="has no folder"):
        other.write_idle_position(3)
    for damaged in (
        b"{",
        b'{"version":1}',
        b'{"version":1,"position":"7"}',
        b'{"version":1,"position":-1}',
        b'{"version":1,"position":9223372036854775808}',
        b'{"version":1,"position":7,"written":8}',
        b'{"version":1,"position":7,"written":"yesterday"}',
        b'{"version":1,"position":7,"written":"2026-01-01T00:00:00"}',
    ):
        folder._store.put(f"changes/app/{0x1234:016x}/idle", damaged)
        with pytest.raises(DamageError, match="idle"):
            folder.idle_position()
    folder._store.put(f"changes/app/{0x1234:016x}/idle", b'{"version":2,"position":7}')
    with pytest.raises(UsageError, match="version 2"):
        folder.idle_position()


@pytest.mark.parametrize("segments_before", [0, 1])
@pytest.mark.parametrize("is_back", [False, True], ids=["still away", "back"])
def test_a_segment_that_was_written_while_the_disk_was_away_is_not_durable(
    tmp_path, monkeypatch, segments_before, is_back
):
    """A write makes the directory anew; what lies there is lost when the disk is back."""
    home, away = tmp_path / "home", tmp_path / "away"
    folder = SegmentFolder(open_location(str(home)), "app", 0x1234)
    folder.begin()
    place = START
    for number in range(segments_before):
        place = write(folder, transaction(10 + number, b"before"), place, 10 + number).boundary
    put, create = folder._store.put, folder._store.create

    def put_away(*arguments, **options):
        home.rename(away)
        return put(*arguments, **options)

    def create_and_back(*arguments):
        made = create(*arguments)
        if is_back:
            home.rename(tmp_path / "lost")
            away.rename(home)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(folder._store, "put", put_away)
        patch.setattr(folder._store, "create", create_and_back)
        with pytest.raises(UnreachableError, match="was away while a segment was written"):
            write(folder, transaction(20, b"lost"), place, 20)
    if not is_back:
        assert list(folder._store.list()) == []
        shutil.rmtree(home, ignore_errors=True)
        away.rename(home)
    write(folder, transaction(20, b"again"), place, 20)
    assert payloads(SegmentReader(folder)) == [b"before"] * segments_before + [b"again"]


def test_files_are_as_the_format_says(folder, tmp_path):
    """Others read them, and so does a later version."""
    messages = [Message(SHAPE, 0, b"columns"), *transaction(0x0A0B, b"a")]
    first = write(folder, messages, START, 0x0A0B)
    second = write(folder, [Message(BEGIN, 20, b"")], Place(1, 4), 0x0A0B)
    folder.write_idle_position(78, "first", is_all=True)
    home = tmp_path / "changes" / "app" / "0000000000001234"
    segments = [f"000000000{record.number}-{record.sha256[:16]}.zst" for record in (first, second)]
    assert {path.name for path in home.iterdir()} == {*segments, "0000000001.json", "0000000002.json", "idle"}
    data = (home / segments[0]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == first.sha256
    assert pa.Codec("zstd").decompress(data, first.raw_bytes, asbytes=True) == b"".join(
        struct.pack("<BQI", message.kind, message.position, len(message.payload)) + message.payload
        for message in messages
    )
    record = json.loads((home / "0000000001.json").read_bytes())
    assert record.pop("written") == first.written
    assert record == {
        "version": 1,
        "number": 1,
        "messages": 4,
        "transactions": 1,
        "position": 0x0A0B,
        "after": [0, 0],
        "boundary": [1, 4],
        "size_bytes": len(data),
        "raw_bytes": first.raw_bytes,
        "sha256": first.sha256,
        "previous": "",
    }
    previous = hashlib.sha256((home / "0000000001.json").read_bytes()).hexdigest()
    assert (second.number, second.previous, second.boundary, second.transactions) == (2, previous, (1, 4), 0)
    idle = json.loads((home / "idle").read_bytes())
    assert idle == {"version": 1, "position": 78, "origin": "first", "written": folder.written()}


def test_a_folder_that_is_away_has_no_damage(tmp_path):
    folder = SegmentFolder(open_location(str(tmp_path)), "app", 0x1234)
    for read in (folder.origin, lambda: folder.record(1), lambda: list(folder.records(1))):
        with pytest.raises(UnreachableError, match="has no folder"):
            read()
    folder.begin()
    assert folder.origin() == ""
    with pytest.raises(DamageError, match=r"0000000001\.json"):
        folder.record(1)
    record = write(folder, transaction(10, b"a"), START, 10)
    (tmp_path / "changes").rename(tmp_path / "away")
    with pytest.raises(UnreachableError, match="has no folder"):
        next(folder.read(record))
    (tmp_path / "away").rename(tmp_path / "changes")
    next(tmp_path.glob("changes/app/*/*.zst")).unlink()
    with pytest.raises(GoneError, match=r"0000000001-"):
        next(folder.read(record))


@pytest.mark.parametrize("after", range(0, 50, 10))
@pytest.mark.parametrize("until", [0, 10, 25, 40])
def test_what_was_captured_is_read_from_a_position_to_another_one(folder, after, until):
    """By it a stream recognizes that a server was put back to an earlier state."""
    assert list(folder.begins(after, until)) == []
    place = START
    for positions in ((10, 20), (30,), (40,)):
        messages = [message for position in positions for message in transaction(position, b"a")]
        place = write(folder, messages, place, positions[-1]).boundary
    begins = [begin.position for begin in folder.begins(after, until)]
    assert begins == [position for position in (10, 20, 30, 40) if after < position <= until]


def test_who_reads_on_reads_no_record_twice(folder, monkeypatch):
    reader, place, asked = SegmentReader(folder), START, []
    for number in (1, 2, 3):
        place = write(folder, transaction(number, b"%d" % number), place, number).boundary
    assert payloads(reader) == [b"1", b"2", b"3"]
    read = SegmentFolder._record_bytes
    monkeypatch.setattr(SegmentFolder, "_record_bytes", lambda *words: asked.append(words[1]) or read(*words))
    assert payloads(reader) == []
    assert asked == [3, 4]


def test_segments_after_other_bases_are_removed_from_the_newest_on(folder, monkeypatch):
    """A removal that is killed leaves no gap that readers would take for damage."""
    other, place = SegmentFolder(folder._store, "app", 0x99), START
    other.begin()
    for position in (10, 20):
        place = write(other, transaction(position, b"a"), place, position).boundary
    removed = []
    monkeypatch.setattr(folder._store, "delete_all", removed.extend)
    folder.remove_others()
    assert len(removed) == 5
    assert removed == sorted(removed, reverse=True)


@pytest.mark.parametrize(
    ("error", "found"),
    [(ValueError("odd"), "something else (ValueError('odd'))"), (UsageError("odd"), "odd")],
)
def test_why_messages_are_none_of_a_log_is_said(folder, error, found):
    record = write(folder, transaction(10, b"a"), START, 10)
    damage = folder.unreadable(1, error)
    assert f"0000000001-{record.sha256[:16]}.zst" in str(damage)
    assert found in str(damage)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"messages":3', '"messages":-1'),
        ('"transactions":1', '"transactions":-1'),
        ('"position":10', '"position":-1'),
        ('"position":10', f'"position":{2**63}'),
        ('"after":[0,0]', '"after":[1,0]'),
        ('"after":[0,0]', '"after":[-1,0]'),
        ('"boundary":[1,3]', '"boundary":[1,4]'),
        ('"boundary":[1,3]', '"boundary":[2,1]'),
        ('"sha256":"', '"sha256":"A'),
    ],
)
def test_a_record_whose_numbers_do_not_fit_together_is_damage(folder, tmp_path, old, new):
    write(folder, transaction(10, b"a"), START, 10)
    record = next(tmp_path.glob("changes/app/*/0000000001.json"))
    text = record.read_text()
    assert old in text
    record.write_text(text.replace(old, new))
    with pytest.raises(DamageError, match="numbers and places that fit together"):
        folder.record(1)


@pytest.mark.parametrize("number", [0, 2])
def test_a_record_with_another_number_is_damage(folder, tmp_path, number):
    write(folder, transaction(10, b"a"), START, 10)
    record = next(tmp_path.glob("changes/app/*/0000000001.json"))
    record.write_text(record.read_text().replace('"number":1', f'"number":{number}'))
    with pytest.raises(DamageError, match=f"that of {number}"):
        folder.record(1)


@pytest.mark.parametrize("messages", [2, 4])
def test_a_segment_with_other_messages_than_its_record_says_is_damage(folder, messages):
    record = write(folder, transaction(10, b"a"), START, 10)
    with pytest.raises(DamageError, match=f"{messages} messages"):
        list(folder.read(replace(record, messages=messages)))


def frames(*messages):
    return b"".join(struct.pack("<BQI", kind, 10, len(payload)) + payload for kind, payload in messages)


WHOLE = frames((1, b""), (2, b"a"), (3, b""))


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (WHOLE, ""),
        (frames((1, b""), (9, b"a"), (3, b"")), "a message at byte 13"),
        (WHOLE + b"\1", "a message at byte 40"),
        (WHOLE[:-14], "1, of which the last is cut off"),
        (WHOLE + frames((1, b"")), "3 messages"),
        (b"", "3 messages"),
    ],
    ids=["whole", "another kind", "half a frame", "half a payload", "more", "nothing"],
)
def test_what_a_segment_holds_is_checked_where_its_hash_is_right(folder, raw, found):
    first = write(folder, transaction(10, b"a"), START, 10)
    data = pa.Codec("zstd").compress(raw, asbytes=True)
    record = replace(first, sha256=hashlib.sha256(data).hexdigest(), raw_bytes=len(raw))
    folder._store.put(folder._segment_key(1, record.sha256), data)
    with pytest.raises(DamageError, match=found) if found else nullcontext():
        assert [message.payload for message in folder.read(record)] == [b"", b"a", b""]
    if found:
        folder._store.put(folder._segment_key(1, first.sha256), data)
        with pytest.raises(DamageError, match=f"sha256 {first.sha256}"):
            list(folder.read(first))
    garbage = replace(first, sha256=hashlib.sha256(b"garbage").hexdigest())
    folder._store.put(folder._segment_key(1, garbage.sha256), b"garbage")
    with pytest.raises(DamageError, match="bytes in zstd"):
        list(folder.read(garbage))


def test_a_file_that_would_grow_beyond_any_segment_is_not_unpacked(folder, tmp_path):
    """Some hundred kilobytes that state three gigabytes, and have them."""
    record = write(folder, transaction(10, b"a"), START, 10)
    piece = pa.Codec("zstd").compress(bytes(2**26), asbytes=True)
    bomb = piece * 48
    (file,) = tmp_path.rglob("*.zst")
    digest = hashlib.sha256(bomb).hexdigest()
    file.with_name(f"{record.number:010d}-{digest[:16]}.zst").write_bytes(bomb)
    (path,) = tmp_path.rglob("*1.json")
    fields = {"sha256": digest, "size_bytes": len(bomb), "raw_bytes": 48 * 2**26}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DamageError, match="numbers and places"):
        payloads(SegmentReader(folder))
    assert pa.default_memory_pool().max_memory() < before + 2**28
