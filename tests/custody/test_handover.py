"""The whole story between two parties, and what is refused on the way."""

import contextlib
import os
import subprocess
import sys

import pytest

from scripts.handover import MOVEOUT, Handover
from scripts.timestamp_authority import Authority, serving
from tests.cli.conftest import call


def in_this_process(argv, directory, environment) -> int:
    """Run moveout here, which is faster; other programs as they are."""
    if argv[0] != str(MOVEOUT):
        return subprocess.run(argv, cwd=directory, env=environment, check=False).returncode
    with contextlib.chdir(directory):
        ended = call(*argv[1:], env=environment)
    sys.stdout.write(ended.out)
    sys.stderr.write(ended.err)
    sys.stdout.flush()
    return ended.code


@pytest.mark.torture
def test_a_host_keeps_its_promise_and_each_side_can_show_it(tmp_path, servers, minio, other_minio, capfd):
    with serving(Authority(tmp_path / "authority")) as authority:
        story = Handover(
            tmp_path / "work",
            minio,
            other_minio,
            dict(os.environ),
            authority,
            wait_seconds=1,
            execute=in_this_process,
        )
        story.tell()
    assert authority.answers >= 1
    assert "CN=Timestamps" in (tmp_path / "work/acme/receipt.html").read_text()
    assert "Erased and certified by" in (tmp_path / "work/host/certificate.html").read_text()
    captured = capfd.readouterr()
    for sentence in (
        "HELD:", "NOT RELEASED:", "24 other operations",
        "Receipt for the bundle", "Acknowledged:", "Released:", "Erased:",
        'Good "moveout-document" signature for host',
    ):  # fmt: skip
        assert sentence in captured.out, sentence
    assert "the bundle cannot be erased: " in captured.err
    assert "2 of these keys" in captured.out
    shown = captured.out[captured.out.index("custody show") :]
    events = [
        "created", "sealed", "signed", "transferred", "held", "granted", "received", "acknowledged", "released",
        "revoked", "erasing", "erased",
    ]  # fmt: skip
    at = [shown.index(f"  {event}") for event in events]
    assert at == sorted(at)
