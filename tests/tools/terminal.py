"""A command on a terminal of its own: what it shows, and what somebody types; and a terminal in memory."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time

from rich.console import Console as RichConsole

from migrate.cli.common.terminal import Console
from tests.cli.conftest import MOVEOUT

SHARE = re.compile(r"(\d+)%")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def console_in_memory(width, *, is_terminal=True):
    """Return a console of so many columns, and the text that is written to it."""
    written = io.StringIO()
    console = RichConsole(
        file=written, force_terminal=is_terminal, color_system=None, width=width, soft_wrap=True
    )
    return Console(console), written


class Terminal:
    """A command on a terminal of its own. ``share`` is the pattern of the per cents to look for. Its answer is shown,
    too, where it ``shows_answer``.
    """

    def __init__(self, *words, columns=80, share=SHARE, shows_answer=False):
        self.text = ""
        self._shares = []
        self._share = share
        leader, follower = pty.openpty()
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [MOVEOUT, *map(str, words)],
            stdin=follower,
            stdout=follower if shows_answer else subprocess.DEVNULL,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
        )
        os.close(follower)
        self._leader = leader
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while data := os.read(self._leader, 65536):
                shown = data.decode(errors="replace")
                self.text += shown
                shares = self._share.findall(CONTROL.sub("", shown))
                self._shares.extend((time.monotonic(), int(share)) for share in shares)
        except OSError:
            pass

    def wait_for(self, text):
        """Wait until it has shown a text."""
        until = time.monotonic() + 60
        while text not in self.text:
            assert time.monotonic() < until, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.05)

    def answer(self, question, text):
        """Wait for a question, and type the answer."""
        self.wait_for(question)
        self.type(text + "\n")

    def type(self, keys):
        """Type keys: ``\\x04`` is Ctrl-D."""
        os.write(self._leader, keys.encode())

    def shares(self, seconds):
        """The per cents that it showed in the last seconds, oldest first."""
        return self.shares_since(time.monotonic() - seconds)

    def shares_since(self, since):
        """The per cents that it showed since a moment of the monotonic clock, after the last one before it."""
        before = [share for at, share in self._shares if at <= since]
        return before[-1:] + [share for at, share in self._shares if at > since]

    def end(self):
        code = self.process.wait(timeout=240)
        self._thread.join()
        os.close(self._leader)
        return code
