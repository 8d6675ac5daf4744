"""pg_dump's script: where its entries begin, and in which order they may be made."""

import pytest

from migrate.restore.postgres.definitions.dump_script import split_script, unquote, without_logging
from migrate.restore.postgres.definitions.post_data_order import LockedTables, is_event_trigger, stages
from migrate.restore.postgres.definitions.selected_entries import OwnedSequences, select_entries

HEAD = (
    b"--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\n\n"
    b"SET default_table_access_method = heap;\n\n"
)


def entry(kind: str, name: str, sql: str, schema: str = "public") -> bytes:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: me\n--\n\n{sql}\n\n\n".encode()


FAKE = "--\n-- Name: fake; Type: TABLE; Schema: public; Owner: me\n--\n"


@pytest.mark.parametrize(
    "sql",
    [
        f"COMMENT ON TABLE public.t IS '{FAKE} it''s {FAKE}';",
        f"CREATE FUNCTION f() AS $_$ {FAKE} $$ ' $_$;",
        f"CREATE FUNCTION f() AS $$ ' $$ || $_$ {FAKE} $$ $_$;",
        f"SELECT E'\\' {FAKE} \\'' || E'it''s\\\\' || 'plain\\', '{FAKE}';",
        f'CREATE VIEW "a {FAKE}""b" AS SELECT 1;',
        f"SELECT 1 /* {FAKE} /* nested ' */ {FAKE} */ + 2;",
        "SELECT 1; -- it's -- Name: x; Type: TABLE; Schema: public; Owner: me\nSELECT 2;",
        "SELECT $1, a$b$c, '$$' FROM é$d$e;",
    ],
)
def test_what_looks_like_an_entry_inside_of_quotes_is_none(sql):
    script = split_script(HEAD + entry("COMMENT", "TABLE t", sql) + entry("INDEX", "i", "CREATE INDEX;"))
    assert [(one.kind, one.name) for one in script.entries] == [("COMMENT", "TABLE t"), ("INDEX", "i")]
    assert sql.encode() in script.entries[0].sql


def test_settings_between_entries_hold_for_those_that_follow():
    first = (
        entry("TABLE", "a", "CREATE TABLE public.a ();").rstrip()
        + b"\n\n\nSET default_table_access_method = odd;\n\n"
    )
    script = split_script(
        HEAD + first + entry("TABLE", "b", "CREATE TABLE public.b ();") + entry("TABLE", "c", "x;")
    )
    assert b"heap" in script.entries[0].sql
    assert [b"odd" in one.sql.partition(b"CREATE")[0] for one in script.entries] == [False, True, True]


def test_a_script_without_objects_has_no_entries():
    assert split_script(HEAD).entries == ()


@pytest.mark.parametrize(
    ("written", "name"),
    [(b"public.t", ("public", "t")), (b'"a.b"."c""d"', ("a.b", 'c"d')), ('"é".ö'.encode(), ("é", "ö"))],
)
def test_names_are_read_as_pg_dump_writes_them(written, name):
    assert unquote(written) == name


def index(name: str, table: str) -> bytes:
    return entry("INDEX", name, f"CREATE UNIQUE INDEX {name} ON {table} USING btree (a);")


def constraint(table: str, name: str) -> bytes:
    return entry(
        "CONSTRAINT", f"t {name}", f"ALTER TABLE ONLY {table}\n    ADD CONSTRAINT {name} PRIMARY KEY (id);"
    )


def foreign_key(table: str, name: str, other: str) -> bytes:
    sql = f"ALTER TABLE ONLY {table}\n    ADD CONSTRAINT {name} FOREIGN KEY (a) REFERENCES {other}(id);"
    return entry("FK CONSTRAINT", f"t {name}", sql)


def heavy(*entries: bytes) -> list[tuple[str, bool]]:
    """What is made at once of entries of a large table, and whether it is the index of a key."""
    script = split_script(HEAD + b"".join(entries))
    first = stages(script.entries, {("public", "t"): 2**30})[0]
    return sorted((step.entry.name, step.makes_index) for step in first.steps)


def test_the_index_of_a_key_is_made_beside_the_other_indexes_of_a_large_table():
    script = split_script(HEAD + constraint("public.t", "pk") + index("i", "public.t"))
    first, last = stages(script.entries, {("public", "t"): 2**30})
    (key,) = last.steps
    assert [step.fits(LockedTables.of(first.steps)) for step in first.steps] == [True, True]
    assert key.key.create_index.endswith(b"CREATE UNIQUE INDEX pk ON ONLY public.t USING btree (id);")
    assert key.key.take_index.endswith(b"\n    ADD CONSTRAINT pk PRIMARY KEY USING INDEX pk;")
    assert key.key.drop_index == b"DROP INDEX public.pk;"


def test_a_key_is_made_at_once_where_that_is_as_good():
    assert heavy(constraint("public.t", "pk")) == [("t pk", False)]
    assert planned(constraint("public.t", "pk"), index("i", "public.t")) == [(True, ["t pk", "i"])]
    for clause in ("DEFERRABLE", "INCLUDE (b)", "WITH (fillfactor='70')"):
        sql = f"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT pk PRIMARY KEY (id) {clause};"
        key = entry("CONSTRAINT", "t pk", sql)
        assert heavy(key, index("i", "public.t")) == [("i", False), ("t pk", False)]


def planned(*entries: bytes, weights=None) -> list[tuple[bool, list[str]]]:
    by_stage = stages(split_script(HEAD + b"".join(entries)).entries, weights)
    return [(stage.parallel, [step.entry.name for step in stage.steps]) for stage in by_stage]


def test_indexes_come_at_once_then_foreign_keys_then_the_rest_in_order():
    rest = [
        entry("TRIGGER", "t up", "CREATE TRIGGER up BEFORE INSERT ON public.t;"),
        entry("ACL", "x", "GRANT;"),
    ]
    assert planned(
        constraint("public.t", "k"),
        index("i", "public.t"),
        entry("INDEX ATTACH", "j", "ALTER INDEX public.a ATTACH PARTITION public.b;"),
        *rest,
        foreign_key("public.t", "f", "public.o"),
        entry("MATERIALIZED VIEW DATA", "m", "REFRESH MATERIALIZED VIEW public.m;"),
    ) == [(True, ["t k", "i"]), (False, ["j"]), (True, ["t f"]), (False, ["t up", "x", "m"])]


def excluding(table: str, name: str, clause: str = "WITH &&") -> bytes:
    sql = f"ALTER TABLE ONLY public.{table}\n    ADD CONSTRAINT {name} EXCLUDE USING gist (a {clause});"
    return entry("CONSTRAINT", f"{table} {name}", sql)


def attached(above: str, below: str) -> bytes:
    return entry("INDEX ATTACH", below, f"ALTER INDEX public.{above} ATTACH PARTITION public.{below};")


def test_a_key_that_no_server_attaches_is_made_with_those_of_the_partitions():
    tree = (
        excluding("p", "k"),
        excluding("p1", "k1"),
        excluding("p1a", '"k\'1a"'),
        attached("k", "k1"),
        attached("k1", '"k\'1a"'),
    )
    (made,), renamed = (stage.steps for stage in stages(split_script(HEAD + b"".join(tree)).entries))
    assert b"ALTER TABLE public.p\n" in made.entry.sql
    assert made.tables == {("public", name) for name in ("p", "p1", "p1a")}
    assert [step.entry.name for step in renamed] == ["k1", '"k\'1a"']
    assert b" made <> 'k''1a' " in renamed[1].entry.sql
    assert b"EXECUTE 'ALTER TABLE ONLY public.p1\n    ADD CONSTRAINT k1 EXCLUDE " in renamed[0].entry.sql
    other = (excluding("p", "k"), excluding("p1", "k1", "WITH ="), attached("k", "k1"))
    assert planned(*other) == [(True, ["p k", "p1 k1"]), (False, ["k1"])]


def test_nothing_moves_across_an_entry_that_may_be_needed():
    function = entry("FUNCTION", "f()", "CREATE FUNCTION public.f() …;")
    assert planned(index("a", "public.t"), function, index("b", "public.t")) == [
        (True, ["a"]),
        (False, ["f()"]),
        (True, ["b"]),
    ]


def test_a_kind_counts_only_where_the_statement_is_of_that_kind():
    fake = entry("INDEX", "i", "CREATE FUNCTION public.i() …;")
    assert planned(index("a", "public.t"), fake, index("b", "public.t"))[1] == (False, ["i"])


def test_the_heaviest_tables_indexes_come_first():
    light, heavy = index("a", "public.light"), index("b", 'public."Heavy"')
    assert planned(light, heavy, weights={("public", "Heavy"): 9, ("public", "light"): 1}) == [
        (True, ["b", "a"])
    ]


def test_steps_that_lock_the_same_table_do_not_run_at_once():
    entries = split_script(
        index("a", "public.t")
        + index("b", "public.t")
        + constraint("public.t", "k")
        + foreign_key("public.u", "f", "public.t")
        + index("c", "public.u")
    ).entries
    a, b, k, c, f = (step for stage in stages(entries) for step in stage.steps)
    assert a.fits(LockedTables.of([b]))
    assert not k.fits(LockedTables.of([a]))
    assert c.fits(LockedTables.of([k, a]))
    assert not f.fits(LockedTables.of([a]))


def test_event_triggers_and_their_comments_are_kept_for_the_end():
    trigger = entry(
        "EVENT TRIGGER", "e", "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION public.f();", "-"
    )
    comment = entry("COMMENT", "EVENT TRIGGER e", "COMMENT ON EVENT TRIGGER e IS 'x';", "-")
    entries = split_script(trigger + comment + index("a", "public.t")).entries
    assert [is_event_trigger(one) for one in entries] == [True, True, False]
    assert [step.entry.name for stage in stages(entries) for step in stage.steps] == ["a"]


def test_a_tables_own_entries_are_found():
    script = split_script(
        entry("TABLE", "t", "CREATE TABLE public.t (\n    id integer\n);")
        + entry("TABLE", "other", "CREATE TABLE public.other (\n    id integer REFERENCES public.t(id)\n);")
        + entry("SEQUENCE", "t_id_seq", "CREATE SEQUENCE public.t_id_seq\n    START WITH 1;")
        + entry("SEQUENCE OWNED BY", "t_id_seq", "ALTER SEQUENCE public.t_id_seq OWNED BY public.t.id;")
        + entry("SEQUENCE", "lonely", "CREATE SEQUENCE public.lonely;")
        + entry(
            "SEQUENCE",
            "o",
            "ALTER TABLE public.other ALTER COLUMN id ADD GENERATED (\n    SEQUENCE NAME public.o\n);",
        )
        + entry("TABLE ATTACH", "t", "ALTER TABLE ONLY public.above ATTACH PARTITION public.t DEFAULT;")
        + entry("DEFAULT", "t id", "ALTER TABLE ONLY public.t ALTER COLUMN id SET DEFAULT 1;")
        + entry("COMMENT", "COLUMN t.id", "COMMENT ON COLUMN public.t.id IS 'x';")
        + entry("ACL", "TABLE t", "GRANT SELECT ON TABLE public.t TO me;")
        + foreign_key("public.t", "f", "public.other")
        + foreign_key("public.other", "g", "public.t")
        + index("i", "public.t")
        + entry(
            "TRIGGER",
            "t up",
            "CREATE TRIGGER up BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();",
        )
        + entry("RULE", "t r", "CREATE RULE r AS\n    ON INSERT TO public.t DO INSTEAD NOTHING;")
        + entry("POLICY", "t p", "CREATE POLICY p ON public.t;")
    )
    found = [one.name for one in select_entries(script.entries, {("public", "t")})]
    assert found == [
        *("t", "t_id_seq", "t_id_seq", "t id", "COLUMN t.id", "TABLE t", "t f", "i", "t up", "t r", "t p"),
    ]
    with_parent = {("public", "t"), ("public", "above")}
    assert "TABLE ATTACH" in [one.kind for one in select_entries(script.entries, with_parent)]
    sequences = OwnedSequences.of(script.entries)
    assert sequences.of_tables({("public", "t")}) == {("public", "t_id_seq")}
    assert sequences.of_tables({("public", "other")}) == {("public", "o")}


def test_an_older_server_is_not_told_that_the_sequence_of_an_unlogged_table_is_logged():
    statements = (
        "ALTER TABLE public.t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME public.s\n"
        "    LOGGED\n    START WITH 1\n);"
    )
    script = split_script(
        HEAD + entry("SEQUENCE", "s", statements) + entry("COMMENT", "c", "COMMENT '\n    LOGGED\n';")
    )
    sequence, comment = map(without_logging, script.entries)
    assert b"NAME public.s\n    START" in sequence.sql
    assert comment == script.entries[1]
