"""A token ends waiting and work, in its children, too."""

import os
import signal
import threading
import time

import pytest

from migrate.runtime import cancellation
from migrate.runtime.cancellation import CancellationToken, Cancelled


def test_cancelling_ends_waiting_at_once_there_and_in_children():
    parent = CancellationToken()
    tokens = [parent, parent.child(), parent.child().child()]
    ended: list[bool] = []
    threads = [
        threading.Thread(target=lambda token=token: ended.append(token.wait(60))) for token in tokens[:2]
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    parent.cancel()
    for thread in threads:
        thread.join()
    assert ended == [True, True]
    assert time.monotonic() - started < 30
    assert parent.child().is_cancelled


def test_a_child_is_cancelled_alone():
    parent = CancellationToken()
    child = parent.child()
    child.cancel()
    parent.check()
    with pytest.raises(Cancelled):
        child.check()
    assert not parent.wait(0.0)


def test_no_exporter_takes_it_for_an_item_that_failed():
    assert not issubclass(Cancelled, Exception)


def test_what_is_being_sent_has_some_seconds(monkeypatch):
    token = CancellationToken()
    assert not token.is_overdue
    token.cancel()
    assert not token.is_overdue
    monkeypatch.setattr(cancellation, "GRACE_SECONDS", -1.0)
    assert token.is_overdue


def test_a_signal_handler_may_cancel_what_its_own_thread_waits_on():
    token = CancellationToken()
    before = signal.signal(signal.SIGUSR1, lambda *_: token.cancel())
    try:
        with token._changed:  # as within wait() itself
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)
        assert token.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
