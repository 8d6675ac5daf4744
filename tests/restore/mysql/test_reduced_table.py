"""What a table can do without is found in its definition, whatever stands in quotes."""

from migrate.restore.mysql.definitions.reduced_table import least, pieces_of, without

SQL = """CREATE TABLE `a(b` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `x y` varchar(3) COLLATE latin1_bin DEFAULT 'a,('')' COMMENT ' DEFAULT 1, KEY `k`' CHECK (length(`x y`) < 3),
  `g` int(11) GENERATED ALWAYS AS (concat(`id`,')')) VIRTUAL COMMENT 'q',
  `f` text DEFAULT (uuid()),
  `t` timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`x y`) USING HASH,
  CONSTRAINT `fk``1` FOREIGN KEY (`g`) REFERENCES `o` (`i`),
  CONSTRAINT `c` CHECK (1 > 0)
) ENGINE=InnoDB COLLATE=utf8mb4_bin ROW_FORMAT=COMPRESSED COMMENT='PARTITION BY'
 PARTITION BY HASH (`id`)
PARTITIONS 3"""
BARE = """CREATE TABLE `a(b` (
  `id` int(11) NOT NULL,
  `x y` varchar(3) COMMENT ' DEFAULT 1, KEY `k`',
  `g` int(11) COMMENT 'q',
  `f` text,
  `t` timestamp NULL
) ENGINE=InnoDB COMMENT='PARTITION BY'"""


def test_all_of_them_are_found_and_can_go():
    pieces = pieces_of(SQL)
    assert without(SQL, pieces) == BARE
    assert [(piece.lost, piece.shown) for piece in pieces[:3]] == [
        ("key", "PRIMARY KEY (`id`)"),
        ("AUTO_INCREMENT", "`id` AUTO_INCREMENT"),
        ("generated column", "`g` GENERATED ALWAYS AS (concat(`id`,')')) VIRTUAL"),
    ]
    assert [piece.addition for piece in pieces if piece.addition][-2:] == [
        "PARTITION BY HASH (`id`)\nPARTITIONS 3",
        "ADD CONSTRAINT `fk``1` FOREIGN KEY (`g`) REFERENCES `o` (`i`)",
    ]


def test_only_what_is_refused_goes():
    def refusal(sql: str) -> str:
        return next((f"no {word}" for word in ("uuid", "USING HASH") if word in sql), "")

    out = least(SQL, refusal)
    assert out is not None
    assert {piece.shown: reason for piece, reason in out.items()} == {
        "`f` DEFAULT (uuid())": "no uuid",
        "UNIQUE KEY `u` (`x y`) USING HASH": "no USING HASH",
    }
    assert least(SQL, lambda sql: "no such engine") is None
