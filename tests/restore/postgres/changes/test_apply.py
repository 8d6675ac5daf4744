"""Changes of a source come to its destination, whatever they are; what does not fit is named."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from exporters.changes import MessageKind
from exporters.postgres.sessions.connection import parse_url
from migrate.changes.apply import Applying, ChangeConflictError
from migrate.changes.segments import START, Place
from migrate.errors import BusyError, NotAllowedError, UsageError
from migrate.restore.postgres.changes.change_writer import open_change_writer
from migrate.restore.postgres.destination import connect_writer, without_triggers, without_user_triggers
from migrate.runtime.cancellation import CancellationToken
from tests.exporters.postgres.databases import as_role, fetch, login, run_sql
from tests.tools.waiting import eventually

SCRIPT = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'a\\b');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN few AS int[] CHECK (cardinality(VALUE) < 9);
CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE typed (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, c char(5), bits bit(3), vb varbit,
  n numeric(12,3), f float8, m money, t timestamptz, i interval, by bytea, j json, jb jsonb, x xml, mo mood,
  moods mood[], p pair, pairs pair[], few few, fews few[], box box, boxes box[], r int4range, mr int4multirange,
  ip inet, oids oidvector, ch "char", ci citext, words text[], ts tsvector, na name,
  twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE "odd ""x%s$1" ("k 1" citext, "k,2" text COLLATE loose, v text, PRIMARY KEY ("k 1", "k,2"));
CREATE TABLE long_values (id int PRIMARY KEY, a text, b text, n int);
ALTER TABLE long_values ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
CREATE TABLE long_keys (k text PRIMARY KEY, v text); ALTER TABLE long_keys ALTER k SET STORAGE EXTERNAL;
CREATE TABLE whole (a numeric, j json, t text, i int GENERATED ALWAYS AS IDENTITY, c char(3));
CREATE TABLE whole_with_key (id int PRIMARY KEY, v text UNIQUE, j json);
CREATE TABLE always (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text);
CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, v text, UNIQUE (a, b));
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a_b_key;
ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole_with_key REPLICA IDENTITY FULL;
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent
  ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parts (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE TABLE late (id int PRIMARY KEY, n int UNIQUE DEFERRABLE INITIALLY DEFERRED); ALTER TABLE late
  REPLICA IDENTITY USING INDEX late_pkey;
CREATE TABLE nothing (); ALTER TABLE nothing REPLICA IDENTITY FULL;
CREATE TABLE base (id int PRIMARY KEY); CREATE TABLE heir (v text, PRIMARY KEY (id)) INHERITS (base);
CREATE TABLE seen (id int PRIMARY KEY, n int);
CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := NEW.n + 1; RETURN NEW; END';
CREATE TRIGGER grow BEFORE INSERT OR UPDATE ON seen FOR EACH ROW EXECUTE FUNCTION grow();
CREATE TABLE acting (id int PRIMARY KEY, n int); CREATE TABLE echoes (id int PRIMARY KEY, n int);
CREATE TRIGGER grow BEFORE INSERT OR UPDATE ON acting FOR EACH ROW EXECUTE FUNCTION grow();
CREATE TRIGGER mirrored BEFORE INSERT OR UPDATE ON acting FOR EACH ROW EXECUTE FUNCTION grow();
CREATE RULE echo AS ON UPDATE TO acting DO ALSO INSERT INTO echoes VALUES (new.n, new.id);
ALTER TABLE acting ENABLE ALWAYS TRIGGER grow, ENABLE REPLICA TRIGGER mirrored, ENABLE ALWAYS RULE echo;
CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.echoes VALUES (0, 0); END';
CREATE EVENT TRIGGER noted ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION noted();
ALTER EVENT TRIGGER noted ENABLE ALWAYS;
CREATE FUNCTION plain(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION calls(t text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN plain(t); END';
CREATE TABLE checked (id int PRIMARY KEY, v text CHECK (calls(v) <> ''));
INSERT INTO long_values SELECT i, repeat('a' || i, 5000), repeat('b' || i, 5000), i FROM generate_series(1, 4) i;
INSERT INTO whole (a, j, t, c) VALUES (1.0, '{"a":1}', 'x', 'a'), (1.00, '{"a":1}', 'x', 'a'), (NULL, NULL, NULL, NULL);
INSERT INTO whole (a, j, t, c) SELECT 2, '[]', 'same', 'b' FROM generate_series(1, 3);
INSERT INTO parent SELECT generate_series(1, 9); INSERT INTO child SELECT i, i FROM generate_series(1, 9) i;
INSERT INTO seen VALUES (1, 1);
"""
NEW_TYPED = """
INSERT INTO typed (c, bits, vb, n, f, m, t, i, by, j, jb, x, mo, moods, p, pairs, few, fews, box, boxes, r, mr, ip,
  oids, ch, ci, words, ts, na)
SELECT E'a\\n', B'101', B'1', 1.5, 'NaN', 1234.5, '2026-02-03 04:05:06.789+02', '1 mon -2 days',
  E'\\\\x00ff5c22', '{"a": 1,  "a":2}', '{"b":"\\"q\\""}', '<a>"</a>', 'so "so"', '{NULL,"a\\\\b"}',
  ROW(1, E'x"\\\\,(')::pair, ARRAY[(1, NULL), (NULL, '')]::pair[], '{1,NULL}',
  '{"{1}",NULL}', '((1,2),(0,0))', '{(1,2),(0,0);(3,4),(1,1)}',
  '[1,9)', '{[1,3),[5,7)}', '10.1.2.3/8', '1 2', 'x', 'CiText', ARRAY['', 'null', 'NULL', E'\\t', NULL, '{}'], 'a:1 b',
  'n' FROM generate_series(1, 3)
"""


@pytest.fixture(scope="module")
def followed(make_shared_pair):
    return make_shared_pair(SCRIPT)


@pytest.mark.parametrize(
    ("statements", "single"),
    [
        pytest.param(f"{NEW_TYPED}; INSERT INTO typed (c) VALUES (NULL)", 0, id="every type is inserted"),
        pytest.param(
            "UPDATE typed SET c = E'\\\\', moods = NULL, n = -1, boxes = '{}', words = '{\"\"}', bits = NULL;"
            " DELETE FROM typed WHERE id = 2; UPDATE typed SET id = DEFAULT WHERE id = 1",
            0,
            id="every type is updated",
        ),
        pytest.param(
            "INSERT INTO \"odd \"\"x%s$1\" VALUES ('A', 'b', E'\\\\.'), ('a b', 'B', E'\\r\\n\\t'), ('c', '', NULL);"
            'UPDATE "odd ""x%s$1" SET v = \'new\' WHERE "k 1" = \'a\'; UPDATE "odd ""x%s$1" SET "k,2" = \'B\';'
            'UPDATE "odd ""x%s$1" SET v = v || \'!\' WHERE "k,2" = \'b\'; DELETE FROM "odd ""x%s$1" WHERE v IS NULL',
            11,
            id="odd names, and keys that are equal otherwise",
        ),
        pytest.param(
            "UPDATE long_values SET n = n + 1; UPDATE long_values SET a = 'short' WHERE id = 2;"
            "UPDATE long_values SET id = id + 10 WHERE id < 3; UPDATE long_values SET b = repeat('c', 6000), n = 0"
            " WHERE id = 3; UPDATE long_values SET n = 7; INSERT INTO long_values VALUES (99, repeat('z', 9000), '');"
            "UPDATE long_values SET n = 8 WHERE id = 99; INSERT INTO long_keys VALUES (repeat('k', 2600), 'a');"
            "UPDATE long_keys SET v = 'b'; UPDATE long_keys SET v = 'c'",
            2,
            id="values that are not sent",
        ),
        pytest.param(
            "DELETE FROM whole WHERE ctid = '(0,2)'; UPDATE whole SET t = 'other' WHERE ctid = '(0,4)';"
            "UPDATE whole SET j = '{}' WHERE a IS NULL; DELETE FROM whole WHERE ctid = '(0,5)';"
            "INSERT INTO whole (a, j, t) VALUES (3, '1', E'\\\\N'); UPDATE whole SET i = DEFAULT WHERE a = 3",
            5,
            id="no key, equal rows, json",
        ),
        pytest.param(
            "INSERT INTO whole_with_key VALUES (1, 'a', '{}'), (2, 'b', '{}');"
            "UPDATE whole_with_key SET v = 'c', j = '[1]' WHERE id = 1; UPDATE whole_with_key SET v = 'a' WHERE id = 2;"
            "UPDATE whole_with_key SET id = id + 10; DELETE FROM whole_with_key WHERE id = 11",
            7,
            id="whole rows of a table with a key",
        ),
        pytest.param(
            "INSERT INTO always (id, v) VALUES (1, 'a'), (2, 'b'); UPDATE always SET v = 'c';"
            "UPDATE always SET n = DEFAULT, id = 5 WHERE id = 2; DELETE FROM always WHERE id = 1",
            0,
            id="identity that the server makes",
        ),
        pytest.param(
            "INSERT INTO by_index VALUES (1, 'a', 'x'), (2, 'b', 'y'); UPDATE by_index SET v = 'z';"
            "UPDATE by_index SET a = 3 - a, b = 'c'; DELETE FROM by_index WHERE a = 1",
            0,
            id="identity by an index",
        ),
        pytest.param(
            "DELETE FROM parent WHERE id < 3; UPDATE parent SET id = id + 100 WHERE id = 4; BEGIN; INSERT INTO child"
            " VALUES (77, 77); INSERT INTO parent VALUES (77); COMMIT; UPDATE child SET parent = NULL WHERE id = 9",
            0,
            id="foreign keys that cascade",
        ),
        pytest.param(
            "INSERT INTO parts VALUES (1, '2026-02-02', 'a'), (2, '2026-08-08', 'b');"
            "UPDATE parts SET at = '2026-09-09' WHERE id = 1; UPDATE parts SET v = 'c'",
            0,
            id="rows that move to another partition",
        ),
        pytest.param(
            "INSERT INTO late SELECT i, i FROM generate_series(1, 5) i; UPDATE late SET n = 6 - n;"
            "BEGIN; UPDATE late SET n = 1; UPDATE late SET n = id + 10; COMMIT",
            0,
            id="constraints that hold at the end",
        ),
        pytest.param(
            "INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES; DELETE FROM nothing WHERE ctid ="
            " '(0,1)'; INSERT INTO base VALUES (1); INSERT INTO heir VALUES (1, 'a'); UPDATE base SET id = id + 1",
            1,
            id="no columns, and heirs with the same keys",
        ),
        pytest.param(
            "UPDATE seen SET n = 10; INSERT INTO seen VALUES (2, 2); UPDATE seen SET id = -id;"
            "INSERT INTO acting VALUES (1, 1), (2, 5); UPDATE acting SET n = n * 10",
            0,
            id="triggers and rules act once, also those that act on replicas",
        ),
        pytest.param(
            "INSERT INTO checked VALUES (1, 'a'), (2, 'b'); UPDATE checked SET v = 'c' WHERE id = 1",
            3,
            id="a constraint that names a function without its schema",
        ),
        pytest.param(
            "INSERT INTO parent VALUES (500); TRUNCATE parent CASCADE; INSERT INTO parent VALUES (1);"
            "BEGIN; INSERT INTO always (id) VALUES (70); TRUNCATE always, seen RESTART IDENTITY; SAVEPOINT a;"
            "INSERT INTO always (id) VALUES (71); ROLLBACK TO a; INSERT INTO always (id) VALUES (72); COMMIT",
            0,
            id="truncate",
        ),
        pytest.param(
            "INSERT INTO seen VALUES (9, 1); DELETE FROM seen WHERE id = 9; INSERT INTO seen VALUES (9, 2);"
            "UPDATE seen SET n = 5 WHERE id = 9; DELETE FROM seen WHERE id = 9; INSERT INTO seen VALUES (9, 3);"
            "DELETE FROM seen WHERE id = 9; INSERT INTO seen VALUES (8, 1), (7, 1);"
            "UPDATE seen SET id = 9 WHERE id = 8; UPDATE seen SET id = 8 WHERE id = 7;"
            "BEGIN; INSERT INTO seen VALUES (6, 6); PREPARE TRANSACTION 'p';"
            "COMMIT PREPARED 'p'; BEGIN; INSERT INTO seen VALUES (5, 5); PREPARE TRANSACTION 'q';"
            "ROLLBACK PREPARED 'q'",
            0,
            id="rows that come and go",
        ),
    ],
)
def test_changes_arrive(followed, statements, single):
    followed.follow(statements)
    assert followed.single_changes == single
    query = (
        "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgenabled <> 'O'"
        " UNION ALL SELECT rulename, ev_enabled::text FROM pg_rewrite WHERE rulename = 'echo'"
        " UNION ALL SELECT evtname, evtenabled::text FROM pg_event_trigger ORDER BY 1"
    )
    expected = [("echo", "A"), ("grow", "A"), ("mirrored", "R"), ("noted", "A")]
    assert fetch(followed.destination, query) == expected


CONFLICTS = """
CREATE TABLE fine (id int PRIMARY KEY, v text);
CREATE TABLE gone (id int PRIMARY KEY, v text, n int); INSERT INTO gone SELECT i, 'old', i FROM generate_series(1, 9) i;
CREATE TABLE whole (a int, b text); ALTER TABLE whole REPLICA IDENTITY FULL; INSERT INTO whole VALUES (1, 'b');
"""


def test_a_change_that_does_not_fit_is_named_and_what_comes_before_it_is_kept(make_pair):
    pair = make_pair(CONFLICTS)
    run_sql(pair.destination, "DELETE FROM gone WHERE id = 5; UPDATE gone SET v = 'theirs' WHERE id = 6")
    run_sql(pair.destination, "INSERT INTO fine VALUES (3, 'theirs'); UPDATE whole SET b = 'theirs'")
    refused = [
        ("UPDATE gone SET v = 'new' WHERE id > 4", "UPDATE", "gone", "no such row; key (id = '5')"),
        ("INSERT INTO fine VALUES (3, 'ours')", "INSERT", "fine", "(id = '3', v = 'theirs')"),
        ("DELETE FROM whole", "DELETE", "whole", "row was (a = '1', b = 'b')"),
    ]
    mended = [
        "INSERT INTO gone VALUES (5, 'old', 5)",
        "DELETE FROM fine WHERE id = 3",
        "UPDATE whole SET b = 'b'",
    ]
    for number, ((statement, verb, table, words), mend) in enumerate(zip(refused, mended, strict=True), 10):
        pair.capture(f"INSERT INTO fine VALUES ({number}, 'before')")
        pair.capture(f"{statement}; INSERT INTO fine VALUES ({number + 10}, 'after')")
        with pytest.raises(
            ChangeConflictError, match=rf'^{verb} of "public"."{table}" at 0/[0-9A-F]+: '
        ) as error:
            pair.apply()
        assert words in str(error.value)
        assert fetch(pair.destination, f"SELECT id FROM fine WHERE id IN ({number}, {number + 10})") == [
            (number,)
        ]
        run_sql(pair.destination, mend)
        pair.apply()
    pair.assert_equal()


SHAPES = [
    # what the source changes; what the error says; what the next step is
    ("ADD COLUMN x varchar(9)", "(7, 'd', 'x')", '"x" is not at', 'ADD COLUMN "x" character varying(9)'),
    ("DROP COLUMN v", "(7)", '"v" is only at', 'DROP COLUMN "v"'),
    ("RENAME v TO w", "(7, 'd')", '"w" is not at', 'RENAME COLUMN "v" TO "w"'),
    ("ALTER id TYPE bigint", "(5000000000, 'd')", "is bigint, at", 'ALTER COLUMN "id" TYPE bigint'),
    (
        "ALTER v TYPE varchar(4)",
        "(7, 'long')",
        "varying(4), at",
        'ALTER COLUMN "v" TYPE character varying(4)',
    ),
]


def test_another_shape_stops_before_its_first_change(make_pair):
    names = [f"t{number}" for number in range(len(SHAPES))]
    table = "CREATE TABLE {0} (id int PRIMARY KEY, v varchar(3)); INSERT INTO {0} VALUES (1, 'a'), (2, 'b')"
    pair = make_pair(";".join(table.format(name) for name in names))
    for name, (ddl, values, words, step) in zip(names, SHAPES, strict=True):
        pair.capture(f"UPDATE {name} SET id = 3 WHERE id = 1; DELETE FROM {name} WHERE id = 2")
        pair.capture(f"ALTER TABLE {name} {ddl}; INSERT INTO {name} VALUES {values}")
        for _ in range(2):
            with pytest.raises(ChangeConflictError, match="has another definition of") as error:
                pair.apply()
            assert words in str(error.value)
        assert fetch(pair.destination, f"SELECT id FROM {name}") == [(3,)]
        statement = error.value.next_step.partition("such as ")[2].partition(";")[0]
        assert step in statement
        run_sql(pair.destination, statement)
        pair.apply()
    pair.assert_equal()


def test_the_destination_makes_generated_values_that_a_source_sends(make_pair):
    """PostgreSQL 18 sends them where a table with generated columns is identified by its whole rows."""
    pair = make_pair(
        "CREATE TABLE t (id int PRIMARY KEY, n int, g int); CREATE TABLE w (n int, g int);"
        "ALTER TABLE w REPLICA IDENTITY FULL"
    )
    generated = "DROP g, ADD g int GENERATED ALWAYS AS (n * 2) STORED"
    run_sql(pair.destination, f"ALTER TABLE t {generated}; ALTER TABLE w {generated}")
    pair.capture("INSERT INTO t VALUES (1, 1, 2), (2, 2, 4); INSERT INTO w VALUES (1, 2), (2, 4)")
    with pytest.raises(ChangeConflictError, match="generated at the destination only") as error:
        pair.apply()
    assert error.value.next_step.count('ALTER TABLE "public"."t" ALTER COLUMN "g" DROP EXPRESSION') == 1
    pair.log = {"generated": True}
    pair.apply()
    pair.capture(
        "UPDATE t SET n = 5, g = 10 WHERE id = 1; UPDATE t SET id = 3 WHERE id = 2;"
        "UPDATE w SET n = 7, g = 14 WHERE n = 1; DELETE FROM w WHERE n = 2"
    )
    pair.apply()
    for query in ("SELECT id, n, g FROM t ORDER BY 1", "SELECT n, g FROM w"):
        assert fetch(pair.destination, query) == fetch(pair.source, query)


def test_a_row_that_belongs_to_another_partition_at_the_destination_stops_with_what_to_do(make_pair):
    """Each database has another hash of an enum's labels."""
    bounds = "FOR VALUES WITH (MODULUS 2, REMAINDER {})"
    pair = make_pair(
        "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (m mood PRIMARY KEY) PARTITION BY HASH (m);"
        f"CREATE TABLE t_0 PARTITION OF t {bounds.format(0)}; CREATE TABLE t_1 PARTITION OF t {bounds.format(1)}"
    )
    pair.capture("INSERT INTO t VALUES ('a')")
    ((place,),) = fetch(pair.source, "SELECT tableoid::regclass::text FROM t")
    run_sql(pair.destination, "TRUNCATE t; INSERT INTO t VALUES ('a')")
    if fetch(pair.destination, "SELECT tableoid::regclass::text FROM t") == [(place,)]:
        swap = "ALTER TABLE t DETACH PARTITION t_0; ALTER TABLE t DETACH PARTITION t_1; TRUNCATE t_0, t_1;"
        attach = "ALTER TABLE t ATTACH PARTITION t_{} " + bounds + ";"
        run_sql(pair.destination, swap + attach.format(0, 1) + attach.format(1, 0))
    run_sql(pair.destination, "TRUNCATE t")
    with pytest.raises(ChangeConflictError, match="violates partition constraint") as error:
        pair.apply()
    assert "puts the row into another partition" in error.value.next_step


def test_a_column_that_only_the_source_computes_is_to_be_dropped_and_added_as_it_has_it(make_pair):
    """A restore leaves out a generation expression that the destination refuses."""
    pair = make_pair("CREATE TABLE t (id int PRIMARY KEY, g int)")
    computed = "ALTER TABLE t ADD g int GENERATED ALWAYS AS (id * 2) STORED"
    run_sql(pair.source, f"ALTER TABLE t DROP g; {computed}")
    pair.capture("INSERT INTO t VALUES (1)")
    with pytest.raises(ChangeConflictError, match='"g" is only at the destination') as error:
        pair.apply()
    assert "the source computes (GENERATED) is then to be added again" in error.value.next_step
    run_sql(pair.destination, error.value.next_step.partition("such as ")[2].partition(";")[0])
    run_sql(pair.destination, computed)
    pair.apply()
    pair.assert_equal()


TWO_SOURCES = """
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
CREATE TRIGGER acts BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER acts BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE a ENABLE ALWAYS TRIGGER acts; ALTER TABLE b ENABLE ALWAYS TRIGGER acts;
CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION seen(); ALTER EVENT TRIGGER seen ENABLE ALWAYS
"""


def test_changes_of_two_sources_keep_the_same_event_trigger_still_one_after_the_other(make_pair):
    pair = make_pair(TWO_SOURCES)

    @contextlib.contextmanager
    def still(table):
        with contextlib.closing(connect_writer(parse_url(pair.destination))) as connection:
            without_triggers(connection)
            with connection.transaction(), without_user_triggers(connection, table):
                yield connection

    def insert_into_b():
        with still("public.b") as connection:
            connection.execute("INSERT INTO public.b VALUES (1)")

    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(1) as pool:
        with still("public.a") as connection:
            connection.execute("INSERT INTO public.a VALUES (1)")
            other = pool.submit(insert_into_b)
            eventually(lambda: fetch(pair.destination, waiting))
        other.result()
    assert fetch(pair.destination, "SELECT FROM a, b") == [()]
    assert fetch(pair.destination, "SELECT evtenabled FROM pg_event_trigger") == [("A",)]


def test_changes_of_a_table_that_has_taken_the_name_of_another_one_stop_before_they_meet_its_rows(make_pair):
    pair = make_pair(
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);"
        "INSERT INTO a VALUES (1, 'a'); INSERT INTO b VALUES (1, 'b')"
    )
    pair.log = {
        "tables": {
            f"public.{name}": {"oid": number}
            for name, number in fetch(
                pair.source, "SELECT relname, oid FROM pg_class WHERE relname IN ('a', 'b')"
            )
        }
    }
    pair.follow("UPDATE a SET v = 'a2'; UPDATE b SET v = 'b2'")
    pair.capture(
        "ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; UPDATE a SET v = 'b3'"
    )
    with pytest.raises(ChangeConflictError, match=r'"public"\."a" is another table of the source') as error:
        pair.apply()
    assert error.value.next_step.startswith("moveout resync app:public.a ")
    assert fetch(pair.destination, "SELECT v FROM a UNION ALL SELECT v FROM b") == [("a2",), ("b2",)]


def test_a_session_without_our_settings_writes_nothing(make_pair):
    """A pooler in transaction mode gives each transaction a session of its own."""
    pair = make_pair("CREATE TABLE t (id int PRIMARY KEY)")
    pair.capture("INSERT INTO t VALUES (1)")
    with contextlib.closing(open_change_writer(pair.destination, {}, "app")) as writer:
        writer._process += 1
        with pytest.raises(UsageError, match="a pooler gives each transaction a session of its own"):
            Applying(pair.folder, writer).run(CancellationToken(), lambda _: True)
    assert fetch(pair.destination, "SELECT id FROM t") == []


def test_who_may_not_keep_triggers_from_firing_is_told_how(make_pair, other_postgres):
    pair = make_pair("CREATE TABLE t (id int PRIMARY KEY)")
    login(other_postgres, "applier")
    owned = ("TABLE t", "SCHEMA moveout_restore", "TABLE moveout_restore.follow")
    run_sql(pair.destination, ";".join(f"ALTER {thing} OWNER TO applier" for thing in owned))
    pair.destination = as_role(pair.destination, "applier")
    pair.capture("INSERT INTO t VALUES (1), (2); DELETE FROM t WHERE id = 1")
    secrets = {"password": other_postgres.password}
    with pytest.raises(NotAllowedError) as error:
        pair.apply(secrets)
    assert "GRANT SET ON PARAMETER session_replication_role TO the role" in error.value.next_step
    other_postgres.execute("GRANT SET ON PARAMETER session_replication_role TO applier")
    pair.apply(secrets)
    run_sql(other_postgres.url, "REVOKE SET ON PARAMETER session_replication_role FROM applier")
    assert fetch(pair.destination.replace("applier@", "postgres@"), "SELECT id FROM t") == [(2,)]


def test_the_command_that_applies_changes_is_named_to_another_one(make_pair, monkeypatch):
    pair = make_pair("CREATE TABLE t (id int PRIMARY KEY)")
    monkeypatch.setattr(
        "migrate.restore.postgres.changes.change_writer.command_name", lambda: "moveout follow"
    )
    with contextlib.closing(open_change_writer(pair.destination, {}, "app")) as writer:
        with pytest.raises(
            BusyError, match=r"^moveout follow applies the changes of app to .* already$"
        ) as busy:
            open_change_writer(pair.destination, {}, "app")
        session = writer._connection.info.backend_pid
    assert busy.value.next_step == f"end it, or its session: SELECT pg_terminate_backend({session})"


def test_a_transaction_whose_end_is_not_there_yet_delays_none_before_it(make_pair):
    pair = make_pair("CREATE TABLE t (id int PRIMARY KEY)")
    run_sql(pair.source, "INSERT INTO t VALUES (1)")
    run_sql(pair.source, "INSERT INTO t SELECT generate_series(2, 9)")
    messages = list(pair.slot.messages())
    commits = [number for number, message in enumerate(messages, 1) if message.kind is MessageKind.COMMIT]
    cut = commits[0] + 5
    first = pair.folder.write(messages[:cut], None, START, messages[commits[0] - 1].position)
    with contextlib.closing(open_change_writer(pair.destination, {}, "app")) as writer:
        applying = Applying(pair.folder, writer)
        mark = applying.run(CancellationToken(), lambda _: True)
        assert (mark.place, applying.is_settled) == (first.boundary, False)
        assert fetch(pair.destination, "SELECT id FROM t") == [(1,)]
        pair.folder.write(messages[cut:], first, Place(1, cut), messages[-1].position)
    pair.apply()
    pair.assert_equal()


NO_ENCODING = (
    "UPDATE pg_database SET encoding = pg_char_to_encoding('SQL_ASCII') WHERE datname = current_database()"
)


def test_bytes_that_are_no_utf8_come_as_they_are_where_the_destination_has_no_encoding(make_pair):
    pair = make_pair("CREATE TABLE raw (id int PRIMARY KEY, v text UNIQUE)")
    run_sql(pair.source, NO_ENCODING)
    pair.capture(r"INSERT INTO raw VALUES (1, E'gr\374n'), (2, 'é'), (3, E'\377')")
    with pytest.raises(ChangeConflictError) as caught:
        pair.apply()
    assert "CREATE DATABASE … TEMPLATE template0 ENCODING" in caught.value.next_step
    run_sql(pair.destination, NO_ENCODING)
    pair.apply()
    pair.follow(r"UPDATE raw SET v = v || E'\376'; UPDATE raw SET id = 9 WHERE v = E'\377\376'")
    pair.follow(r"UPDATE raw SET v = NULL WHERE id = 1; UPDATE raw SET v = E'gr\374n\376' WHERE id = 2")
    run_sql(pair.destination, "UPDATE raw SET v = NULL WHERE id = 2; INSERT INTO raw VALUES (4, chr(255))")
    pair.capture(r"INSERT INTO raw VALUES (4, E'\375')")
    with pytest.raises(ChangeConflictError, match=r"the destination's row \(id = '4', v = '.'\)"):
        pair.apply()
