"""Passwords of other servers in definitions of tables do not leave, whatever an engine calls them."""

import pytest

from exporters.mysql.definitions.connection_secrets import without_secrets

TABLE = "CREATE TABLE `t` (\n  `a` int COMMENT 'password \"x\"'\n) ENGINE={}"


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (
            """SPIDER COMMENT='wrapper "mysql", user "u", password "s''e,c\\\\"r", table "t"'""",
            """SPIDER COMMENT='wrapper "mysql", user "u", password "", table "t"'""",
        ),
        (
            (
                """SPIDER CONNECTION='host "h", PASSWORD ''sec'''\n PARTITION BY KEY ()\n"""
                """(PARTITION `p` COMMENT = 'srv "s", password "sec"' ENGINE = SPIDER)"""
            ),
            (
                """SPIDER CONNECTION='host "h", PASSWORD '''''\n PARTITION BY KEY ()\n"""
                """(PARTITION `p` COMMENT = 'srv "s", password ""' ENGINE = SPIDER)"""
            ),
        ),
        (
            "SPIDER `REMOTE_PASSWORD`='sec' `REMOTE_SERVER`='s'",
            "SPIDER `REMOTE_PASSWORD`='' `REMOTE_SERVER`='s'",
        ),
        (
            "CONNECT CONNECTION='DSN=x;UID=u;PWD=sec' `OPTION_LIST`='user=u,password=sec,host=h'",
            "CONNECT CONNECTION='DSN=x;UID=u;PWD=' `OPTION_LIST`='user=u,password=,host=h'",
        ),
        ("FEDERATED CONNECTION='mysql://u:sec@h/d/t'", "FEDERATED CONNECTION='mysql://u@h/d/t'"),
    ],
)
def test_a_password_is_left_out(options, kept):
    assert without_secrets(TABLE.format(options)) == (TABLE.format(kept), True)


@pytest.mark.parametrize(
    "options", ["InnoDB COMMENT='password \"mine\", password=mine'", "SPIDER COMMENT='srv \"s\"'"]
)
def test_a_comment_of_another_kind_stays(options):
    assert without_secrets(TABLE.format(options)) == (TABLE.format(options), False)
